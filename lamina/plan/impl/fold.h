// Frozen norms folded away: x -> (x - mean) / scale * gain + bias, followed by a linear map, is a linear map.
#pragma once

#include <vector>

#include "lamina/plan/plan.h"

namespace lamina {

// Folds every norm that the edits freeze into the maps that read it, in float64, drops its tensors and
// declares it gone. Folded numbers are float32 whatever narrow type the maps had, so that such a type is
// rounded to once, at the writing. Throws Error when a norm is frozen for some of its readers only, or when a
// map has no bias that could take up the norm's.
Checkpoint folded(Checkpoint checkpoint, const Blueprint& blueprint, const std::vector<FreezeNorm>& frozen);

}  // namespace lamina
