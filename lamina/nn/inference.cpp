#include "lamina/nn/inference.h"

#include <cmath>

#include "lamina/nn/impl/attention_lanes.h"
#include "lamina/nn/impl/map_attention_lanes.h"
#include "lamina/nn/impl/passes.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

extern const AttentionFunctions attention_default;
extern const MapAttentionFunctions map_attention_default;
#if defined(__x86_64__)
extern const AttentionFunctions attention_v3;
extern const AttentionFunctions attention_v4;
extern const MapAttentionFunctions map_attention_v3;
extern const MapAttentionFunctions map_attention_v4;
#endif

const AttentionFunctions& attention_functions() {
#if defined(__x86_64__)
  static const AttentionFunctions& best = __builtin_cpu_supports("x86-64-v4")   ? attention_v4
                                          : __builtin_cpu_supports("x86-64-v3") ? attention_v3
                                                                                : attention_default;
  return best;
#else
  return attention_default;
#endif
}

const MapAttentionFunctions& map_attention_functions() {
#if defined(__x86_64__)
  static const MapAttentionFunctions& best = __builtin_cpu_supports("x86-64-v4")   ? map_attention_v4
                                             : __builtin_cpu_supports("x86-64-v3") ? map_attention_v3
                                                                                   : map_attention_default;
  return best;
#else
  return map_attention_default;
#endif
}

namespace inference {

namespace {

// Everything sees everything, and there is much of it: the tokens of a picture.
Tensor attend_map(const Tensor& q, const Tensor& k, const Tensor& v) {
  const MapAttentionFunctions& lanes = map_attention_functions();
  const int64_t batch = q.size(0), heads = q.size(1), queries = q.size(2), width = q.size(3);
  const Tensor y = at::empty({batch, queries, heads, width}, q.options());
  const auto *q_at = q.const_data_ptr<float>(), *k_at = k.const_data_ptr<float>(),
             *v_at = v.const_data_ptr<float>();
  auto* y_at = y.mutable_data_ptr<float>();
  const int64_t runs = (queries + lanes.queries - 1) / lanes.queries;
  at::parallel_for(0, batch * heads * runs, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(static_cast<size_t>(lanes.scratch(width)));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / runs % heads, b = i / runs / heads, first = i % runs * lanes.queries;
      lanes.attend({.q = q_at + b * q.stride(0) + head * q.stride(1) + first * q.stride(2),
                    .k = k_at + b * k.stride(0) + head * k.stride(1),
                    .v = v_at + b * v.stride(0) + head * v.stride(1),
                    .y = y_at + ((b * queries + first) * heads + head) * width,
                    .q_token = q.stride(2),
                    .k_token = k.stride(2),
                    .v_token = v.stride(2),
                    .y_token = heads * width,
                    .queries = std::min(lanes.queries, queries - first),
                    .keys = k.size(2),
                    .width = width,
                    .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(width))),
                    .scratch = scratch.data()});
    }
  });
  return y.transpose(1, 2);
}

}  // namespace

bool applies(std::initializer_list<Tensor> tensors) {
  if (at::autocast::is_autocast_enabled(at::kCPU)) return false;
  const bool recording = at::GradMode::is_enabled();
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    if (tensor.scalar_type() != at::kFloat || tensor.layout() != at::kStrided || !tensor.is_cpu())
      return false;
    if (recording && tensor.requires_grad()) return false;
  }
  return true;
}

Tensor rms_norm(const Tensor& x, const Norm& norm) {
  return passes::rms_norm(x, norm.gain, norm.epsilon).y;
}

Tensor rotate(const Tensor& x, const Rotary& rotary) {
  return passes::rotated(x, rotary.cosine.contiguous(), rotary.sine.contiguous(), 1);
}

Tensor gated(const Tensor& gate, const Tensor& up) {
  return passes::gated(gate, up);
}

std::optional<Tensor> attend(const Tensor& q, const Tensor& k, const Tensor& v,
                             const AttendOptions& options) {
  // Keys turned round and the weights of a few queries stay in the second cache up to here.
  constexpr int64_t kLongest = 512;
  const AttentionFunctions& lanes = attention_functions();
  const int64_t batch = q.size(0), heads = q.size(1), queries = q.size(2), width = q.size(3),
                groups = k.size(1), keys = k.size(2);
  constexpr int64_t kMap = 128, kWidest = 256;  // turned queries and sums of a run stay in the second cache
  const bool sees_all =
      !options.causal && !options.padding && (options.window <= 0 || options.window >= keys);
  if (sees_all && queries >= kMap && keys > 0 && groups == heads && width <= kWidest && v.size(3) == width &&
      q.stride(3) == 1 && k.stride(3) == 1 && v.stride(3) == 1)
    return attend_map(q, k, v);
  if (queries < 2 || keys > kLongest || width % lanes.lanes != 0 || v.size(3) != width ||
      heads % groups != 0 || q.stride(3) != 1 || k.stride(3) != 1 || v.stride(3) != 1)
    return std::nullopt;
  Tensor padding;
  if (options.padding) padding = options.padding->contiguous();
  const bool* stands = padding.defined() ? padding.const_data_ptr<bool>() : nullptr;
  const Tensor y = at::empty({batch, queries, heads, width}, q.options());
  const auto *q_at = q.const_data_ptr<float>(), *k_at = k.const_data_ptr<float>(),
             *v_at = v.const_data_ptr<float>();
  auto* y_at = y.mutable_data_ptr<float>();
  const int64_t shared = heads / groups;
  at::parallel_for(0, batch * groups, 1, [&](int64_t first, int64_t last) {
    std::vector<float> scratch(static_cast<size_t>(lanes.scratch(keys, width)));
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / groups, group = i % groups;
      lanes.attend({.q = q_at + b * q.stride(0) + group * shared * q.stride(1),
                    .k = k_at + b * k.stride(0) + group * k.stride(1),
                    .v = v_at + b * v.stride(0) + group * v.stride(1),
                    .y = y_at + (b * queries * heads + group * shared) * width,
                    .q_token = q.stride(2),
                    .q_head = q.stride(1),
                    .k_token = k.stride(2),
                    .v_token = v.stride(2),
                    .y_token = heads * width,
                    .y_head = width,
                    .heads = shared,
                    .queries = queries,
                    .keys = keys,
                    .width = width,
                    .stands = stands ? stands + b * keys : nullptr,
                    .window = options.window,
                    .causal = options.causal,
                    .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(width))),
                    .scratch = scratch.data()});
    }
  });
  return y.transpose(1, 2);
}

}  // namespace inference

}  // namespace lamina
