// A tokenizer.json said in GGUF metadata (tokenizer.ggml.*): byte-level BPE with a pre-tokenizer that
// llama.cpp knows by name.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/format/gguf.h"

namespace lamina {

// `vocabulary`: rows of the embedding; ids without a token become unused ones. Throws Error, naming what
// cannot be said.
std::vector<std::pair<std::string, gguf::Value>> tokenizer_to_gguf(const Json& tokenizer, const Json& config,
                                                                   int64_t vocabulary, std::string_view what);

}  // namespace lamina
