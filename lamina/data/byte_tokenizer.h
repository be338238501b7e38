// The smallest tokenizer: a token a byte, its id the byte, and <|endoftext|> after them, in GPT-2's files.
// Nothing is outside its vocabulary; a model of it needs no training of a tokenizer.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lamina/data/tokenizer.h"

namespace lamina {

Tokenizer byte_tokenizer();

// vocab.json, merges.txt (of no merges), tokenizer.json, tokenizer_config.json, special_tokens_map.json, by
// name. `context`: the longest sequence that the model takes.
std::vector<std::pair<std::string, std::string>> byte_tokenizer_files(int64_t context);

}  // namespace lamina
