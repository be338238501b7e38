// The "decoder" of a tokenizer.json: the texts of tokens back to one text.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/json.h"

namespace lamina {

using TokenDecoder =
    std::function<std::vector<std::string>(std::vector<std::string>)>;  // joined without a gap

TokenDecoder make_token_decoder(const Json& component, std::string_view what);

}  // namespace lamina
