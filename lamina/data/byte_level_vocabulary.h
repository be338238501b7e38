// The older form of a byte-level BPE tokenizer, GPT-2's: vocab.json holds the ids of the tokens, merges.txt
// one merge a line. Made into the tokenizer.json that transformers' GPT2Tokenizer makes of the two.
#pragma once

#include <string_view>

#include "lamina/data/tokenizer.h"

namespace lamina {

struct VocabularyFiles {
  Json vocabulary;           // vocab.json
  std::string_view merges;   // the text of merges.txt
  Json config = {};          // tokenizer_config.json, or null
  Json special_tokens = {};  // special_tokens_map.json, or null; the config's word goes before it
  Json added = {};           // added_tokens.json, or null; of CLIP's alone
};

// The lines of a merges.txt, without that of its version.
Json merge_lines(std::string_view text, std::string_view what);

// Throws Error naming `what` where a file is malformed.
Tokenizer gpt2_tokenizer(const VocabularyFiles& files, std::string_view what);

}  // namespace lamina
