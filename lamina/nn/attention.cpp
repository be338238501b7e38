#include "lamina/nn/attention.h"

#include "lamina/nn/inference.h"
#include "lamina/nn/training.h"

#include <cmath>
#include <limits>

namespace lamina {

Tensor to_heads(const Tensor& x, int64_t head_dim) {
  return x.view({x.size(0), x.size(1), x.size(2) / head_dim, head_dim}).transpose(1, 2);
}

Tensor from_heads(const Tensor& x) {
  return x.transpose(1, 2).reshape({x.size(0), x.size(2), x.size(1) * x.size(3)});
}

Tensor rotate(const Tensor& x, const Rotary& rotary) {
  if (training::applies({x, rotary.cosine})) return training::rotate(x, rotary);
  if (inference::applies({x, rotary.cosine})) return inference::rotate(x, rotary);
  const int64_t half = x.size(-1) / 2;
  const Tensor turned = at::cat({x.narrow(-1, half, half).neg(), x.narrow(-1, 0, half)}, -1);
  return x * rotary.cosine + turned * rotary.sine;
}

namespace {

// [batch or 1, 1, queries, keys], true where the query may look; nothing where plain causality, or none, says
// it all.
std::optional<Tensor> sight(const Tensor& q, const Tensor& k, const AttendOptions& options) {
  const int64_t queries = q.size(2), keys = k.size(2);
  const bool narrow = options.window > 0 && options.window < keys;
  if (!narrow && !options.padding && (!options.causal || queries == keys || queries == 1))
    return std::nullopt;
  const auto longs = at::TensorOptions(at::kLong).device(q.device());
  const Tensor query = at::arange(keys - queries, keys, longs).unsqueeze(1),
               key = at::arange(keys, longs).unsqueeze(0);
  Tensor seen = options.causal ? key <= query : at::ones({queries, keys}, longs.dtype(at::kBool));
  if (narrow) seen = seen & (key > query - options.window);
  if (narrow && !options.causal) seen = seen & (key < query + options.window);
  seen = seen.unsqueeze(0).unsqueeze(0);
  // A padded query has nothing to look at; it looks at itself, so that its row stays finite.
  if (options.padding) seen = (seen & options.padding->unsqueeze(1).unsqueeze(1)) | (key == query);
  return seen;
}

}  // namespace

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttendOptions& options) {
  if (inference::applies({q, k, v})) {
    if (const auto mixed = inference::attend(q, k, v, options)) return *mixed;
  }
  const auto mask = sight(q, k, options);
  const bool causal = options.causal && !mask && q.size(2) > 1;
  return at::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, std::nullopt,
                                          /*enable_gqa=*/q.size(1) != k.size(1));
}

Tensor attention_weights(const Tensor& q, const Tensor& k, const AttendOptions& options) {
  const int64_t queries = q.size(2), keys = k.size(2), shared = q.size(1) / k.size(1);
  const Tensor wide = shared == 1 ? k : at::repeat_interleave(k, shared, 1);
  const Tensor scores = at::matmul(q, wide.transpose(-1, -2)) / std::sqrt(static_cast<double>(q.size(3)));
  auto seen = sight(q, k, options);
  if (!seen && options.causal) {
    const auto longs = at::TensorOptions(at::kLong).device(q.device());
    seen = at::arange(keys, longs) <= at::arange(keys - queries, keys, longs).unsqueeze(1);
  }
  if (!seen) return scores.softmax(-1);
  return scores.masked_fill(seen->logical_not(), -std::numeric_limits<double>::infinity()).softmax(-1);
}

}  // namespace lamina
