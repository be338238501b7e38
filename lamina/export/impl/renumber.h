// Blocks that are wholly gone leave no gap: tensors, depth, clamps, norms that are gone and every per-layer
// array of the config are numbered anew.
#pragma once

#include "lamina/blueprint/blueprint.h"
#include "lamina/checkpoint/checkpoint.h"

namespace lamina {

// `before` is the blueprint of the model that was edited (its stack and per-layer keys).
Checkpoint renumbered(Checkpoint checkpoint, const Blueprint& before);

}  // namespace lamina
