#include "lamina/heal/ema.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

namespace {

std::vector<Tensor> values_of(const std::vector<Parameter>& parameters) {
  std::vector<Tensor> values;
  for (const Parameter& parameter : parameters) values.push_back(parameter.value.detach());
  return values;
}

}  // namespace

Averaging::Averaging(std::vector<Parameter> parameters, double decay)
    : parameters_(std::move(parameters)), decay_(decay) {
  if (!(decay >= 0) || !(decay < 1)) fail("the decay of the average is {}; it lies from 0 to below 1", decay);
  for (const Tensor& value : values_of(parameters_)) averages_.push_back(value.clone());
}

void Averaging::end_step(StepRecord& record, Group& /*group*/) {
  const c10::NoGradGuard plain;
  const auto n = static_cast<double>(record.step);
  const double decay = std::min(decay_, (1 + n) / (10 + n));
  at::_foreach_lerp_(averages_, values_of(parameters_), 1 - decay);
}

Hook::State Averaging::state() const {
  State state;
  for (size_t i = 0; i < parameters_.size(); ++i)
    state.tensors["average/" + parameters_[i].name] = averages_[i];
  return state;
}

void Averaging::restore(const State& state) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto it = state.tensors.find("average/" + parameters_[i].name);
    if (it == state.tensors.end() || it->second.sizes() != averages_[i].sizes())
      fail("the checkpoint has no average of {}", parameters_[i].name);
    averages_[i].copy_(it->second);
  }
}

std::string Averaging::digest() const {
  return fmt::format("average, decay {}", decay_);
}

void Averaging::swap() {
  const c10::NoGradGuard plain;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor value = parameters_[i].value.detach(), kept = value.clone();
    value.copy_(averages_[i]);
    averages_[i].copy_(kept);
  }
}

}  // namespace lamina
