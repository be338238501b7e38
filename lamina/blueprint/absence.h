// How a config says that parts of a model are gone, or its masks. We write two vocabularies and read both:
// transformers' `per_layer_config: {"27": {"skip": ["attention", "mlp"]}}` and LLM-Drop's `drop_attn_list` /
// `drop_mlp_list`.
#pragma once

#include <set>
#include <string_view>
#include <utility>

#include "lamina/base/json.h"
#include "lamina/blueprint/blueprint.h"

namespace lamina {

using Absences = std::set<std::pair<int, Kind>>;  // (block, kind)

// Throws Error when a list is malformed, names a block that does not exist, or the two vocabularies disagree.
Absences read_absences(const Json& config, int blocks, std::string_view what);
// Replaces what the config said. An empty set leaves no key behind.
void write_absences(Json& config, const Absences& absences);

// The norms that were folded into the maps that read them:
//   `lamina_norms_removed: {"attention": [0, 1], "mlp": [0], "final": false}`, block numbers.
struct NormsRemoved {
  Absences parts = {};  // in front of these
  bool last = false;
  bool operator==(const NormsRemoved&) const = default;
};
// Throws Error when the key is malformed or names a block that does not exist.
NormsRemoved read_norms_removed(const Json& config, int blocks, std::string_view what);
// Replaces what the config said. Nothing removed leaves no key behind.
void write_norms_removed(Json& config, const NormsRemoved& removed);

// The blocks whose attention looks right: `lamina_unmasked: [2, 3]`.
using Unmasked = std::set<int>;
// Throws Error when the key is malformed or names a block that does not exist.
Unmasked read_unmasked(const Json& config, int blocks, std::string_view what);
// Replaces what the config said. An empty set leaves no key behind.
void write_unmasked(Json& config, const Unmasked& unmasked);

}  // namespace lamina
