// What the verbs about neurons share: tokens as words, and the folder that an edited model goes into.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lamina/atlas/atlas.h"
#include "lamina/base/progress.h"
#include "lamina/data/tokenizer.h"
#include "lamina/export/export.h"

namespace lamina::cli {

// How every token of the vocabulary looks when it is decoded alone. A checkpoint without a tokenizer gives
// their numbers: "#17".
std::vector<atlas::Token> token_texts(const Checkpoint& checkpoint, int64_t vocabulary);

// The tokens that spell a concept alone, white space around it and case set aside. Throws Error when there is
// none.
std::vector<int32_t> spellings(const Tokenizer& tokenizer, const std::string& concept_text);

// A folder for a model whose neurons were edited: weights, plan, card, and what `neurons undo` needs.
struct EditedFolder {
  std::filesystem::path out;
  bool replace = false;
  std::string command = {};
  std::string summary = {};  // of the card
};
Written write_edited(const Opened& opened, const Plan& plan, const EditedFolder& options, const Watch& watch);

}  // namespace lamina::cli
