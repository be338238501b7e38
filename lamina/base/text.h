// Small text helpers: UTF-8 validity, safe quoting for messages, units for people, "did you mean".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lamina {

bool is_utf8(std::string_view text);
// Control characters and invalid UTF-8 shown as \xNN, cut to `limit` bytes: safe to put into a message.
std::string in_quotes(std::string_view text, size_t limit = 80);
std::string human_bytes(uint64_t bytes);    // "98.4 MB" (powers of 1000)
std::string human_count(double count);      // "134.5 M"
std::string human_seconds(double seconds);  // "1 min 20 s"
std::string thousands(int64_t number);      // "49,152"
std::vector<std::string> split(std::string_view text, char separator);
std::string ranges_text(std::span<const int> ascending);  // "0-3,5" of 0, 1, 2, 3, 5
std::string_view trim(std::string_view text);
// The candidate nearest to `word` by edit distance, if it is near enough to be meant.
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace lamina
