// A file that was compiled into the program by cmake/embed.cmake: the same bytes, found by the name it was
// given there.
#pragma once

#include <span>
#include <string_view>

#include "lamina/base/error.h"

namespace lamina {

struct EmbeddedFile {
  std::string_view name;
  std::string_view bytes;
};

// Throws Error when there is none of that name.
inline std::string_view embedded(std::span<const EmbeddedFile> files, std::string_view name) {
  for (const EmbeddedFile& file : files) {
    if (file.name == name) return file.bytes;
  }
  fail("no file named {} was compiled in: add it to the room's lamina_embed list", name);
}

}  // namespace lamina
