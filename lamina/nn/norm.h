// Root-mean-square norm (Zhang and Sennrich, 2019), in the arithmetic of transformers: x / rms(x), then the
// gain.
#pragma once

#include "lamina/tensor/tensor.h"

namespace lamina {

struct RmsNorm {
  Tensor gain;  // [width]
  double epsilon = 1e-6;

  Tensor operator()(const Tensor& x) const;
};

}  // namespace lamina
