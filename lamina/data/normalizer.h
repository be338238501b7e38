// The "normalizer" of a tokenizer.json: text to text, before it is cut into pieces.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "lamina/base/json.h"

namespace lamina {

using Normalizer = std::function<std::string(std::string)>;  // takes and returns valid UTF-8

Normalizer make_normalizer(const Json& component, std::string_view what);

}  // namespace lamina
