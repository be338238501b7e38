#include "lamina/report/impl/markup.h"

#include <fmt/format.h>

#include "lamina/base/text.h"

namespace lamina::report::impl {

std::string clean(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto lead = static_cast<unsigned char>(text[0]);
    size_t length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    const std::string_view character = text.substr(0, length);
    const bool control =
        (lead < 0x20 && lead != '\n' && lead != '\t') || lead == 0x7F ||
        (character.size() == 2 && lead == 0xC2 && static_cast<unsigned char>(character[1]) < 0xA0);
    if (character.size() < length || !is_utf8(character)) {
      out += "\uFFFD";
      length = 1;
    } else if (control) {
      out += "\uFFFD";
    } else {
      out += character;
    }
    text.remove_prefix(length);
  }
  return out;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char character : clean(text)) {
    switch (character) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += character;
    }
  }
  return out;
}

namespace {

// "14 %" stays on one line.
std::string unbroken(std::string text) {
  for (size_t at = 0; (at = text.find(" %", at)) != std::string::npos; ++at) {
    if (at > 0 && text[at - 1] >= '0' && text[at - 1] <= '9') text.replace(at, 1, "\u00A0");
  }
  return text;
}

}  // namespace

std::string with_code(std::string_view text) {
  const std::vector<std::string> pieces = split(text, '`');
  std::string out;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const bool code = i % 2 == 1 && i + 1 < pieces.size();
    if (i % 2 == 1 && !code) out += '`';
    out += code ? "<code>" + escaped(pieces[i]) + "</code>" : unbroken(escaped(pieces[i]));
  }
  return out;
}

std::string coordinate(double value) {
  std::string text = fmt::format("{:.2f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text == "-0" ? "0" : text;
}

}  // namespace lamina::report::impl
