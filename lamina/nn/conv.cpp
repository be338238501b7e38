#include "lamina/nn/conv.h"

namespace lamina {

Tensor Conv::operator()(const Tensor& x) const {
  const at::ScalarType type = x.scalar_type();
  return at::conv2d(x, weight.to(type), bias.defined() ? bias.to(type) : bias, {stride, stride},
                    {padding, padding});
}

Tensor GroupNorm::operator()(const Tensor& x) const {
  const at::ScalarType type = x.scalar_type();
  return at::group_norm(x, groups, gain.to(type), bias.to(type), epsilon);
}

Tensor silu_of(const Tensor& x) {
  return at::silu(x);
}

Tensor gelu_of(const Tensor& x) {
  return at::gelu(x);
}

Tensor quick_gelu_of(const Tensor& x) {
  return x * at::sigmoid(x * 1.702);
}

}  // namespace lamina
