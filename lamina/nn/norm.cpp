#include "lamina/nn/norm.h"

#include "lamina/nn/inference.h"
#include "lamina/nn/training.h"

namespace lamina {

namespace {

Tensor dressed(const Tensor& x, const Norm& norm) {
  const Tensor scaled = x * norm.gain;
  return norm.bias.defined() ? scaled + norm.bias : scaled;
}

Tensor centred(const Tensor& x, const Norm& norm) {
  return norm.centred ? x - x.mean(-1, true) : x;
}

}  // namespace

Tensor Norm::operator()(const Tensor& x) const {
  if (centred) return at::layer_norm(x, {x.size(-1)}, gain, bias, epsilon);
  if (!bias.defined() && training::applies({x, gain})) return training::rms_norm(x, *this);
  if (!bias.defined() && inference::applies({x, gain})) return inference::rms_norm(x, *this);
  const Tensor y = at::rms_norm(x, {x.size(-1)}, gain, epsilon);
  return bias.defined() ? y + bias : y;
}

Tensor Norm::scale(const Tensor& x) const {
  return (lamina::centred(x, *this).square().mean(-1, true) + epsilon).sqrt();
}

Tensor Norm::held(const Tensor& x, const Tensor& by) const {
  return dressed(lamina::centred(x, *this) / by, *this);
}

Tensor Norm::held(const Tensor& x, double by) const {
  return dressed(lamina::centred(x, *this) / by, *this);
}

}  // namespace lamina
