#include "lamina/cli/words.h"

#include <algorithm>

#include "lamina/data/unicode.h"

namespace lamina::cli {

namespace {

bool between(char32_t c, char32_t first, char32_t last) {
  return c >= first && c <= last;
}

bool is_ideograph(char32_t c) {
  return between(c, 0x3400, 0x4DBF) || between(c, 0x4E00, 0x9FFF) || between(c, 0xF900, 0xFAFF) ||
         between(c, 0x20000, 0x2FA1F);
}

bool is_control(char32_t c) {
  return c < 0x20 || between(c, 0x7F, 0x9F) || c == 0x200B || c == 0xFEFF;
}

bool is_digit(char32_t c) {
  return c >= '0' && c <= '9';
}

bool is_letter(char32_t c) {
  return between(c, 'a', 'z') || between(c, 'A', 'Z');
}

bool is_one_of(char32_t c, std::u32string_view set) {
  return set.find(c) != std::u32string_view::npos;
}

bool is_variation(char32_t c) {
  return between(c, 0xFE00, 0xFE0F) || between(c, 0x1F3FB, 0x1F3FF) || c == 0x20E3;
}

bool is_regional(char32_t c) {
  return between(c, 0x1F1E6, 0x1F1FF);
}

// A text as code points that know where they stand.
class Scanner {
 public:
  explicit Scanner(std::string_view text) {
    for (size_t at = 0; at < text.size();) {
      const CodePoint point = first_code_point(text.substr(at));
      points_.push_back({point.value, at});
      at += point.length;
    }
    size_ = text.size();
  }

  std::vector<WordPiece> words() const {
    std::vector<WordPiece> words;
    for (size_t i = 0; i < points_.size();) {
      if (is_gap(i)) {
        ++i;
        continue;
      }
      const size_t end = std::max(i + 1, token(i));
      const size_t possessive = possessive_in(i, end);
      if (possessive > i && possessive < end) words.push_back({byte(i), byte(possessive)});
      words.push_back({byte(possessive < end ? possessive : i), byte(end)});
      i = end;
    }
    return words;
  }

 private:
  struct Point {
    char32_t value;
    size_t byte;
  };

  char32_t at(size_t i) const { return i < points_.size() ? points_[i].value : U' '; }
  size_t byte(size_t i) const { return i < points_.size() ? points_[i].byte : size_; }
  bool is_gap(size_t i) const { return is_whitespace(at(i)) || is_control(at(i)); }
  // What words are made of; marks that only vary an emoji are not.
  bool in_word(size_t i) const { return i < points_.size() && is_word(at(i)) && !is_variation(at(i)); }

  bool says(size_t i, std::string_view ascii) const {
    for (size_t k = 0; k < ascii.size(); ++k) {
      char32_t c = at(i + k);
      if (between(c, 'A', 'Z')) c += 'a' - 'A';
      if (c != static_cast<char32_t>(ascii[k])) return false;
    }
    return true;
  }

  // Where the word that begins at i ends.
  size_t token(size_t i) const {
    const bool fresh = i == 0 || !in_word(i - 1);
    if (fresh && (says(i, "http://") || says(i, "https://") || says(i, "www."))) return address(i);
    if (at(i) == '&') {
      if (const size_t end = entity(i)) return end;
    }
    if ((at(i) == '@' || at(i) == '#') && in_word(i + 1)) return run_of_word(i + 1);
    if (fresh) {
      if (const size_t end = emoticon(i)) return end;
    }
    if (is_ideograph(at(i))) return i + 1;
    if (in_word(i) || (is_one_of(at(i), U"$€£¥") && is_digit(at(i + 1)))) return word(i);
    return symbols(i);
  }

  size_t address(size_t i) const {
    size_t end = i;
    while (end < points_.size() && !is_gap(end)) ++end;
    while (end > i + 1 && is_one_of(at(end - 1), U".,;:!?'\"”’)]}>…*")) --end;
    return end;
  }

  // "&amp;", "&#39;"; 0: it is none.
  size_t entity(size_t i) const {
    size_t end = i + 1;
    if (at(end) == '#') ++end;
    const size_t first = end;
    while (end - first < 8 && (is_letter(at(end)) || is_digit(at(end)))) ++end;
    return end > first && at(end) == ';' ? end + 1 : 0;
  }

