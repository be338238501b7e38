// What a GGUF file says about its tokenizer, as the two documents of an HF folder. One table maps llama.cpp's
// names of pre-tokenizers to HF components; a name that is not in it is an error.
#pragma once

#include <optional>
#include <string_view>

#include "lamina/base/json.h"
#include "lamina/format/gguf.h"

namespace lamina {

struct TokenizerDocuments {
  Json tokenizer;  // tokenizer.json
  Json config;     // tokenizer_config.json
};

// llama.cpp's name for the pre-tokenizer of a tokenizer.json: the table read backwards. None: it has none
// that is known here.
std::optional<std::string_view> gguf_pre_tokenizer_name(const Json& tokenizer);

TokenizerDocuments tokenizer_documents(const gguf::File& file, std::string_view what);

}  // namespace lamina
