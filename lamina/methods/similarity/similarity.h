// How little a unit turns the residual stream: 1 - cos(x before, x after), mean over tokens, in one pass of
// the whole model. On blocks it is ShortGPT's Block Influence (Men et al., arXiv 2403.03853); on attention
// and feed-forward, the norm counted in, LLM-Drop's criterion (He et al., arXiv 2406.15786).
#pragma once

#include "lamina/search/method.h"

namespace lamina::similarity {

Proposal propose(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks);

}  // namespace lamina::similarity
