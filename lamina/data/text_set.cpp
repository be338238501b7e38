#include "lamina/data/text_set.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/text.h"
#include "lamina/data/unicode.h"

namespace lamina {

std::string read_text_file(const std::filesystem::path& path) {
  std::string text = read_file(path);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  return is_utf8(text) ? text : repair_utf8(text);
}

std::string join_lines(std::string_view text) {
  std::string repaired;
  if (!is_utf8(text)) text = repaired = repair_utf8(text);
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    // Lines as Python's text files have them: "\n", "\r\n" and "\r" end one.
    const size_t end = std::min(text.find_first_of("\r\n"), text.size());
    const std::string_view line = strip_right(strip_left(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty()) continue;
    if (!out.empty()) out += ' ';
    out += line;
  }
  return out;
}

std::vector<std::vector<int32_t>> calibration_samples(std::string_view text, const Tokenizer& tokenizer,
                                                      const CalibrationOptions& options) {
  const auto [samples_wanted, length, what] = options;
  constexpr int64_t most = int64_t{1} << 31;
  if (samples_wanted < 1 || length < 1) {
    fail("{}: {} samples of {} tokens cannot be taken; both numbers must be at least 1", what, samples_wanted,
         length);
  }
  if (samples_wanted > most / length)
    fail("{}: {} samples of {} tokens are too many", what, samples_wanted, length);
  const std::string joined = join_lines(text);
  if (joined.empty())
    fail("{} is empty where {} samples of {} tokens were expected", what, samples_wanted, length);
  const std::vector<int32_t> ids = tokenizer.encode(joined);
  const int64_t needed = samples_wanted * length;
  const auto have = static_cast<int64_t>(ids.size());
  if (have < needed) {
    fail("{} has {} tokens where {} of {} {} {}; take a longer text{}", what, thousands(have),
         samples_wanted == 1 ? "1 sample" : fmt::format("{} samples", samples_wanted), length,
         samples_wanted == 1 ? "needs" : "need", thousands(needed),
         have < length ? " or a shorter length" : fmt::format(", or at most {} samples", have / length));
  }
  std::vector<std::vector<int32_t>> samples;
  for (int64_t start = 0; start < needed; start += length) {
    samples.emplace_back(ids.begin() + start, ids.begin() + start + length);
  }
  return samples;
}

}  // namespace lamina
