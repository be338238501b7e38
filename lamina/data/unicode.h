// Unicode for the tokenizers: repair of invalid UTF-8, code points, categories and normal forms.
// Every function but `repair_utf8` expects valid UTF-8 and returns valid UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lamina {

// Invalid bytes become U+FFFD, one for each maximal part of a sequence, as Python's bytes.decode("utf-8",
// "replace") and Rust's from_utf8_lossy do.
std::string repair_utf8(std::string_view bytes);
// How many bytes at the end of `bytes` are the start of a sequence that more bytes could complete (0 to 3).
size_t incomplete_utf8_tail(std::string_view bytes);

struct CodePoint {
  char32_t value = 0;
  size_t length = 0;  // bytes
};
CodePoint first_code_point(std::string_view text);  // `text` is not empty
CodePoint last_code_point(std::string_view text);
std::string utf8(char32_t code_point);
size_t count_code_points(std::string_view text);
bool is_ascii(std::string_view text);

bool is_whitespace(char32_t c);      // the property White_Space
bool is_numeric(char32_t c);         // categories Nd, Nl, No
bool is_word(char32_t c);            // letters, marks, numbers and connectors: the \w of regular expressions
bool is_punctuation(char32_t c);     // categories P*, and the ASCII symbols
bool is_combining_mark(char32_t c);  // categories M*

std::string_view strip_left(std::string_view text);  // white space as `is_whitespace` has it
std::string_view strip_right(std::string_view text);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
std::string normalize(std::string_view text, NormalForm form);
// Code point by code point, without rules that look at neighbours (as Rust's char::to_lowercase).
std::string lowercase(std::string_view text);
std::string uppercase(std::string_view text);

}  // namespace lamina
