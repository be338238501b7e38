// The "post_processor" of a tokenizer.json: the special tokens that stand around one text.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "lamina/base/json.h"

namespace lamina {

struct PostProcessor {
  std::vector<int32_t> before, after;
};

PostProcessor make_post_processor(const Json& component, std::string_view what);

}  // namespace lamina
