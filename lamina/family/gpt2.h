// GPT-2 under the names transformers gives its weights: GPT2LMHeadModel as it saves itself ("transformer.h.0
// ..."), and the published checkpoints of the bare GPT2Model ("h.0 ..."). Linear maps are stored [in, out],
// and q, k and v as one.
#pragma once

#include <string_view>

#include "lamina/family/family.h"

namespace lamina::gpt2 {

enum class Activation { gelu_tanh, gelu, relu };

struct Config {
  int64_t width = 0, blocks = 0, heads = 0, neurons = 0, vocabulary = 0, positions = 0;
  double norm_epsilon = 1e-5;
  Activation activation = Activation::gelu_tanh;
  bool scaled = true;  // scores are divided by sqrt(head_dim)
  bool tied = true;
  int64_t labels = 0;  // of a token classifier; 0: a language model
  int64_t head_dim() const { return width / heads; }
};

// Throws Error that names the key.
Config read_config(const Json& config, std::string_view what);

Architecture declaration();

}  // namespace lamina::gpt2
