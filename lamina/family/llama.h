// Llama and its near kin under the names transformers gives their weights: Llama 1-3 and SmolLM2, Mistral
// (sliding window), Qwen2 (biases on q, k, v).
#pragma once

#include <optional>
#include <string_view>

#include "lamina/family/family.h"

namespace lamina::llama {

// Llama 3.1's stretching of the long rotary wavelengths (rope_type "llama3"), or "linear" (every position
// divided).
struct RopeScaling {
  enum class Kind { linear, llama3 } kind = Kind::linear;
  double factor = 1;
  double low_frequency = 1, high_frequency = 4;
  int64_t original_context = 8192;
};

// Deeper than any model; a config of a few bytes cannot ask for more parts than this.
inline constexpr int64_t kMostBlocks = 4096;

struct Config {
  int64_t width = 0, blocks = 0, heads = 0, groups = 0, head_dim = 0, neurons = 0, vocabulary = 0,
          context = 0;
  double norm_epsilon = 1e-6;
  double rope_theta = 10000;
  std::optional<RopeScaling> rope_scaling;
  bool tied = false;
  int64_t labels = 0;  // of a token classifier; 0: a language model
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  std::vector<int64_t> windows;  // one a block; 0: full attention
};

// Throws Error that names the key. `model_type` decides the defaults, as in transformers.
Config read_config(const Json& config, std::string_view what);

Architecture llama_declaration();
Architecture mistral_declaration();
Architecture qwen2_declaration();

// By what each rotary frequency theta^(-2i / head_dim) is divided, [head_dim / 2]: all ones without scaling.
// Llama 3.1 stretches waves longer than the context it was first trained on by `factor`, keeps the short ones
// and blends between (the recipe of its model card, as transformers has it).
std::vector<double> rope_divisors(const Config& config);

// Neurons of the feed-forward of zeros that a GGUF of architecture `deci` holds where a block kept its
// attention alone.
inline constexpr int64_t kStandInNeurons = 32;

std::span<const GgufDialect> gguf_dialects();

}  // namespace lamina::llama
