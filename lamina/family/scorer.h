// A small residual network that answers questions about a picture: one head of classes a question. lamina's
// own, for scoring generated pictures by what their captions say; files have "LaminaSceneScorer" in
// `architectures`. It has no parts that could go.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lamina/family/family.h"

namespace lamina::scorer {

struct Question {
  std::string name;
  int64_t classes = 0;
};

struct Config {
  int64_t image_size = 32;        // pixels a side, halved between stages
  std::vector<int64_t> channels;  // of each stage
  int64_t groups = 8;             // of the norms
  int64_t squeezed = 24;          // channels of the last map before it is laid flat
  int64_t features = 128;         // numbers in front of the heads
  std::vector<Question> questions;
  int64_t answers() const;  // of all questions together
  int64_t last_side() const { return image_size >> (channels.size() - 1); }
};
// Throws Error that names the key.
Config read_config(const Json& config, std::string_view what);
Json to_json(const Config& config);

Architecture declaration();

}  // namespace lamina::scorer
