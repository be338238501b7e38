// BlockPruner (Zhong et al., arXiv 2406.10594): the same greedy search, judged by perplexity on the
// calibration text.
#pragma once

#include "lamina/search/method.h"

namespace lamina::blockpruner {

Proposal propose(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks);

}  // namespace lamina::blockpruner
