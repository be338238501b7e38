// Frozen norms without a division: x -> (x - mean) / scale * gain + bias, followed by a linear map, is a
// linear map. Either the maps take it up and the norm goes, or the norm stays as stock architectures have it,
// with an epsilon beside which what it measures is nothing. All numbers are computed in float64 and kept as
// float32 (float64 weights as float64), whatever narrow type the maps had, so that such a type is rounded to
// once, at the writing.
#pragma once

#include <vector>

#include "lamina/plan/plan.h"

namespace lamina {

std::vector<FreezeNorm> frozen_by(const Plan& plan);

// Folds every norm that the edits freeze into the maps that read it, drops its tensors and declares it gone.
// Throws Error when a norm is frozen for some of its readers only, or when a map has no bias that could take
// up the norm's.
Checkpoint folded(Checkpoint checkpoint, const Blueprint& blueprint, const std::vector<FreezeNorm>& frozen);

// The same function in the stock architecture: epsilon 1e12 and gain * 1e6 / scale; where the readers of a
// norm have different scales, the maps make up for it. The edits must freeze every norm that `checkpoint`
// has, since one config key holds the epsilon of all of them. Only float32 and wider can say it.
Checkpoint with_huge_epsilon(Checkpoint checkpoint, const Blueprint& blueprint,
                             const std::vector<FreezeNorm>& frozen);

}  // namespace lamina
