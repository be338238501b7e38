// Norms over the last axis, in the arithmetic of transformers.
#pragma once

#include "lamina/tensor/tensor.h"

namespace lamina {

// Zhang and Sennrich, 2019: x / rms(x), then the gain.
struct RmsNorm {
  Tensor gain;  // [width]
  double epsilon = 1e-6;

  Tensor operator()(const Tensor& x) const;
};

// Ba, Kiros and Hinton, 2016: the mean is taken off, then x / standard deviation, gain and bias.
struct LayerNorm {
  Tensor gain, bias;  // [width]
  double epsilon = 1e-5;

  Tensor operator()(const Tensor& x) const;
};

}  // namespace lamina
