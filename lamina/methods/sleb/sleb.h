// SLEB (Song et al., arXiv 2402.09025): whole blocks by perplexity, the first and the last block kept.
#pragma once

#include "lamina/search/method.h"

namespace lamina::sleb {

Proposal propose(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks);

}  // namespace lamina::sleb
