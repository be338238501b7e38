// CLIP's text encoder under the names transformers gives its weights: CLIPTextModel and, with a projection of
// the pooled vector, CLIPTextModelWithProjection. Files hold every name with "text_model." in front or none.
// It says no next tokens: Blueprint::vocabulary is 0, and the rows of the embedding bound the ids.
#pragma once

#include <string_view>

#include "lamina/family/family.h"

namespace lamina::clip {

enum class Activation { quick_gelu, gelu };

struct Config {
  int64_t width = 0, blocks = 0, heads = 0, neurons = 0, vocabulary = 0, positions = 0;
  double norm_epsilon = 1e-5;
  Activation activation = Activation::quick_gelu;
  int64_t end_of_text = 49407;  // the pooled vector is that of the first of these
  // The pooled vector is that of the first largest id: what transformers means by an end of 2, which old
  // configs say wrongly.
  bool end_is_largest = false;
  int64_t projection = 0;  // width of what the pooled vector is projected to; 0: it is not
  int64_t head_dim() const { return width / heads; }
};

// Throws Error that names the key.
Config read_config(const Json& config, std::string_view what);

Architecture text_declaration();
Architecture projected_declaration();

}  // namespace lamina::clip
