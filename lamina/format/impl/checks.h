// What both containers ask of outside bytes: names that cannot hurt, and a word for files of another kind.
#pragma once

#include <optional>
#include <string_view>

#include "lamina/base/file.h"

namespace lamina {

// Throws Error when a tensor's or key's name is empty, longer than 4096 bytes, not UTF-8, holds control
// characters, or has ".." between slashes (names become file names in other tools).
void check_name(std::string_view name, std::string_view what);

// What a file plainly is when it is not what it should be: "a git-LFS pointer, ...", with what to do about
// it.
std::optional<std::string_view> foreign_kind(Bytes file);

}  // namespace lamina
