// CLIP's tokenizer (Radford et al., 2021) from the files that diffusers pipelines hold: vocab.json and
// merges.txt. Made into the tokenizer.json that transformers' CLIPTokenizer makes of them: lower case, white
// space as one space, words that end in "</w>", digits one by one, begin and end of text around.
#pragma once

#include <string_view>

#include "lamina/data/byte_level_vocabulary.h"

namespace lamina {

// Throws Error naming `what` where a file is malformed. `files.added` is honoured; a special_tokens_map.json
// goes before the config, as in transformers.
Tokenizer clip_tokenizer(const VocabularyFiles& files, std::string_view what);

}  // namespace lamina
