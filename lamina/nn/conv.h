// What networks on pictures are made of: convolutions, norms over groups of channels, and activations. Maps
// are [batch, channels, height, width]; numbers stand in the type of the map.
#pragma once

#include "lamina/tensor/tensor.h"

namespace lamina {

struct Conv {
  Tensor weight = {};  // [out, in, height, width]
  Tensor bias = {};    // [out], or undefined
  int64_t stride = 1;
  int64_t padding = 0;  // zeros on every side

  // [batch, in, height, width] -> [batch, out, ...].
  Tensor operator()(const Tensor& x) const;
};

// Mean and variance of each group of neighbouring channels over the whole map (Wu and He, 2018).
struct GroupNorm {
  Tensor gain = {}, bias = {};  // [channels]
  int64_t groups = 32;
  double epsilon = 1e-5;

  Tensor operator()(const Tensor& x) const;
};

// Names of our own, as ATen has the others.
// x sigmoid(x) (Elfwing, Uchibe and Doya, 2017).
Tensor silu_of(const Tensor& x);
// x Phi(x), by the error function (Hendrycks and Gimpel, 2016).
Tensor gelu_of(const Tensor& x);
// x sigmoid(1.702 x), with which OpenAI's CLIP was trained.
Tensor quick_gelu_of(const Tensor& x);

}  // namespace lamina
