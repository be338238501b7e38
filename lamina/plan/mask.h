// Which blocks of a causal decoder look right: mask plans, in three spellings.
//   "0011"          groups of equal size, as the bit string has digits, the leftmost nearest the input; 1:
//   the
//                   causal mask is gone in every block of the group (Dukic and Snajder, 2024, arXiv
//                   2401.14556)
//   "from:16"       block 16 and all behind it (BiLLM's start index)
//   "blocks:8-15,20" a list
//   "middle"        the blocks around the middle one, a third of all (Kukic et al., 2026, arXiv 2601.17585)
//   "none", "all"
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lamina/plan/plan.h"

namespace lamina {

struct MaskPlan {
  std::string name;              // as it was asked for
  std::vector<int> blocks = {};  // whose mask goes, ascending
  bool operator==(const MaskPlan&) const = default;
};

// Where the number of blocks is no multiple of the number of groups, the groups nearest the output are the
// larger ones by a block. Throws Error for a spelling that is none of these, more groups than blocks, blocks
// that do not exist, and blocks without attention in a list.
MaskPlan mask_plan(std::string_view spelling, const Blueprint& blueprint);
// All 2^groups bit strings, "0000" first.
std::vector<MaskPlan> every_mask_plan(int groups, const Blueprint& blueprint);
// What the model has.
MaskPlan mask_plan_of(const Blueprint& blueprint);
// The Unmask edits; blocks whose attention is gone have none.
Plan edits_of(const MaskPlan& plan, const Blueprint& blueprint);

}  // namespace lamina
