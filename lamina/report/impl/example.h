// Reports for tests and for looking at: one small and fixed, and one as a pruning run fills it. The numbers
// are made up.
#pragma once

#include "lamina/report/report.h"

namespace lamina::report::impl {

// One of each element, in as few cells as show every state.
Report small_example();
// 30 blocks of two parts, 8 steps, five curves, 60 candidates a step.
Report pruning_example();
// A U-Net's levels, pictures side by side, a silenced part.
Report unet_example();

}  // namespace lamina::report::impl
