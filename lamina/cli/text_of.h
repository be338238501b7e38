// The tokenizer that belongs to a model, and the texts that ship inside the binary.
#pragma once

#include <string>
#include <string_view>

#include "lamina/data/tokenizer.h"
#include "lamina/family/family.h"

namespace lamina::cli {

// Throws Error when the folder has no tokenizer.json.
Tokenizer tokenizer_of(const Checkpoint& checkpoint);

// A text with its name and hash: a file's, or one of the two embedded ones.
struct NamedText {
  std::string name;
  std::string text;
  std::string sha256;
};
NamedText text_from(const std::filesystem::path& path);
NamedText embedded_calibration();
NamedText embedded_heldout();

}  // namespace lamina::cli
