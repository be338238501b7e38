#include <gtest/gtest.h>

#include <chrono>

#include "lamina/nn/attention.h"
#include "lamina/nn/linear.h"
#include "lamina/nn/norm.h"
#include "lamina/nn/training.h"
#include "lamina/tensor/autograd.h"

namespace lamina {
namespace {

Tensor numbers(at::IntArrayRef sizes, uint64_t seed) {
  return random_normal(sizes, seed);
}

// Value and gradients of a function of float32 leaves; in float64 the general way is taken.
struct Differentiated {
  Tensor value;
  std::vector<Tensor> gradients;
};
Differentiated differentiated(const std::vector<Tensor>& leaves, at::ScalarType type,
                              const std::function<Tensor(const std::vector<Tensor>&)>& f) {
  std::vector<Tensor> mine;
  for (const Tensor& leaf : leaves) mine.push_back(leaf.to(type).clone().requires_grad_(true));
  const Tensor y = f(mine);
  const Tensor weights = numbers(y.sizes(), 99).to(type);
  (y * weights).sum().backward();
  Differentiated result{.value = y.detach().to(at::kDouble), .gradients = {}};
  for (const Tensor& leaf : mine) result.gradients.push_back(leaf.grad().to(at::kDouble));
  return result;
}

void expect_same(const std::vector<Tensor>& leaves,
                 const std::function<Tensor(const std::vector<Tensor>&)>& f) {
  const Differentiated ours = differentiated(leaves, at::kFloat, f),
                       wide = differentiated(leaves, at::kDouble, f);
  const auto near = [](const Tensor& a, const Tensor& b) {
    EXPECT_EQ(a.sizes(), b.sizes());
    EXPECT_LT((a - b).abs().max().item<double>(), 3e-6 * (1 + b.abs().max().item<double>()));
  };
  near(ours.value, wide.value);
  for (size_t i = 0; i < leaves.size(); ++i) near(ours.gradients[i], wide.gradients[i]);
}

TEST(Training, LinearMapsOfEveryKind) {
  for (const int64_t out : {5, 700}) {  // small products and those that another library makes
    const Tensor x = numbers({3, 41, 300}, 1), w = numbers({out, 300}, 2), b = numbers({out}, 3),
                 down = numbers({4, 300}, 4), up = numbers({out, 4}, 5);
    expect_same({x, w}, [](const auto& t) { return Linear{.weight = t[1]}(t[0]); });
    expect_same({x, w, b}, [](const auto& t) { return Linear{.weight = t[1], .bias = t[2]}(t[0]); });
    expect_same({x, w.t().contiguous(), b},
                [](const auto& t) { return Linear{.weight = t[1], .bias = t[2], .in_out = true}(t[0]); });
    expect_same({x, w, down, up}, [](const auto& t) {
      return Linear{.weight = t[1], .low_rank = LowRank{.down = t[2], .up = t[3], .scale = 1.5}}(t[0]);
    });
    expect_same({x, w.t().contiguous(), down, up}, [](const auto& t) {
      return Linear{
          .weight = t[1], .in_out = true, .low_rank = LowRank{.down = t[2], .up = t[3], .scale = 0.5}}
          .outputs(1, 3)(t[0]);
    });
  }
}

TEST(Training, AStripeOfAMatrixIsNotMadeByReferenceLoops) {
  const Tensor x = numbers({2048, 128}, 1), w = numbers({128, 384}, 2);
  const auto seconds = [&](const Tensor& matrix) {
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      const auto start = std::chrono::steady_clock::now();
      training::product(x, matrix);
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
  };
  // A third of the columns, where they lie; a copy of them is as many products.
  const Tensor stripe = w.narrow(1, 128, 128);
  EXPECT_LT(seconds(stripe), 20 * seconds(stripe.contiguous()));
}

TEST(Training, NormRotationAndGate) {
  for (const int64_t width : {48, 50, 64}) {
    expect_same({numbers({2, 7, width}, 1), numbers({width}, 2)},
                [](const auto& t) { return Norm{.gain = t[1], .epsilon = 1e-5}(t[0]); });
    const Tensor angles = numbers({7, width / 2}, 3), both = at::cat({angles, angles}, 1);
    expect_same({numbers({2, 7, 3 * width}, 1)}, [&](const auto& t) {
      const auto type = t[0].scalar_type();
      return rotate(to_heads(t[0], width), {both.cos().to(type), both.sin().to(type)});
    });
    expect_same({numbers({2, 7, width}, 1) * 6, numbers({2, 7, width}, 2)},
                [](const auto& t) { return gated(t[0], t[1]); });
  }
}

TEST(Training, AGateFarFromZeroStaysFinite) {
  const Tensor gate = at::tensor({-200.0f, -90.0f, 90.0f, 200.0f}).requires_grad_(true), up = at::ones({4});
  const Tensor y = gated(gate, up);
  y.sum().backward();
  EXPECT_TRUE(at::isfinite(y).all().item<bool>());
  EXPECT_TRUE(at::isfinite(gate.grad()).all().item<bool>());
  EXPECT_FLOAT_EQ(y[3].item<float>(), 200);
}

}  // namespace
}  // namespace lamina
