// The pieces of attention with grouped key-value heads: shaping, rotary positions, the product itself.
#pragma once

#include <optional>

#include "lamina/tensor/tensor.h"

namespace lamina {

// Verbs of our own: ATen's split, view and permute would meet them by argument-dependent lookup.
Tensor to_heads(const Tensor& x,
                int64_t head_dim);   // [batch, tokens, heads * head_dim] -> [batch, heads, tokens, head_dim]
Tensor from_heads(const Tensor& x);  // and back

// Cosines and sines of the rotary embedding for given positions, in the half-split order of transformers.
struct Rotary {
  Tensor cosine, sine;  // [tokens, head_dim]
};
Tensor rotate(const Tensor& x, const Rotary& rotary);  // [batch, heads, tokens, head_dim]

// softmax(q k^T / sqrt(head_dim)) v. Causal: query t of the last q.size(2) positions sees keys up to its own
// position; else all keys. With window > 0 it sees only those less than `window` positions away. `padding`
// [batch, keys] is true where a key may be seen.
struct AttendOptions {
  int64_t window = 0;
  bool causal = true;
  std::optional<Tensor> padding = {};
};
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttendOptions& options);
// The softmax alone: where each query looked, [batch, heads, queries, keys].
Tensor attention_weights(const Tensor& q, const Tensor& k, const AttendOptions& options);

}  // namespace lamina
