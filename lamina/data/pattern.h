// A regular expression as tokenizer files write them (Oniguruma's dialect, Unicode classes), run by PCRE2
// with its just-in-time compiler and with limits, so that no pattern and no text can hang or exhaust the
// process.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace lamina {

class Pattern {
 public:
  // Throws Error naming `what` when the expression is not valid or uses syntax that the two dialects read
  // differently.
  Pattern(std::string_view expression, std::string_view what);
  // Matches exactly this text.
  static Pattern literal(std::string_view text, std::string_view what);

  struct Match {
    size_t begin = 0;
    size_t end = 0;
  };
  // The first match that starts at or after `from`; looks behind see the text before `from`. `text` is valid
  // UTF-8. Throws Error when the search meets a limit.
  std::optional<Match> find(std::string_view text, size_t from) const;

 private:
  struct Compiled;
  Pattern() = default;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace lamina
