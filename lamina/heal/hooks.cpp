#include "lamina/heal/hooks.h"

#include "lamina/base/error.h"

namespace lamina {

Tap& Hooks::tap() {
  return hooks_.empty() ? Hook::tap() : hooks_.front()->tap();
}

void Hooks::begin_step(int64_t step) {
  for (Hook* hook : hooks_) hook->begin_step(step);
}

void Hooks::begin_pass(const Batch& batch) {
  for (Hook* hook : hooks_) hook->begin_pass(batch);
}

std::optional<std::pair<std::string, Tensor>> Hooks::extra_loss() {
  return hooks_.empty() ? std::nullopt : hooks_.front()->extra_loss();
}

void Hooks::end_step(StepRecord& record, Group& group) {
  for (Hook* hook : hooks_) hook->end_step(record, group);
}

std::vector<Parameter> Hooks::parameters() {
  std::vector<Parameter> all;
  for (Hook* hook : hooks_) {
    for (Parameter& parameter : hook->parameters()) all.push_back(std::move(parameter));
  }
  return all;
}

void Hooks::recomputing(bool again) {
  for (Hook* hook : hooks_) hook->recomputing(again);
}

// Each one's under its number.
Hook::State Hooks::state() const {
  State all{.json = Json::array()};
  for (size_t i = 0; i < hooks_.size(); ++i) {
    State one = hooks_[i]->state();
    all.json.push_back(std::move(one.json));
    for (auto& [name, tensor] : one.tensors) all.tensors[fmt::format("{}/{}", i, name)] = std::move(tensor);
  }
  return all;
}

void Hooks::restore(const State& state) {
  if (!state.json.is_array() || state.json.size() != hooks_.size())
    fail("the checkpoint is of another number of hooks than {}", hooks_.size());
  for (size_t i = 0; i < hooks_.size(); ++i) {
    State one{.json = state.json[i]};
    const std::string own = fmt::format("{}/", i);
    for (const auto& [name, tensor] : state.tensors) {
      if (name.starts_with(own)) one.tensors[name.substr(own.size())] = tensor;
    }
    hooks_[i]->restore(one);
  }
}

std::string Hooks::digest() const {
  std::string all;
  for (const Hook* hook : hooks_) all += (all.empty() ? "" : "; ") + hook->digest();
  return all;
}

}  // namespace lamina
