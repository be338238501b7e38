// Clamps as JSON, in plans and in configs, what a model must have for one to mean something, and the names of
// a config that only lamina's own runtime may open.
#pragma once

#include <string_view>
#include <vector>

#include "lamina/plan/plan.h"

namespace lamina {

Json clamp_to_json(const Clamp& clamp);  // {"site", "neuron", "place", "mode", "value"}
Clamp clamp_from_json(const Json& json, std::string_view what);

// The neurons of a part that is there. Throws Error, which `what` begins ("the plan"), when the part has none
// or not that many.
const Neurons& neurons_of(const std::string& site, int64_t neuron, const Blueprint& blueprint,
                          std::string_view what);
void check_clamp(const Clamp& clamp, const Blueprint& blueprint, std::string_view what);

// Puts the clamps into a config; none: takes them out.
void write_clamps(Json& config, const std::vector<Clamp>& clamps);

}  // namespace lamina
