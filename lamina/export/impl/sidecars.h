// The small files of a folder that did not come with one: a model that came as GGUF carries its tokenizer and
// chat template in metadata, and the folder gets them as files; a folder's tokenizer goes into GGUF metadata
// the other way.
#pragma once

#include "lamina/checkpoint/checkpoint.h"

namespace lamina {

// Adds tokenizer.json, tokenizer_config.json, special_tokens_map.json, generation_config.json to a checkpoint
// from a GGUF.
void add_sidecars(Checkpoint& checkpoint);

// tokenizer.ggml.* for a checkpoint from a folder. Throws Error when the tokenizer cannot be said in GGUF.
std::vector<std::pair<std::string, gguf::Value>> tokenizer_metadata(const Checkpoint& checkpoint);

// Why a GGUF cannot carry this model's tokenizer, by a look at its file; nothing when it seems that it can.
std::optional<std::string> no_gguf_tokenizer(const Checkpoint& checkpoint);

}  // namespace lamina
