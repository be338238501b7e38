// The function of GPT-2 (Radford et al. 2019): pre-norm blocks of multi-head attention and a feed-forward
// without a gate, learned positions, LayerNorm.
#pragma once

#include <memory>

#include "lamina/model/model.h"

namespace lamina::gpt2 {

std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights);

}  // namespace lamina::gpt2
