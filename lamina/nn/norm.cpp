#include "lamina/nn/norm.h"

namespace lamina {

Tensor RmsNorm::operator()(const Tensor& x) const {
  return at::rms_norm(x, {x.size(-1)}, gain, epsilon);
}

Tensor LayerNorm::operator()(const Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, gain, bias, epsilon);
}

}  // namespace lamina