  // ":-)", ";D", "<3"; 0: it is none.
  size_t emoticon(size_t i) const {
    if (at(i) == '<' && at(i + 1) == '3' && !in_word(i + 2)) return i + 2;
    if (!is_one_of(at(i), U":;=")) return 0;
    size_t mouth = i + 1;
    if (is_one_of(at(mouth), U"'-^")) ++mouth;
    if (is_one_of(at(mouth), U"DPpOodx3")) return in_word(mouth + 1) ? 0 : mouth + 1;
    if (!is_one_of(at(mouth), U")(][/\\|*")) return 0;
    if (at(mouth) == '/' && at(mouth + 1) == '/') return 0;
    size_t end = mouth + 1;
    while (at(end) == at(mouth) && is_one_of(at(mouth), U")(")) ++end;
    return end;
  }

  size_t run_of_word(size_t i) const {
    while (in_word(i)) ++i;
    return i;
  }

  size_t word(size_t i) const {
    size_t end = in_word(i) ? i : i + 1;
    size_t piece = end;  // where the part behind the last joint begins
    for (;;) {
      while (in_word(end) && !is_ideograph(at(end))) ++end;
      if (end == piece || !in_word(end + 1) || is_ideograph(at(end + 1)) || !joins(piece, end)) break;
      piece = ++end;
    }
    const char32_t last = at(end - 1), next = at(end);
    // The full stop of "U.S.", and what says what a number counts.
    if (next == '.' && piece > i && end == piece + 1 && at(piece - 1) == '.' && !is_digit(last) &&
        !in_word(end + 1))
      return end + 1;
    if (is_digit(last) && is_one_of(next, U"%+") && !in_word(end + 1)) return end + 1;
    return end;
  }

  // Whether what stands at `joint`, between two characters of words, holds them together.
  bool joins(size_t piece, size_t joint) const {
    const char32_t c = at(joint), before = at(joint - 1), after = at(joint + 1);
    if (is_one_of(c, U"'’-‑/")) return true;
    if (c == '.') {
      // "U.S.", "3.5" and "example.org", but not "end.Next".
      if (joint == piece + 1 || is_digit(before)) return true;
      return !between(after, 'A', 'Z');
    }
    if (c == ':' || c == ',') return is_digit(before) && is_digit(after);
    if (c == '&') return between(before, 'A', 'Z') && between(after, 'A', 'Z') && entity(joint) == 0;
    return false;
  }

  // A run of one punctuation mark, of ! and ?, or one symbol with what varies it.
  size_t symbols(size_t i) const {
    const char32_t c = at(i);
    size_t end = i + 1;
    if (is_regional(c)) return is_regional(at(end)) ? end + 1 : end;
    if (c == '!' || c == '?') {
      while (at(end) == '!' || at(end) == '?') ++end;
      return end;
    }
    if (is_one_of(c, U".-*=~_…·•")) {
      while (at(end) == c) ++end;
      return end;
    }
    if (is_ascii_mark(c)) return end;
    for (;;) {
      if (is_variation(at(end)) || (is_combining_mark(at(end)) && end < points_.size())) {
        ++end;
      } else if (at(end) == 0x200D && end + 1 < points_.size() && !is_gap(end + 1)) {
        end += 2;
      } else {
        return end;
      }
    }
  }

  static bool is_ascii_mark(char32_t c) { return c < 0x80; }

  // Where "'s" begins that ends the word; `end`: it has none.
  size_t possessive_in(size_t begin, size_t end) const {
    if (end < begin + 3 || (at(end - 1) != 's' && at(end - 1) != 'S')) return end;
    if (!is_one_of(at(end - 2), U"'’") || !in_word(end - 3) || !in_word(begin)) return end;
    return end - 2;
  }

  std::vector<Point> points_;
  size_t size_ = 0;
};

}  // namespace

std::vector<WordPiece> words_of(std::string_view text) {
  return Scanner(text).words();
}

}  // namespace lamina::cli
