#include "lamina/nn/mixed_conv.h"

#include "lamina/tensor/autograd.h"

namespace lamina {

Conv LastKernel::of(const Tensor& gates, const std::function<Conv()>& make) {
  const std::scoped_lock held(lock_);
  if (!gates_.defined() || gates_.device() != gates.device() || gates_.scalar_type() != gates.scalar_type() ||
      !at::equal(gates_, gates)) {
    conv_ = make();
    gates_ = gates.clone();
  }
  return conv_;
}

Tensor MixedConv::features(const Tensor& x, const Tensor& time) const {
  if (reads == Reads::time) return time;
  const Tensor means = x.mean({2, 3});
  return reads == Reads::input ? means : at::cat({means, time}, 1);
}

Tensor MixedConv::gates(const Tensor& routed) const {
  switch (gate) {
    case Gate::tanh_residual:
      return routed.tanh();
    case Gate::sigmoid:
      return routed.sigmoid();
    case Gate::softmax:
      return routed.softmax(-1);
  }
  return routed;
}

Conv MixedConv::mixed(const Tensor& gates) const {
  Conv conv = kept;
  const bool residual = gate == Gate::tanh_residual;
  const int64_t first = residual ? 0 : 1;
  const auto blended = [&](const Tensor& own, const auto& of) {
    if (!own.defined()) return own;
    Tensor sum = residual ? own : gates.select(0, 0) * own;
    for (size_t e = 0; e < others.size(); ++e) {
      const Tensor g = gates.select(0, static_cast<int64_t>(e) + first);
      sum = sum + g * (residual ? of(others[e]) - own : of(others[e]));
    }
    return sum;
  };
  conv.weight = blended(kept.weight, [](const Conv& other) { return other.weight; });
  conv.bias = blended(kept.bias, [](const Conv& other) { return other.bias; });
  return conv;
}

Tensor MixedConv::operator()(const Tensor& x, const Tensor& gates) const {
  const int64_t batch = x.size(0);
  if (batch == 1 || at::equal(gates, gates.narrow(0, 0, 1).expand_as(gates))) {
    const Tensor own = gates.select(0, 0);
    // What is being trained changes between two calls with the same gates.
    const bool learns = at::GradMode::is_enabled() || kept.weight.requires_grad() || gates.requires_grad();
    return (learns ? mixed(own) : last->of(own, [&] { return mixed(own); }))(x);
  }
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < batch; ++i) rows.push_back(mixed(gates.select(0, i))(x.narrow(0, i, 1)));
  return at::cat(rows, 0);
}

}  // namespace lamina
