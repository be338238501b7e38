#include "lamina/nn/impl/passes.h"

#include "lamina/nn/impl/training_lanes.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

extern const TrainingFunctions training_default;
#if defined(__x86_64__)
extern const TrainingFunctions training_v3;
extern const TrainingFunctions training_v4;
#endif

const TrainingFunctions& training_functions() {
#if defined(__x86_64__)
  static const TrainingFunctions& best = __builtin_cpu_supports("x86-64-v4")   ? training_v4
                                         : __builtin_cpu_supports("x86-64-v3") ? training_v3
                                                                               : training_default;
  return best;
#else
  return training_default;
#endif
}

namespace passes {

namespace {

// oneDNN's products through the operators that torch's compiler uses; nothing where this libtorch lacks them.
template <class Function>
std::optional<c10::TypedOperatorHandle<Function>> found(const char* name, const char* overload) {
  const auto schema = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!schema) return std::nullopt;
  return schema->typed<Function>();
}

struct OneDnn {
  using Unary = Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, std::string_view,
                       c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  using Binary = Tensor(const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&,
                        std::string_view);
  using Reorder = Tensor(const Tensor&, std::optional<int64_t>);
  std::optional<c10::TypedOperatorHandle<Unary>> unary = found<Unary>("mkldnn::_linear_pointwise", "");
  std::optional<c10::TypedOperatorHandle<Binary>> binary =
      found<Binary>("mkldnn::_linear_pointwise", "binary");
  std::optional<c10::TypedOperatorHandle<Reorder>> reorder =
      found<Reorder>("mkldnn::_reorder_linear_weight", "");
};
const OneDnn& onednn() {
  static const OneDnn functions;
  return functions;
}

// Below this many multiplications the call costs more than it gains.
constexpr int64_t kLarge = int64_t{1} << 24;
constexpr int64_t kGrain = 16;       // rows a worker takes at least
constexpr int64_t kRun = 1 << 14;    // numbers a worker takes at least
constexpr int64_t kUsualRows = 256;  // that a packed weight is laid out for; other counts do as well

// Anything but a whole matrix or its transpose goes to oneDNN's reference loops, a hundred times slower.
bool whole(const Tensor& matrix) {
  return matrix.is_contiguous() || matrix.t().is_contiguous();
}

}  // namespace

Tensor flat(const Tensor& x) {
  return x.reshape({-1, x.size(-1)});
}

bool onednn_suits(const Tensor& x, const Tensor& w) {
  return onednn().unary && onednn().binary && x.size(0) * x.size(1) * w.size(0) >= kLarge && whole(x) &&
         whole(w);
}

Tensor onednn_product(const Tensor& x, const Tensor& w, const Finished& finished) {
  if (finished.how == Finish::times || finished.how == Finish::plus)
    return onednn().binary->call(x, finished.other, w, finished.bias,
                                 finished.how == Finish::times ? "mul" : "add");
  return onednn().unary->call(x, w, finished.bias, finished.how == Finish::silu ? "swish" : "none",
                              c10::List<std::optional<at::Scalar>>(), "");
}

std::optional<Tensor> packed(const Tensor& w) {
  if (!onednn().unary || !onednn().binary || !onednn().reorder) return std::nullopt;
  return onednn().reorder->call(w, kUsualRows);
}

Tensor turned_product(const Tensor& x, const Tensor& w) {
  return onednn_suits(x, w) ? onednn_product(x, w) : at::mm(x, w.t());
}

Normed rms_norm(const Tensor& x, const Tensor& gain, double epsilon) {
  const Tensor rows = x.contiguous(), whole_gain = gain.contiguous();
  const int64_t width = x.size(-1), count = x.numel() / width;
  Normed normed{.y = at::empty_like(rows), .inverse = at::empty({count}, x.options())};
  const auto *from = rows.const_data_ptr<float>(), *g = whole_gain.const_data_ptr<float>();
  auto *to = normed.y.mutable_data_ptr<float>(), *scales = normed.inverse.mutable_data_ptr<float>();
  at::parallel_for(0, count, kGrain, [&](int64_t first, int64_t last) {
    training_functions().rms_forward(from + first * width, g, to + first * width, scales + first,
                                     last - first, width, epsilon);
  });
  return normed;
}

Tensor rotated(const Tensor& x, const Tensor& cosine, const Tensor& sine, float sign) {
  const Tensor by_token = x.transpose(1, 2);  // [batch, tokens, heads, width]
  Tensor in = by_token.stride(3) == 1 ? by_token : by_token.contiguous();
  Tensor y = at::empty(by_token.sizes(), x.options());
  const int64_t tokens = in.size(1), heads = in.size(2), width = in.size(3);
  const auto *from = in.const_data_ptr<float>(), *c = cosine.const_data_ptr<float>(),
             *s = sine.const_data_ptr<float>();
  auto* to = y.mutable_data_ptr<float>();
  at::parallel_for(0, in.size(0) * tokens, kGrain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t b = row / tokens, t = row % tokens;
      training_functions().rotate(from + b * in.stride(0) + t * in.stride(1), in.stride(2), c + t * width,
                                  s + t * width, sign, to + row * heads * width, heads, width);
    }
  });
  return y.transpose(1, 2);
}

Tensor gated(const Tensor& gate, const Tensor& up) {
  const Tensor g = gate.contiguous(), u = up.contiguous();
  Tensor y = at::empty_like(g);
  const auto *g_at = g.const_data_ptr<float>(), *u_at = u.const_data_ptr<float>();
  auto* y_at = y.mutable_data_ptr<float>();
  at::parallel_for(0, g.numel(), kRun, [&](int64_t first, int64_t last) {
    training_functions().gated_forward(g_at + first, u_at + first, y_at + first, last - first);
  });
  return y;
}

}  // namespace passes

}  // namespace lamina
