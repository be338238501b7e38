// Token ids of prompts as diffusers pipelines make them: cut to the length that the text encoder was made
// for, begin and end of text around, and filled up.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "lamina/data/tokenizer.h"

namespace lamina {

struct PromptTokenizer {
  Tokenizer tokenizer;
  int64_t length = 77;
  int32_t pad = 0;

  // `length` of them.
  std::vector<int32_t> ids(std::string_view prompt) const;
};

// The length is the config's model_max_length, else that to which the tokenizer.json fills up or cuts. Throws
// Error naming `what` where neither says it, or nothing says what to fill up with.
PromptTokenizer prompt_tokenizer(Tokenizer tokenizer, std::string_view what);

// Opens a tokenizer's folder: tokenizer.json, or CLIP's vocab.json with merges.txt; beside them
// tokenizer_config.json, special_tokens_map.json and added_tokens.json, where they are there.
PromptTokenizer open_prompt_tokenizer(const std::filesystem::path& folder);

}  // namespace lamina
