// A matrix product with weights as the checkpoint has them, [out, in]. The weight may be narrower than the
// activations (bfloat16, float16 beside float32): it is then widened when used, never computed in.
#pragma once

#include <optional>

#include "lamina/tensor/tensor.h"

namespace lamina {

struct Linear {
  Tensor weight;  // [out, in]
  Tensor bias;    // [out], or undefined

  // [..., in] -> [..., out], in the type of x.
  Tensor operator()(const Tensor& x) const;
};

}  // namespace lamina
