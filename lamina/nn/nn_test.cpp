#include <gtest/gtest.h>

#include <chrono>

#include "lamina/base/error.h"
#include "lamina/nn/attention.h"
#include "lamina/nn/inference.h"
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

TEST(Attention, OverAMapIsTheSame) {
  for (const auto& [queries, keys, heads, width] :
       {std::array<int64_t, 4>{128, 128, 1, 40}, {130, 77, 3, 4}, {200, 1, 2, 7}, {333, 65, 2, 160}}) {
    const auto made = [&, count = heads, wide = width](int64_t tokens, uint64_t seed) {
      return to_heads(random_normal({2, tokens, count * wide}, seed) * 2, wide);
    };
    const Tensor q = made(queries, 1), k = made(keys, 2), v = made(keys, 3);
    const auto mixed = inference::attend(q, k, v, {.causal = false});
    ASSERT_TRUE(mixed.has_value());
    const Tensor exact = attend(q.to(at::kDouble), k.to(at::kDouble), v.to(at::kDouble), {.causal = false});
    EXPECT_LT((*mixed - exact).abs().max().item<double>(), 2e-5) << queries << " to " << keys;
  }
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

// What is computed without gradients, against the general way, which float64 takes.
void expect_inferred(const std::vector<Tensor>& values, double bound,
                     const std::function<Tensor(const std::vector<Tensor>&)>& f) {
  const InferenceMode evaluating;
  std::vector<Tensor> wide;
  for (const Tensor& value : values)
    wide.push_back(value.is_floating_point() ? value.to(at::kDouble) : value);
  const Tensor ours = f(values).to(at::kDouble), theirs = f(wide);
  EXPECT_EQ(ours.sizes(), theirs.sizes());
  EXPECT_LT((ours - theirs).abs().max().item<double>(), bound * (1 + theirs.abs().max().item<double>()));
}

TEST(Inference, LinearMapsAndWhatTheirResultsGoInto) {
  for (const int64_t out : {5, 700}) {  // small products and those that another library makes
    const Tensor x = numbers({3, 41, 300}, 1), w = numbers({out, 300}, 2) / 17, b = numbers({out}, 3),
                 residual = numbers({3, 41, out}, 4), up = numbers({out, 300}, 5) / 17;
    for (const bool packed : {false, true}) {
      const auto map = [&](const Tensor& weight, const Tensor& bias = {}, bool in_out = false) {
        const Linear plain{.weight = weight, .bias = bias, .in_out = in_out};
        return packed && weight.scalar_type() == at::kFloat ? plain.packed(at::kFloat) : plain;
      };
      expect_inferred({x, w, b}, 1e-6, [&](const auto& t) { return map(t[1], t[2])(t[0]); });
      expect_inferred({x, w.t().contiguous(), b}, 1e-6,
                      [&](const auto& t) { return map(t[1], t[2], true)(t[0]); });
      expect_inferred({x, w, b, residual}, 1e-6,
                      [&](const auto& t) { return map(t[1], t[2]).onto(t[3], t[0]); });
      expect_inferred({x, w, up, b}, 1e-6,
                      [&](const auto& t) { return gated(map(t[1]), map(t[2], t[3]), t[0]); });
      expect_inferred({x.narrow(0, 0, 1).narrow(1, 0, 1), w, b}, 1e-6,
                      [&](const auto& t) { return map(t[1], t[2])(t[0]); });
    }
  }
}

TEST(Inference, ProductsInBfloat16) {
  const Tensor x = numbers({3, 41, 300}, 1), w = numbers({64, 300}, 2) / 17, b = numbers({64}, 3),
               residual = numbers({3, 41, 64}, 4) * 1000;
  const InferenceMode evaluating;
  Linear narrow;
  try {
    narrow = Linear{.weight = w, .bias = b}.packed(at::kBFloat16);
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("use float32"), std::string::npos);
    GTEST_SKIP() << "skipped: " << error.what();
  }
  const Linear wide{.weight = w, .bias = b};
  EXPECT_EQ(narrow(x).scalar_type(), at::kFloat);
  const double off = (narrow(x) - wide(x)).abs().max().item<double>();
  EXPECT_LT(off, 0.05);
  EXPECT_GT(off, 1e-4);  // narrow it is
  // A large residual keeps its digits.
  EXPECT_LT((narrow.onto(residual, x) - wide.onto(residual, x)).abs().max().item<double>(), 0.05);
  EXPECT_LT((gated(narrow, narrow, x).to(at::kFloat) - gated(wide, wide, x)).abs().max().item<double>(), 0.2);
}

