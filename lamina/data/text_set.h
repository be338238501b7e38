// Text for calibration and evaluation: read from UTF-8 files and cut into samples of tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/data/tokenizer.h"

namespace lamina {

// The text of a file; invalid UTF-8 becomes U+FFFD and a byte order mark is dropped. Throws Error for a
// missing or unreadable file.
std::string read_text_file(const std::filesystem::path& path);

// The lines that are not empty, stripped of white space and joined by one space each.
std::string join_lines(std::string_view text);

struct CalibrationOptions {
  int64_t samples = 0;
  int64_t length = 0;                         // tokens in each sample
  std::string what = "the calibration text";  // names the text in messages
};

// FinerCut's recipe (Zhang et al. 2024): `join_lines`, tokenised once, and the first samples x length tokens
// in equal parts. Special tokens stand only where the tokenizer puts them: once, at the head of the first
// sample. Throws Error when the text has too few tokens.
std::vector<std::vector<int32_t>> calibration_samples(std::string_view text, const Tokenizer& tokenizer,
                                                      const CalibrationOptions& options);

}  // namespace lamina
