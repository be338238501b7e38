// Norms over the last axis, in the arithmetic of transformers, as one value: RMSNorm (Zhang and Sennrich,
// 2019) and LayerNorm (Ba, Kiros and Hinton, 2016), since what is done to them is the same.
#pragma once

#include "lamina/tensor/tensor.h"

namespace lamina {

struct Norm {
  Tensor gain;       // [width]
  Tensor bias = {};  // [width], or undefined
  double epsilon = 1e-6;
  bool centred = false;  // LayerNorm: the mean is taken off first

  // (x - mean) / scale(x) * gain + bias; without the mean unless `centred`.
  Tensor operator()(const Tensor& x) const;
  // What a token is divided by, sqrt(mean(x^2) + epsilon) of the centred x: [..., 1].
  Tensor scale(const Tensor& x) const;
  // The same with the division made constant, `by` a number or [..., 1]: FakeLN of Schaeffer et al., 2025
  // (arXiv 2507.02559). An affine map.
  Tensor held(const Tensor& x, const Tensor& by) const;
  Tensor held(const Tensor& x, double by) const;
};

}  // namespace lamina
