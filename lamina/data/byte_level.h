// GPT-2's spelling of bytes as letters: each byte is one printable code point below U+0144, so that a
// vocabulary of byte sequences can be written as text. A space is "Ġ", a newline "Ċ".
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "lamina/data/unicode.h"

namespace lamina {

struct ByteLetters {
  std::array<std::string, 256> letter;
  std::array<std::optional<unsigned char>, 0x144> byte;  // by code point
};

inline const ByteLetters& byte_letters() {
  static const ByteLetters table = [] {
    ByteLetters t;
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t c = printable ? static_cast<char32_t>(b) : next++;
      t.letter[static_cast<size_t>(b)] = utf8(c);
      t.byte[c] = static_cast<unsigned char>(b);
    }
    return t;
  }();
  return table;
}

inline std::string bytes_to_letters(std::string_view bytes) {
  const ByteLetters& table = byte_letters();
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char b : bytes) out += table.letter[static_cast<unsigned char>(b)];
  return out;
}

// Nothing when a code point of `letters` stands for no byte.
inline std::optional<std::string> letters_to_bytes(std::string_view letters) {
  const ByteLetters& table = byte_letters();
  std::string out;
  while (!letters.empty()) {
    const CodePoint c = first_code_point(letters);
    if (c.value >= table.byte.size() || !table.byte[c.value]) return std::nullopt;
    out += static_cast<char>(*table.byte[c.value]);
    letters.remove_prefix(c.length);
  }
  return out;
}

}  // namespace lamina
