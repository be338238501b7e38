// The tokenizer of captions of generated scenes: a token a word, as files that transformers opens.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "lamina/data/tokenizer.h"
#include "lamina/heal/scene_batches.h"

namespace lamina {

// Begin and end of the text around at most scene::kMostWords words.
inline constexpr int64_t kSceneTokens = 16;

Tokenizer scene_tokenizer();
// tokenizer.json, tokenizer_config.json, special_tokens_map.json by name.
std::map<std::string, std::string> scene_tokenizer_files();
std::unique_ptr<CaptionTokens> scene_tokens();

}  // namespace lamina
