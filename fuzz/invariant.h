// What every fuzz target asks: a parser answers with a value or with Error, and what it accepted survives a
// round trip.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "lamina/base/error.h"

namespace lamina::fuzz {

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// The result of `parse`, or nothing if it refused. Anything but Error ends the program: that is a find.
template <class Parse>
auto accepted(const Parse& parse) -> std::optional<decltype(parse())> {
  try {
    return parse();
  } catch (const Error&) {
    return std::nullopt;
  }
}

inline void must(bool holds) {
  if (!holds) std::abort();
}

}  // namespace lamina::fuzz
