// When which norm goes, as data: pairs of a step and a reader of a norm. What makes the list knows a model by
// its norm paths alone, so that parts which were cut and norms which are gone already are simply not in it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/blueprint/blueprint.h"

namespace lamina::denorm {

struct Removal {
  int64_t step = 0;  // optimizer steps that are done when it goes
  NormPath path = {};
  bool operator==(const Removal&) const = default;
};

// By step; where steps are equal, in the order in which they were written.
using Removals = std::vector<Removal>;

// Of the norm in front of attention: queries and keys first and values later, or all of it at once.
enum class AttentionNorm { by_reader, whole };

// Schaeffer et al., 2025 (arXiv 2507.02559), for GPT-2 Small. What follows starts where what went before
// would have had its next: start_qk = start + L gap_mlp, start_v = start_qk + L gap_qk, final = start_v + L
// gap_v.
struct StagedOptions {
  int64_t start = 20;  // the first feed-forward's
  int64_t gap_mlp = 2, gap_qk = 2, gap_v = 3;
  AttentionNorm attention = AttentionNorm::by_reader;
};
// Feed-forwards from the first block to the last, then queries and keys, then values, then the last norm.
Removals staged(const Blueprint& blueprint, const StagedOptions& options = {});
Removals at_once(const Blueprint& blueprint, int64_t step);

// {"lamina_norm_schedule": 1, "removals": [{"step": 20, "norm": "mlp0"}, ...]}, norms by their labels (mlp0,
// qk3, v3, final).
Json to_json(const Removals& removals, const Blueprint& blueprint);
// Throws Error for labels that the model does not have or that stand twice, steps that are none, and a norm
// of which some readers go and others stay: it could not be folded away.
Removals removals_from_json(const Json& document, const Blueprint& blueprint, std::string_view what);

// Throws Error unless the last norm goes before a run of so many steps ends.
void check_fits(const Removals& removals, const Blueprint& blueprint, int64_t steps);

}  // namespace lamina::denorm
