#include "lamina/heal/impl/adamw.h"

#include <algorithm>

#include "lamina/tensor/autograd.h"

namespace lamina {

AdamW::AdamW(std::vector<Parameter> parameters, Options options)
    : parameters_(std::move(parameters)), options_(options) {
  const c10::NoGradGuard plain;
  for (const Parameter& parameter : parameters_)
    moments_.push_back({.first = at::zeros_like(parameter.value), .second = at::zeros_like(parameter.value)});
}

double AdamW::gradient_norm() const {
  const c10::NoGradGuard plain;
  std::vector<Tensor> gradients;
  for (const Parameter& parameter : parameters_) {
    if (parameter.value.grad().defined()) gradients.push_back(parameter.value.grad());
  }
  if (gradients.empty()) return 0;
  std::vector<Tensor> norms = at::_foreach_norm(gradients);
  for (Tensor& norm : norms) norm = norm.to(at::kDouble);
  return at::linalg_vector_norm(at::stack(norms)).item<double>();
}

std::optional<std::string> AdamW::not_finite() const {
  for (const Parameter& parameter : parameters_) {
    const Tensor& gradient = parameter.value.grad();
    if (gradient.defined() && !at::isfinite(gradient).all().item<bool>()) return parameter.name;
  }
  return std::nullopt;
}

void AdamW::update(const Update& update) {
  const c10::NoGradGuard plain;
  for (const bool decays : {true, false}) {
    std::vector<Tensor> values, gradients, firsts, seconds, steps;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const Parameter& parameter = parameters_[i];
      if (parameter.decays != decays || !parameter.value.grad().defined()) continue;
      values.push_back(parameter.value);
      gradients.push_back(parameter.value.grad());
      firsts.push_back(moments_[i].first);
      seconds.push_back(moments_[i].second);
      steps.push_back(at::full({}, static_cast<double>(update.step),
                               at::TensorOptions(at::kFloat).device(parameter.value.device())));
    }
    if (values.empty()) continue;
    std::optional<Tensor> divisor;
    if (update.factor != 1) {
      // The kernel divides as it goes, by a float32; float64 is held to more than that.
      if (values.front().scalar_type() == at::kFloat)
        divisor =
            at::full({}, 1 / update.factor, at::TensorOptions(at::kFloat).device(values.front().device()));
      else
        at::_foreach_mul_(gradients, update.factor);
    }
    at::_fused_adamw_(values, gradients, firsts, seconds, {}, steps, update.learning_rate, options_.beta1,
                      options_.beta2, decays ? options_.weight_decay : 0, options_.epsilon, /*amsgrad=*/false,
                      /*maximize=*/false, divisor);
  }
}

}  // namespace lamina
