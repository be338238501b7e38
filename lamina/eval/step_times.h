// What passes and their steps take, in milliseconds, on a machine that does other work too. What is compared
// runs by turns, so that the drift of the clock and of that work meets both alike; of steps that are shorter
// than the turns that other processes get, the quickest of a few counts; the numbers are medians of repeats.
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/model/model.h"

namespace lamina {

// A step, and the Tap with which it is another one: skipped, or with another attention.
struct StepChange {
  Site site;
  Tap* tap = nullptr;
};
// By change, what a pass over `inputs` is shorter by with it: the part's step without and with the tap, part
// by part in one walk of the whole model. Below zero where the step takes longer. `phase` is for the watch.
std::vector<double> milliseconds_saved(const Model& model, std::span<const StepChange> changes,
                                       const Inputs& inputs, int repeats, std::string_view phase,
                                       const Watch& watch = {});

// A pass as the sum of its steps, each measured as above: what steps save is a share of this. Whole passes
// are interrupted more often.
double milliseconds_by_steps(const Model& model, const Inputs& inputs, int repeats, const Watch& watch = {});

struct PassTurns {
  std::vector<double> milliseconds = {};  // a pass, by model
  std::vector<double> shares = {};        // of what the first takes in the same turn, by model
};
// Whole passes. Throws Error where there is no model.
PassTurns passes_by_turns(std::span<const Model* const> models, const Inputs& inputs, int repeats,
                          const Watch& watch = {});

}  // namespace lamina
