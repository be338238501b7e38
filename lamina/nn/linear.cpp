#include "lamina/nn/linear.h"

#include "lamina/base/error.h"
#include "lamina/nn/impl/gemv_lanes.h"
#include "lamina/nn/impl/passes.h"
#include "lamina/nn/inference.h"
#include "lamina/nn/training.h"
#include "lamina/tensor/autograd.h"

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

// One row of float32 activations; nothing where the case is another one.
std::optional<Tensor> one_row(const Tensor& x, const Tensor& weight) {
  const at::ScalarType type = weight.scalar_type();
  const GemvFunctions* functions = gemv_functions();
  if (!functions || x.numel() != x.size(-1) || x.scalar_type() != at::kFloat || !weight.is_contiguous() ||
      !weight.is_cpu())
    return std::nullopt;
  // Written by hand, it is unknown to autograd.
  if (x.requires_grad() || weight.requires_grad()) return std::nullopt;
  if (type != at::kBFloat16 && type != at::kHalf && type != at::kFloat) return std::nullopt;
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  Tensor y = at::empty(shape, x.options());
  const Tensor row = x.contiguous();
  const void* w = weight.const_data_ptr();
  const auto* in = row.const_data_ptr<float>();
  auto* out = y.mutable_data_ptr<float>();
  at::parallel_for(0, weight.size(0), 256, [&](int64_t first, int64_t last) {
    if (type == at::kFloat)
      functions->float32(static_cast<const float*>(w), in, out, first, last, weight.size(1));
    else
      (type == at::kBFloat16 ? functions->bfloat16 : functions->float16)(static_cast<const uint16_t*>(w), in,
                                                                         out, first, last, weight.size(1));
  });
  return y;
}

bool is_packed(const Linear& layer) {
  return layer.weight.layout() == at::kMkldnn;
}

// A product of oneDNN's with what follows it, in the type of its weight; nothing where another way is taken.
std::optional<Tensor> product(const Linear& layer, const Tensor& x, passes::Finish how, const Tensor& other) {
  if (layer.low_rank) return std::nullopt;
  const Tensor w = layer.in_out ? layer.weight.t() : layer.weight;
  const bool packed = is_packed(layer);
  if (!packed && (!inference::applies({x, w, layer.bias, other}) || x.numel() == x.size(-1)))
    return std::nullopt;
  const at::ScalarType type = w.scalar_type();
  const Tensor rows = passes::flat(x).to(type);
  if (!packed && !passes::onednn_suits(rows, w)) return std::nullopt;
  passes::Finished finished{.how = how};
  if (layer.bias.defined()) finished.bias = layer.bias.to(type);
  if (other.defined()) finished.other = passes::flat(other).to(type);
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = w.size(0);
  return passes::onednn_product(rows, w, finished).view(sizes);
}

}  // namespace

Linear Linear::packed(at::ScalarType type) const {
  Linear result = *this;
  const Tensor matrix = weight.flatten(1);  // a convolution of 1x1 is one
  const Tensor w = (in_out ? matrix.t() : matrix).to(type).contiguous();
  if (!w.is_cpu()) return result;
#if defined(__x86_64__)
  const bool narrow = __builtin_cpu_supports("avx512bf16");
#else
  const bool narrow = false;
#endif
  const auto packed = narrow || type == at::kFloat ? passes::packed(w) : std::nullopt;
  if (!packed && type != at::kFloat)
    fail("this processor has no products in {}; use float32", at::toString(type));
  if (!packed) return result;
  result.weight = *packed;
  result.in_out = false;
  return result;
}

Tensor Linear::onto(const Tensor& residual, const Tensor& x) const {
  // The sum is made in the residual's own type.
  if (weight.scalar_type() == residual.scalar_type()) {
    if (const auto y = product(*this, x, passes::Finish::plus, residual)) return *y;
  }
  return residual + (*this)(x);
}

Tensor Linear::operator()(const Tensor& x) const {
  if (low_rank && low_rank->dropout > 0 && c10::GradMode::is_enabled()) {
    const Tensor frozen = Linear{.weight = weight, .bias = bias, .in_out = in_out}(x);
    const Tensor heard = at::dropout(x, low_rank->dropout, /*train=*/true);
    return frozen + at::linear(at::linear(heard, low_rank->down), low_rank->up) * low_rank->scale;
  }
  if (training::applies({x, weight, bias, low_rank ? low_rank->down : Tensor()}))
    return training::linear(x, *this);
  if (low_rank) {
    const Tensor frozen = Linear{.weight = weight, .bias = bias, .in_out = in_out}(x);
    return frozen + at::linear(at::linear(x, low_rank->down), low_rank->up) * low_rank->scale;
  }
  if (const auto y = product(*this, x, passes::Finish::none, {})) return y->to(x.scalar_type());
  const Tensor w = in_out ? weight.t() : weight;
  const std::optional<Tensor> row = one_row(x, w);
  if (!row && w.scalar_type() == x.scalar_type())
    return bias.defined() ? at::linear(x, w, bias) : at::linear(x, w);
  const Tensor y = row ? *row : at::linear(x, w.to(x.scalar_type()));
  return bias.defined() ? y + bias.to(x.scalar_type()) : y;
}

Tensor gated(const Tensor& gate, const Tensor& up) {
  if (training::applies({gate, up})) return training::gated(gate, up);
  return inference::applies({gate, up}) ? inference::gated(gate, up) : at::silu(gate) * up;
}

Tensor gated(const Linear& gate, const Linear& up, const Tensor& x) {
  if (is_packed(gate) && is_packed(up)) {
    const Tensor read = x.to(gate.weight.scalar_type());  // once for both
    if (const auto opened = product(gate, read, passes::Finish::silu, {})) {
      if (const auto y = product(up, read, passes::Finish::times, *opened)) return *y;
    }
  }
  return gated(gate(x), up(x));
}

Linear Linear::outputs(int64_t first, int64_t count) const {
  Linear part = *this;
  part.weight = weight.narrow(in_out ? 1 : 0, first, count);
  if (bias.defined()) part.bias = bias.narrow(0, first, count);
  if (low_rank) part.low_rank->up = low_rank->up.narrow(0, first, count);
  return part;
}

}  // namespace lamina
