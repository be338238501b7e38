#include "lamina/nn/conv.h"

#include "lamina/nn/inference.h"
#include "lamina/nn/linear.h"

namespace lamina {

namespace {

// Of a small map there is more to be read of the weights than to be multiplied, and the library would first
// turn them into another layout. As rows of patches times the weights as they stand they are read once.
std::optional<Tensor> small_map(const Conv& conv, const Tensor& x) {
  constexpr int64_t kMostRows = 128, kFewestWeights = 1 << 20;
  const Tensor& w = conv.weight;
  if (x.dim() != 4 || w.numel() < kFewestWeights || w.size(1) != x.size(1) || w.size(2) * w.size(3) == 1 ||
      !w.is_contiguous() || !inference::applies({x, w, conv.bias}))
    return std::nullopt;
  const auto side = [&](int64_t i) { return (x.size(i) + 2 * conv.padding - w.size(i)) / conv.stride + 1; };
  const int64_t batch = x.size(0), height = side(2), width = side(3);
  if (height < 1 || width < 1 || batch * height * width > kMostRows) return std::nullopt;
  const Tensor patches = at::im2col(x, {w.size(2), w.size(3)}, {1, 1}, {conv.padding, conv.padding},
                                    {conv.stride, conv.stride});  // [batch, in * kernel, places]
  const Tensor y = Linear{.weight = w.flatten(1), .bias = conv.bias}(patches.transpose(1, 2).contiguous());
  return y.transpose(1, 2).reshape({batch, w.size(0), height, width});
}

}  // namespace

Tensor Conv::operator()(const Tensor& x) const {
  if (const auto y = small_map(*this, x)) return *y;
  const at::ScalarType type = x.scalar_type();
  return at::conv2d(x, weight.to(type), bias.defined() ? bias.to(type) : bias, {stride, stride},
                    {padding, padding});
}

Tensor GroupNorm::operator()(const Tensor& x) const {
  const at::ScalarType type = x.scalar_type();
  return at::group_norm(x, groups, gain.to(type), bias.to(type), epsilon);
}

Tensor silu_of(const Tensor& x) {
  return at::silu(x);
}

Tensor gelu_of(const Tensor& x) {
  return at::gelu(x);
}

Tensor quick_gelu_of(const Tensor& x) {
  return x * at::sigmoid(x * 1.702);
}

}  // namespace lamina
