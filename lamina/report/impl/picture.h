// Pictures inside a page: what they are by their first bytes, and their bytes as text.
#pragma once

#include <string>
#include <string_view>

namespace lamina::report::impl {

// "image/png", "image/jpeg", "image/webp"; empty for anything else.
std::string_view media_type(std::string_view bytes);
std::string base64(std::string_view bytes);

}  // namespace lamina::report::impl
