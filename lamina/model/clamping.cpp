#include "lamina/model/clamping.h"

#include "lamina/base/error.h"

namespace lamina {

Tensor clamped(const Clamp& clamp, const Tensor& values) {
  Tensor result = values.clone();
  Tensor one = result.select(-1, clamp.neuron);
  const double c = clamp.value;
  switch (clamp.mode) {
    case ClampMode::set:
      one.fill_(c);
      break;
    case ClampMode::add:
      one.add_(c);
      break;
    case ClampMode::scale:
      one.mul_(c);
      break;
    case ClampMode::max:
      c < 0 ? one.clamp_max_(c) : one.clamp_min_(c);
      break;
    case ClampMode::if_active:
      one.masked_fill_(c < 0 ? one.lt(0) : one.gt(0), c);
      break;
  }
  return result;
}

Clamping::Clamping(const Blueprint& blueprint, const std::vector<Clamp>& clamps) {
  check_plan({.edits = {clamps.begin(), clamps.end()}}, blueprint);
  for (const Clamp& clamp : clamps) by_site_[blueprint.site(clamp.site)].push_back(clamp);
}

Clamping::Clamping(const Checkpoint& checkpoint, const Blueprint& blueprint) {
  for (const Clamp& clamp : clamps_of(checkpoint.config, blueprint, checkpoint.what()))
    by_site_[blueprint.site(clamp.site)].push_back(clamp);
}

Tensor Clamping::held(Site site, NeuronPlace place, const Tensor& values) const {
  Tensor result = values;
  for (const Clamp& clamp : by_site_.at(site)) {
    if (clamp.place == place) result = clamped(clamp, result);
  }
  return result;
}

}  // namespace lamina
