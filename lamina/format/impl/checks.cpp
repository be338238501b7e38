#include "lamina/format/impl/checks.h"

#include <algorithm>
#include <array>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace {

constexpr size_t kLongestName = 4096;

struct Kind {
  std::string_view start;
  std::string_view description;
};

constexpr std::array kKinds = {
    Kind{"version https://git-lfs", "a git-LFS pointer, not the weights: fetch them with \"git lfs pull\""},
    Kind{"<!doctype html",
         "an HTML page, not the weights: the download answered with a page, perhaps a login"},
    Kind{"<html", "an HTML page, not the weights: the download answered with a page, perhaps a login"},
    Kind{"pk\x03\x04", "a zip archive, such as PyTorch writes: convert it to safetensors first"},
    Kind{"\x80\x02", "a Python pickle: convert it to safetensors first"},
};

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool starts_with(std::string_view text, std::string_view start) {
  return text.size() >= start.size() &&
         std::equal(start.begin(), start.end(), text.begin(), [](char a, char b) { return a == lower(b); });
}

}  // namespace

void check_name(std::string_view name, std::string_view what) {
  if (name.empty()) fail("{}: a name is empty", what);
  if (name.size() > kLongestName) {
    fail("{}: the name {} has {} bytes where at most {} make sense", what, in_quotes(name, 40), name.size(),
         kLongestName);
  }
  if (!is_utf8(name)) fail("{}: the name {} is not UTF-8", what, in_quotes(name));
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (std::any_of(name.begin(), name.end(), is_control)) {
    fail("{}: the name {} holds control characters", what, in_quotes(name));
  }
  if (name.find("..") == std::string_view::npos) return;
  for (const std::string& part : split(name, '/')) {
    if (part == "..") fail("{}: the name {} climbs out of a folder", what, in_quotes(name));
  }
}

std::optional<std::string_view> foreign_kind(Bytes file) {
  const std::string_view text = as_text(file.first(std::min<size_t>(file.size(), 512)));
  for (const Kind& kind : kKinds) {
    if (starts_with(text, kind.start) || starts_with(trim(text), kind.start)) return kind.description;
  }
  return std::nullopt;
}

}  // namespace lamina
