#include "lamina/export/impl/allowed.h"

#include <set>

#include "lamina/base/error.h"

namespace lamina {

bool lists_parts(const Opened& model) {
  return !model.blueprint.removed_key.empty();
}

Compact compact_of(const Opened& model, const Plan& plan) {
  if (model.architecture->compact)
    return model.architecture->compact(model.checkpoint, model.blueprint, plan);
  return {.note = fmt::format("no compact form of {} is known here", model.architecture->name)};
}

bool is_narrow(DType dtype) {
  return is_floating(dtype) && dtype != DType::f32 && dtype != DType::f64;
}

Checkpoint filled(Checkpoint checkpoint, const Architecture& architecture, const Blueprint& blueprint) {
  if (blueprint.removed_key.empty() || !json_has(checkpoint.config, blueprint.removed_key)) return checkpoint;
  checkpoint.config.erase(blueprint.removed_key);
  const Blueprint whole = architecture.blueprint(checkpoint.config, checkpoint.what());
  std::set<std::string_view> there;
  for (const Stored& tensor : checkpoint.tensors) there.insert(tensor.name);
  std::vector<Stored> made;
  for (const Slot& slot : whole.slots) {
    if (there.contains(slot.name)) continue;
    Stored zeroes{.name = slot.name, .dtype = checkpoint.tensors.at(0).dtype, .zero = true};
    for (const Axis& axis : slot.axes) zeroes.shape.push_back(axis.size());
    made.push_back(std::move(zeroes));
  }
  checkpoint.tensors.insert(checkpoint.tensors.end(), made.begin(), made.end());
  name_for_loaders(checkpoint.config, whole);
  return checkpoint;
}

}  // namespace lamina