TEST(Inference, NormRotationAndGate) {
  for (const int64_t width : {48, 50, 64}) {
    expect_inferred({numbers({2, 7, width}, 1), numbers({width}, 2)}, 1e-6,
                    [](const auto& t) { return Norm{.gain = t[1], .epsilon = 1e-5}(t[0]); });
    const Tensor angles = numbers({7, width / 2}, 3), both = at::cat({angles, angles}, 1);
    expect_inferred({numbers({2, 7, 3 * width}, 1)}, 1e-6, [&](const auto& t) {
      const auto type = t[0].scalar_type();
      return rotate(to_heads(t[0], width), {both.cos().to(type), both.sin().to(type)});
    });
    expect_inferred({numbers({2, 7, width}, 1) * 6, numbers({2, 7, width}, 2)}, 1e-6,
                    [](const auto& t) { return gated(t[0], t[1]); });
  }
}

TEST(Inference, Attention) {
  struct Case {
    int64_t width, heads, groups, queries, keys;
  };
  for (const Case c :
       {Case{64, 6, 2, 30, 30}, Case{16, 2, 2, 5, 5}, Case{80, 3, 1, 67, 67}, Case{32, 4, 4, 33, 33},
        Case{64, 2, 1, 3, 40}, Case{128, 2, 2, 130, 130}, Case{18, 2, 1, 9, 9}}) {
    // Heads as they come from a product, one token's numbers together.
    const auto heads = [&](int64_t tokens, int64_t count, uint64_t seed) {
      return to_heads(numbers({3, tokens, count * c.width}, seed), c.width);
    };
    const std::vector<Tensor> values = {heads(c.queries, c.heads, 1), heads(c.keys, c.groups, 2) * 2,
                                        heads(c.keys, c.groups, 3)};
    Tensor padding = at::ones({3, c.keys}, at::kBool);
    padding[0].narrow(0, c.keys - 2, 2).fill_(false);
    padding[2].narrow(0, 0, 1).fill_(false);
    for (const bool causal : {true, false}) {
      for (const int64_t window : {0, 2, 7, 1000}) {
        for (const bool pads : {true, false}) {
          const AttendOptions options{
              .window = window, .causal = causal, .padding = pads ? std::optional(padding) : std::nullopt};
          expect_inferred(values, 1e-6,
                          [&](const auto& t) { return attend(t[0], t[1], t[2], options).contiguous(); });
        }
      }
    }
    const InferenceMode evaluating;
    EXPECT_EQ(inference::attend(values[0], values[1], values[2], {}).has_value(), c.width % 16 == 0)
        << "a width of " << c.width;
  }
}

TEST(Inference, WhatLearnsIsLeftAlone) {
  const Tensor x = numbers({2, 5}, 1), leaf = numbers({2, 5}, 2).requires_grad_(true);
  EXPECT_TRUE(inference::applies({x, Tensor()}));
  EXPECT_FALSE(inference::applies({x, leaf}));
  EXPECT_FALSE(inference::applies({x, x.to(at::kDouble)}));
  const InferenceMode evaluating;
  EXPECT_TRUE(inference::applies({x, leaf}));
}

}  // namespace
}  // namespace lamina
