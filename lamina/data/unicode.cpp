#include "lamina/data/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "lamina/base/error.h"

namespace lamina {

namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";

unsigned char byte_at(std::string_view text, size_t i) {
  return static_cast<unsigned char>(text[i]);
}

struct Sequence {
  size_t length =
      0;  // bytes that belong together: a whole sequence, or the part before the byte that breaks it
  bool valid = false;
  bool cut_off = false;  // not valid only because the text ends
};

Sequence read_sequence(std::string_view text) {
  const unsigned char lead = byte_at(text, 0);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, false, true};
    // The second byte has narrower bounds: no overlong forms, no surrogates, nothing above U+10FFFF.
    const unsigned char low = i > 1 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = i > 1 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (byte_at(text, i) < low || byte_at(text, i) > high) return {i, false, false};
  }
  return {length, true, false};
}

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

using CodePoints = std::vector<utf8proc_int32_t>;

void check(utf8proc_ssize_t result) {
  if (result < 0) fail("cannot normalise a text: {}", utf8proc_errmsg(result));
}

CodePoints decompose(utf8proc_int32_t code_point, utf8proc_option_t options) {
  std::array<utf8proc_int32_t, 32> buffer;  // the longest decomposition of Unicode has 18 code points
  const auto count = utf8proc_decompose_char(code_point, buffer.data(), buffer.size(), options, nullptr);
  check(count);
  return {buffer.begin(), buffer.begin() + std::min<utf8proc_ssize_t>(count, buffer.size())};
}

int combining_class(utf8proc_int32_t c) {
  return utf8proc_get_property(c)->combining_class;
}

struct Mark {
  int combining_class;
  size_t position;  // marks of one class stay in their order
  utf8proc_int32_t code_point;
  auto operator<=>(const Mark&) const = default;
};

// utf8proc would sort combining marks by swapping neighbours, quadratic in a long run of marks; this is not.
void order_marks(CodePoints& text) {
  for (auto it = text.begin(); it != text.end();) {
    if (combining_class(*it) == 0) {
      ++it;
      continue;
    }
    const auto end = std::find_if(it, text.end(), [](utf8proc_int32_t c) { return combining_class(c) == 0; });
    std::vector<Mark> marks;
    for (; it != end; ++it) marks.push_back({combining_class(*it), marks.size(), *it});
    std::sort(marks.begin(), marks.end());
    std::transform(marks.begin(), marks.end(), end - static_cast<ptrdiff_t>(marks.size()),
                   [](const Mark& mark) { return mark.code_point; });
  }
}

std::string normalize_span(std::string_view text, NormalForm form) {
  const bool compatibility = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatibility ? UTF8PROC_COMPAT : 0));
  CodePoints points;
  points.reserve(text.size());
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    text.remove_prefix(c.length);
    if (c.value < 0x80) {
      points.push_back(static_cast<utf8proc_int32_t>(c.value));
    } else {
      const CodePoints parts = decompose(static_cast<utf8proc_int32_t>(c.value), options);
      points.insert(points.end(), parts.begin(), parts.end());
    }
  }
  order_marks(points);
  if (form == NormalForm::nfc || form == NormalForm::nfkc) {
    const auto count =
        utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                                 static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    check(count);
    points.resize(static_cast<size_t>(count));
  }
  std::string out;
  for (const utf8proc_int32_t c : points) out += utf8(static_cast<char32_t>(c));
  return out;
}

template <class Map>
std::string map_code_points(std::string_view text, const Map& map) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    text.remove_prefix(c.length);
    map(c.value, out);
  }
  return out;
}

}  // namespace

std::string repair_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const Sequence sequence = read_sequence(bytes);
    out += sequence.valid ? bytes.substr(0, sequence.length) : replacement;
    bytes.remove_prefix(sequence.length);
  }
  return out;
}

size_t incomplete_utf8_tail(std::string_view bytes) {
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); ++back) {
    const std::string_view tail = bytes.substr(bytes.size() - back);
    if ((byte_at(tail, 0) & 0xC0) == 0x80) continue;
    const Sequence sequence = read_sequence(tail);
    return sequence.cut_off && sequence.length == back ? back : 0;
  }
  return 0;
}

CodePoint first_code_point(std::string_view text) {
  const unsigned char lead = byte_at(text, 0);
  const auto rest = [&](size_t i) { return static_cast<char32_t>(byte_at(text, i) & 0x3F); };
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1Fu) << 6 | rest(1), 2};
  if (lead < 0xF0) return {(lead & 0x0Fu) << 12 | rest(1) << 6 | rest(2), 3};
  return {(lead & 0x07u) << 18 | rest(1) << 12 | rest(2) << 6 | rest(3), 4};
}

CodePoint last_code_point(std::string_view text) {
  size_t start = text.size() - 1;
  while (start > 0 && (byte_at(text, start) & 0xC0) == 0x80) --start;
  return first_code_point(text.substr(start));
}

std::string utf8(char32_t c) {
  const auto part = [&](int shift) { return static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), part(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0 | c >> 12), part(6), part(0)};
  return {static_cast<char>(0xF0 | c >> 18), part(12), part(6), part(0)};
}

size_t count_code_points(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

bool is_whitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  if (c == 0x85) return true;
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_ZS || kind == UTF8PROC_CATEGORY_ZL || kind == UTF8PROC_CATEGORY_ZP;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO;
}

bool is_word(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return c > ' ' && c < 0x7F && !(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_combining_mark(char32_t c) {
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME;
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    if (!is_whitespace(c.value)) break;
    text.remove_prefix(c.length);
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    const CodePoint c = last_code_point(text);
    if (!is_whitespace(c.value)) break;
    text.remove_suffix(c.length);
  }
  return text;
}

std::string normalize(std::string_view text, NormalForm form) {
  std::string out;
  out.reserve(text.size());
  const auto ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  while (!text.empty()) {
    // ASCII stays as it is, except that its last letter may take the marks that follow.
    auto end = std::find_if_not(text.begin(), text.end(), ascii);
    if (end == text.end()) return out += text;
    const auto start = end == text.begin() ? end : end - 1;
    end = std::find_if(end, text.end(), ascii);
    out.append(text.begin(), start);
    out += normalize_span({start, end}, form);
    text = {end, text.end()};
  }
  return out;
}

std::string lowercase(std::string_view text) {
  return map_code_points(text, [](char32_t c, std::string& out) {
    if (c == 0x130) {
      out += "i\xCC\x87";  // the one code point whose lower case is two
    } else {
      out += utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  });
}

std::string uppercase(std::string_view text) {
  return map_code_points(text, [](char32_t c, std::string& out) {
    if (c == 0xDF) {
      out += "SS";
    } else {
      out += utf8(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
    }
  });
}

}  // namespace lamina
