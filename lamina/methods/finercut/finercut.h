// FinerCut (Zhang et al., arXiv 2405.18218): the unit whose removal moves the output logits least goes, again
// and again.
#pragma once

#include "lamina/search/method.h"

namespace lamina::finercut {

Proposal propose(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks);

}  // namespace lamina::finercut
