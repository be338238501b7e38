#include "lamina/nn/conv.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lamina {
namespace {

double largest(const Tensor& x) {
  return x.abs().max().item<double>();
}

TEST(Conv, IsASumOverWindows) {
  const Tensor x = random_normal({2, 3, 7, 6}, 1).to(at::kDouble),
               w = random_normal({4, 3, 3, 3}, 2).to(at::kDouble), b = random_normal({4}, 3).to(at::kDouble);
  const Tensor padded = at::constant_pad_nd(x, {1, 1, 1, 1});
  for (const int64_t stride : {1, 2}) {
    const Tensor y = Conv{.weight = w, .bias = b, .stride = stride, .padding = 1}(x);
    ASSERT_EQ(y.sizes(), (std::vector<int64_t>{2, 4, (7 - 1) / stride + 1, (6 - 1) / stride + 1}));
    for (const auto& [row, column] : {std::pair{0, 0}, {2, 1}, {3, 2}}) {
      const Tensor window = padded.narrow(2, row * stride, 3).narrow(3, column * stride, 3);
      const Tensor expected = (window.unsqueeze(1) * w.unsqueeze(0)).sum({2, 3, 4}) + b;
      EXPECT_LT(largest(y.select(3, column).select(2, row) - expected), 1e-12);
    }
  }
  EXPECT_LT(largest(Conv{.weight = w, .padding = 1}(x) + b.view({1, 4, 1, 1}) -
                    Conv{.weight = w, .bias = b, .padding = 1}(x)),
            1e-12);
}

TEST(Conv, OfASmallMapIsTheSame) {
  const Tensor w = random_normal({256, 512, 3, 3}, 1) / 64, b = random_normal({256}, 2);
  for (const int64_t side : {1, 2, 7, 12}) {
    const Tensor x = random_normal({2, 512, side, side + 1}, 3);
    for (const int64_t stride : {1, 2}) {
      const Conv conv{.weight = w, .bias = b, .stride = stride, .padding = 1};
      const Tensor exact =
          at::conv2d(x.to(at::kDouble), w.to(at::kDouble), b.to(at::kDouble), {stride, stride}, {1, 1});
      const Tensor y = conv(x), channels_last = conv(x.contiguous(at::MemoryFormat::ChannelsLast));
      ASSERT_EQ(y.sizes(), exact.sizes());
      EXPECT_LT(largest(y - exact), 3e-5);
      EXPECT_LT(largest(channels_last - exact), 3e-5);
    }
  }
}

TEST(GroupNorm, EachGroupHasMeanNoneAndSpreadOne) {
  const Tensor x = random_normal({2, 6, 5, 4}, 1).to(at::kDouble) * 3 + 2;
  const GroupNorm norm{
      .gain = at::ones({6}, at::kDouble), .bias = at::zeros({6}, at::kDouble), .groups = 2, .epsilon = 1e-12};
  const Tensor y = norm(x).view({2, 2, -1});
  EXPECT_LT(largest(y.mean(-1)), 1e-12);
  EXPECT_LT(largest(y.square().mean(-1) - 1), 1e-10);
}

TEST(Activations, AreWhatTheirNamesSay) {
  for (const double value : {-3.0, -0.5, 0.0, 1.25, 20.0}) {
    const Tensor x = at::full({1}, value, at::kDouble);
    EXPECT_NEAR(silu_of(x).item<double>(), value / (1 + std::exp(-value)), 1e-14);
    EXPECT_NEAR(gelu_of(x).item<double>(), value * 0.5 * (1 + std::erf(value / std::sqrt(2.0))), 1e-14);
    EXPECT_NEAR(quick_gelu_of(x).item<double>(), value / (1 + std::exp(-1.702 * value)), 1e-14);
  }
}

}  // namespace
}  // namespace lamina
