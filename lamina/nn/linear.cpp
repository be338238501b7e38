#include "lamina/nn/linear.h"

#include "lamina/nn/impl/gemv_lanes.h"

namespace lamina {

#if defined(__x86_64__)
extern const GemvFunctions gemv_v3;
extern const GemvFunctions gemv_v4;
#endif

const GemvFunctions* gemv_functions() {
#if defined(__x86_64__)
  static const GemvFunctions* best = __builtin_cpu_supports("x86-64-v4")   ? &gemv_v4
                                     : __builtin_cpu_supports("x86-64-v3") ? &gemv_v3
                                                                           : nullptr;
  return best;
#else
  return nullptr;
#endif
}

namespace {

// One row of activations against weights of 16 bits; nothing where the case is another one.
std::optional<Tensor> narrow_row(const Tensor& x, const Tensor& weight) {
  const at::ScalarType type = weight.scalar_type();
  const GemvFunctions* functions = gemv_functions();
  if (!functions || x.numel() != x.size(-1) || x.scalar_type() != at::kFloat || !weight.is_contiguous() ||
      !weight.is_cpu())
    return std::nullopt;
  if (type != at::kBFloat16 && type != at::kHalf) return std::nullopt;
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  Tensor y = at::empty(shape, x.options());
  const Tensor row = x.contiguous();
  const auto* w = static_cast<const uint16_t*>(weight.const_data_ptr());
  const auto* in = row.const_data_ptr<float>();
  auto* out = y.mutable_data_ptr<float>();
  const auto run = type == at::kBFloat16 ? functions->bfloat16 : functions->float16;
  at::parallel_for(0, weight.size(0), 256,
                   [&](int64_t first, int64_t last) { run(w, in, out, first, last, weight.size(1)); });
  return y;
}

}  // namespace

Tensor Linear::operator()(const Tensor& x) const {
  if (weight.scalar_type() == x.scalar_type())
    return bias.defined() ? at::linear(x, weight, bias) : at::linear(x, weight);
  const std::optional<Tensor> row = narrow_row(x, weight);
  const Tensor y = row ? *row : at::linear(x, weight.to(x.scalar_type()));
  return bias.defined() ? y + bias.to(x.scalar_type()) : y;
}

}  // namespace lamina
