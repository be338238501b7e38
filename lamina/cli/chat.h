// Prompts and stops shared by generate and prune.
#pragma once

#include <string>
#include <vector>

#include "lamina/data/tokenizer.h"
#include "lamina/family/family.h"

namespace lamina::cli {

// One user message in the model's chat template, ready for the answer. Throws Error when the model has none.
std::vector<int32_t> chat_prompt(const Tokenizer& tokenizer, const std::string& message);
// The ids that end a text: the tokenizer's and the config's.
std::vector<int32_t> stop_ids(const Opened& opened, const Tokenizer& tokenizer);

}  // namespace lamina::cli
