// The edits that change how parts of a U-Net run (blueprint/variants.h), on the checkpoint's numbers.
#pragma once

#include "lamina/plan/plan.h"

namespace lamina {

// Throw Error, which "the plan" begins, for what cannot be: a convolution that is none, has experts already
// or has none, a donor that does not fit or is the convolution itself, gates that are too few or no numbers.
void check_inherit(const Inherit& inherit, const Blueprint& blueprint);
void check_blend(const Blend& blend, const Blueprint& blueprint);

// Kernels of the donors, as `whole` has them, and a router put in front of what follows the convolution. Of a
// donor that reads other skips, in an up stage, the channels that come from the skip stay those of the kept
// kernel.
Experts add_experts(const Checkpoint& whole, Checkpoint& checkpoint, const Blueprint& blueprint,
                    const Inherit& inherit);
void blend_kernels(Checkpoint& checkpoint, const Blueprint& blueprint, const Blend& blend);

// The number of each head that the mix `gate` has, zero where it is new; without it none.
void set_gate(Checkpoint& checkpoint, const Blueprint& blueprint, const Part& part, const Windows& windows);

}  // namespace lamina
