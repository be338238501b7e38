// What A-SDM-style edits save in milliseconds. What is compared runs by turns, so that the drift of the clock
// and of other work on the machine meets both alike; the numbers are medians.
#pragma once

#include <span>
#include <vector>

#include "lamina/model/model.h"
#include "lamina/plan/plan.h"

namespace lamina::asdm {

// By edit, what a pass over `inputs` is shorter by with those windows: the part's step whole and with them,
// the quickest of a few by turns; median of `repeats` such differences. Below zero on maps too small for
// windows to pay.
std::vector<double> milliseconds_saved(const Model& model, std::span<const Regional> edits,
                                       const Inputs& inputs, int repeats, const Watch& watch = {});

// A pass, step by step: of each the quickest of a few, added up; median of `repeats` such sums. What steps
// save is compared with this and not with whole passes, which other processes interrupt more often.
double milliseconds_by_steps(const Model& model, const Inputs& inputs, int repeats, const Watch& watch = {});

struct Turns {
  std::vector<double> milliseconds = {};  // a pass, by model
  std::vector<double> shares = {};        // of what the first takes in the same turn, by model
};
// Whole passes. Throws Error where there is no model.
Turns passes_by_turns(std::span<const Model* const> models, const Inputs& inputs, int repeats,
                      const Watch& watch = {});

}  // namespace lamina::asdm
