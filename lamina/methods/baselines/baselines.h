// What every method must beat: units at random, the last ones, the ones with the smallest weights.
#pragma once

#include "lamina/search/method.h"

namespace lamina::baselines {

Proposal random(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks);
Proposal last(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks);
// Mean absolute weight of the unit's matrices.
Proposal magnitude(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks);

}  // namespace lamina::baselines
