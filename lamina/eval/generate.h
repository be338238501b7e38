// Continuing a sequence with a key-value cache that knows holes: parts without attention leave nothing in it.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "lamina/model/model.h"

namespace lamina {

struct GenerateOptions {
  int64_t tokens = 64;
  double temperature = 0;  // 0: the likeliest token
  int64_t top_k = 0;       // 0: all
  double top_p = 1;
  uint64_t seed = 0;
  std::vector<int32_t> stop = {};  // ids that end the text; not part of the result
  bool cache = true;  // false: every token is a pass over everything (what the cache is held against)
  std::function<bool(int32_t)> on_token = {};  // false stops; may be empty
};

struct Generated {
  std::vector<int32_t> ids;  // the new ones
  double prompt_seconds = 0;
  double seconds = 0;  // of the new tokens after the first
  double tokens_per_second() const {
    return ids.size() > 1 && seconds > 0 ? static_cast<double>(ids.size() - 1) / seconds : 0;
  }
};

Generated generate(const Model& model, const std::vector<int32_t>& prompt, const GenerateOptions& options,
                   Tap& tap);

}  // namespace lamina
