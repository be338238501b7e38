// Attention over short texts: scores, softmax and mixture of one group of heads in the processor's own
// caches.
#pragma once

#include <cstdint>

namespace lamina {

// Heads that share keys and values. Numbers of one token lie together; steps are counted in numbers.
struct AttentionGroup {
  const float *q, *k, *v;
  float* y;
  int64_t q_token, q_head, k_token, v_token, y_token, y_head;  // steps
  int64_t heads, queries, keys, width;
  const bool* stands;  // [keys], or null: all do
  int64_t window;      // 0: none
  bool causal;
  float scale;     // of the scores
  float* scratch;  // as many floats as `scratch` below says
};

struct AttentionFunctions {
  int64_t lanes;  // `width` is a multiple of this
  int64_t (*scratch)(int64_t keys, int64_t width);
  // The queries are the last of the positions that the keys stand for. A query always sees itself.
  void (*attend)(const AttentionGroup& group);
};

// For this machine's instruction set.
const AttentionFunctions& attention_functions();

}  // namespace lamina
