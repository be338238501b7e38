// The function of the Llama family (Touvron et al. 2023): pre-norm blocks of grouped-query attention with
// rotary positions and a gated feed-forward. Serves Llama, Mistral and Qwen2; what differs between them is in
// the config.
#pragma once

#include <memory>

#include "lamina/model/model.h"

namespace lamina::llama {

std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights);

}  // namespace lamina::llama
