// Text on its way into a page: clean UTF-8, with the characters escaped that mean something to HTML.
#pragma once

#include <string>
#include <string_view>

namespace lamina::report::impl {

// Invalid UTF-8 and control characters other than tab and newline become U+FFFD.
std::string clean(std::string_view text);
// For text and for attributes in double quotes.
std::string escaped(std::string_view text);
// Escaped, with `code` between backticks.
std::string with_code(std::string_view text);
// A coordinate: at most two decimals, no trailing zeros.
std::string coordinate(double value);

}  // namespace lamina::report::impl
