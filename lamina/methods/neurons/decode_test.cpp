#include "lamina/methods/neurons/decode.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdio>

#include "lamina/base/error.h"

namespace lamina::neurons {
namespace {

// float32 operands, everything after the product in float64: what decode must give.
struct Naive {
  explicit Naive(const Tensor& head, const Tensor& rows) {
    scores = rows.matmul(head.t()).to(at::kDouble);
    log_sum = scores.logsumexp(1);
    log_sum_negated = (-scores).logsumexp(1);
    mean = scores.mean(1);
    const Tensor d = scores - mean.unsqueeze(1);
    deviation = d.pow(2).mean(1).sqrt();
    kurtosis = d.pow(4).mean(1) / d.pow(2).mean(1).pow(2);
  }
  Tensor scores, log_sum, log_sum_negated, mean, deviation, kurtosis;
};

double at_row(const Tensor& tensor, int64_t r) {
  return tensor[r].item<double>();
}

// `rounding`: of a score, as a share of |w| |u|, where the products are not those of `Naive` to the bit.
void expect_equal(const Tensor& head, const Tensor& rows, int64_t top, Products products = {},
                  double rounding = 0) {
  const InferenceMode evaluating;
  const Naive naive(head, rows);
  const Decoder decoder(head, products);
  BestRows best(head.size(0));
  const std::vector<atlas::Decoded> decoded = decoder.decode(rows, 3, best, {.top = top});
  ASSERT_EQ(std::ssize(decoded), rows.size(0));
  const double longest = head.norm(2, {1}).max().item<double>();
  const double most = rounding * longest * rows.norm(2, {1}).max().item<double>();
  for (int64_t r = 0; r < rows.size(0); ++r) {
    const atlas::Decoded& row = decoded[static_cast<size_t>(r)];
    const double slack = rounding * longest * rows[r].norm().item<double>();
    EXPECT_NEAR(row.log_sum, at_row(naive.log_sum, r), 2e-6 + slack);
    EXPECT_NEAR(row.log_sum_negated, at_row(naive.log_sum_negated, r), 2e-6 + slack);
    EXPECT_NEAR(row.mean, at_row(naive.mean, r), 1e-6 * (1 + row.deviation) + slack);
    EXPECT_NEAR(row.deviation, at_row(naive.deviation, r), 2e-6 * row.deviation + slack);
    EXPECT_NEAR(row.kurtosis, at_row(naive.kurtosis, r), 1e-5 * row.kurtosis + 10 * slack / row.deviation);
    EXPECT_NEAR(row.norm, rows[r].norm().item<double>(), 1e-5 * row.norm);
    const int64_t kept = std::min(top, head.size(0));
    const auto [high, high_at] = naive.scores[r].topk(kept, 0, true);
    const auto [low, low_at] = naive.scores[r].topk(kept, 0, false);
    ASSERT_EQ(std::ssize(row.top), kept);
    ASSERT_EQ(std::ssize(row.bottom), kept);
    for (int64_t k = 0; k < kept; ++k) {
      const atlas::Label &a = row.top[static_cast<size_t>(k)], &b = row.bottom[static_cast<size_t>(k)];
      // A product of another shape may round the last bit another way: labels of equal scores may change
      // places.
      const double near = 1e-6 * (1 + std::abs(a.score)) + slack,
                   far = 1e-6 * (1 + std::abs(b.score)) + slack;
      EXPECT_NEAR(a.score, at_row(high, k), near);
      EXPECT_NEAR(b.score, at_row(low, k), far);
      EXPECT_NEAR(at_row(naive.scores[r], a.token), a.score, near);
      EXPECT_NEAR(at_row(naive.scores[r], b.token), b.score, far);
      const double p = std::exp(static_cast<double>(a.score) - row.log_sum);
      EXPECT_NEAR(p, std::exp(at_row(high, k) - at_row(naive.log_sum, r)), 1e-6 + 2 * slack);
      EXPECT_LE(p, 1 + 1e-9 + slack * 1e-3);
    }
  }
  // The best row of every token, at both poles.
  const Tensor log_p = naive.scores - naive.log_sum.unsqueeze(1);
  const Tensor log_n = -naive.scores - naive.log_sum_negated.unsqueeze(1);
  const Tensor top_best = std::get<0>(log_p.max(0)), bottom_best = std::get<0>(log_n.max(0));
  for (int64_t t = 0; t < head.size(0); ++t) {
    const atlas::Best &a = best.top[static_cast<size_t>(t)], &b = best.bottom[static_cast<size_t>(t)];
    ASSERT_EQ(a.block, 3);
    EXPECT_NEAR(a.log_p, at_row(top_best, t), 4e-6 * (1 + std::abs(a.log_p)) + 2 * most);
    EXPECT_NEAR(at_row(log_p[a.neuron], t), a.log_p, 4e-6 * (1 + std::abs(a.log_p)) + 2 * most);
    EXPECT_NEAR(a.score, at_row(naive.scores[a.neuron], t), 1e-6 * (1 + std::abs(a.score)) + most);
    EXPECT_NEAR(b.score, at_row(naive.scores[b.neuron], t), 1e-6 * (1 + std::abs(b.score)) + most);
    EXPECT_NEAR(b.log_p, at_row(bottom_best, t), 4e-6 * (1 + std::abs(b.log_p)) + 2 * most);
    EXPECT_NEAR(at_row(log_n[b.neuron], t), b.log_p, 4e-6 * (1 + std::abs(b.log_p)) + 2 * most);
  }
}

TEST(Decode, IsTheFullSoftmaxWithoutHoldingIt) {
  // Widths of the vocabulary around lanes, runs and tiles; flat and sharp rows; more labels than tokens.
  for (const int64_t vocabulary : {3, 97, 4096, 4097, 9001}) {
    for (const double scale : {0.02, 1.0, 8.0}) {
      SCOPED_TRACE(fmt::format("vocabulary {}, scale {}", vocabulary, scale));
      const Tensor head = random_normal({vocabulary, 48}, 1) + 0.3, rows = random_normal({70, 48}, 2) * scale;
      expect_equal(head, rows, vocabulary == 97 ? 20 : 8);
    }
  }
}

TEST(Decode, OnTensorsIsTheSame) {
  for (const int64_t vocabulary : {3, 97, 4097}) {
    for (const double scale : {0.02, 8.0}) {
      SCOPED_TRACE(fmt::format("vocabulary {}, scale {}", vocabulary, scale));
      const Tensor head = random_normal({vocabulary, 48}, 1) + 0.3, rows = random_normal({70, 48}, 2) * scale;
      expect_equal(head, rows, vocabulary == 97 ? 20 : 8, {.on_tensors = true}, 1.2e-7);
    }
  }
}

// The labels of a bfloat16 product alone are others: the second look is what makes them those of float32.
TEST(Decode, LabelsOfNarrowProductsAreThoseOfFloat32) {
  const InferenceMode evaluating;
  const Tensor head = random_normal({6007, 64}, 7), rows = random_normal({300, 64}, 8);
  const Tensor scores = rows.matmul(head.t());
  const Tensor rough = rows.to(at::kBFloat16).matmul(head.to(at::kBFloat16).t()).to(at::kFloat);
  const Decoder decoder(head, {.type = at::kBFloat16});
  BestRows best(6007);
  const auto decoded = decoder.decode(rows, 0, best, {.top = 8});
  const Tensor expected = std::get<1>(scores.topk(8, 1)), lowest = std::get<1>(scores.topk(8, 1, false));
  const Tensor unaided = std::get<1>(rough.topk(8, 1));
  int64_t differ = 0;
  for (int64_t r = 0; r < 300; ++r) {
    const atlas::Decoded& row = decoded[static_cast<size_t>(r)];
    for (int64_t k = 0; k < 8; ++k) {
      EXPECT_EQ(row.top[static_cast<size_t>(k)].token, expected[r][k].item<int64_t>());
      EXPECT_EQ(row.bottom[static_cast<size_t>(k)].token, lowest[r][k].item<int64_t>());
      differ += unaided[r][k].item<int64_t>() != expected[r][k].item<int64_t>();
    }
    EXPECT_NEAR(row.top[0].score, scores[r].max().item<double>(), 1e-5);
  }
  EXPECT_GT(differ, 100);
}

// No narrow score is further from float32 than the bound of decode_on_tensors.cpp, and the bound is not idle.
TEST(Decode, TheBoundOfNarrowProductsHolds) {
  const InferenceMode evaluating;
  const Tensor head = random_normal({3000, 256}, 9) * 0.1, rows = random_normal({100, 256}, 10);
  const Tensor thin_head = head.to(at::kBFloat16), thin_rows = rows.to(at::kBFloat16);
  const Tensor rough = thin_rows.matmul(thin_head.t()).to(at::kFloat);
  const Tensor error = (rows.to(at::kDouble).matmul(head.to(at::kDouble).t()) - rough.to(at::kDouble)).abs();
  const auto norm = [](const Tensor& t) { return t.to(at::kDouble).norm(2, {1}); };
  const double g = 256 * 0x1p-24 / (1 - 256 * 0x1p-24), q = 0x1p-8 / (1 - 0x1p-8);
  const Tensor lost = norm(rows - thin_rows.to(at::kFloat)), left = norm(thin_rows);
  const double longest = norm(head).max().item<double>(), longest_left = norm(thin_head).max().item<double>(),
               longest_lost = norm(head - thin_head.to(at::kFloat)).max().item<double>();
  const Tensor bound =
      (lost * longest + left * longest_lost + g * (left * longest_left + norm(rows) * longest)).unsqueeze(1) +
      q * rough.abs().to(at::kDouble);
  EXPECT_TRUE((error <= bound).all().item<bool>());
  EXPECT_GT((error / bound).max().item<double>(), 0.1);
}

TEST(Decode, LabelsDoNotDependOnALengthAndTiesStandInTokenOrder) {
  const InferenceMode evaluating;
  const Tensor head = random_normal({500, 32}, 3), rows = random_normal({40, 32}, 4);
  const Decoder decoder(head);
  BestRows best(500), scaled_best(500);
  const auto plain = decoder.decode(rows, 0, best, {});
  const auto scaled = decoder.decode(rows * 4, 0, scaled_best, {});
  for (size_t r = 0; r < plain.size(); ++r) {
    for (size_t k = 0; k < plain[r].top.size(); ++k) {
      EXPECT_EQ(plain[r].top[k].token, scaled[r].top[k].token);
      EXPECT_EQ(plain[r].bottom[k].token, scaled[r].bottom[k].token);
    }
    EXPECT_NEAR(plain[r].kurtosis, scaled[r].kurtosis, 1e-5 * plain[r].kurtosis);
  }
  // Whole numbers: a product rounds nothing, in whatever order it sums.
  const Tensor whole = (head * 4).round().narrow(0, 0, 5);
  const Decoder doubled(at::cat({whole, whole}));
  BestRows ties(10);
  const auto twice = doubled.decode((rows * 4).round(), 0, ties, {.top = 10});
  for (const atlas::Decoded& row : twice) {
    for (size_t k = 0; k < 10; k += 2) {
      EXPECT_EQ(row.top[k].score, row.top[k + 1].score);
      EXPECT_LT(row.top[k].token, row.top[k + 1].token);
      EXPECT_EQ(row.bottom[k].score, row.bottom[k + 1].score);
      EXPECT_LT(row.bottom[k].token, row.bottom[k + 1].token);
    }
  }
}

TEST(Decode, GoesOnFromTheBestRowsOfEarlierBlocks) {
  const InferenceMode evaluating;
  const Tensor head = random_normal({700, 32}, 5), rows = random_normal({400, 32}, 6) * 2;
  const Decoder decoder(head);
  BestRows at_once(700), in_turn(700);
  decoder.decode(rows, 0, at_once, {});
  decoder.decode(rows.narrow(0, 0, 150), 0, in_turn, {});
  decoder.decode(rows.narrow(0, 150, 250), 1, in_turn, {});
  for (size_t t = 0; t < 700; ++t) {
    EXPECT_NEAR(at_once.top[t].log_p, in_turn.top[t].log_p, 1e-6);
    EXPECT_EQ(at_once.top[t].neuron, in_turn.top[t].neuron + (in_turn.top[t].block == 1 ? 150 : 0));
  }
}

TEST(Decode, RefusesNumbersThatAreNone) {
  const InferenceMode evaluating;
  Tensor head = random_normal({50, 8}, 1), rows = random_normal({5, 8}, 2);
  BestRows best(50);
  const Decoder decoder(head);
  rows[3][1] = NAN;
  EXPECT_THROW(decoder.decode(rows, 0, best, {}), Error);
  head = head.clone();
  head[4][4] = INFINITY;
  EXPECT_THROW(Decoder{head}, Error);
}

TEST(Decode, DISABLED_SpeedBesideTheProduct) {
  use_threads(1);
  const InferenceMode evaluating;
  const Tensor head = random_normal({49152, 576}, 1) * 0.1, rows = random_normal({1536, 576}, 2) * 0.04;
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  const Decoder decoder(head);
  for (const double scale : {1.0, 25.0}) {
    BestRows best(49152);
    for (int repeat = 0; repeat < 3; ++repeat) {
      double t = now();
      at::mm(rows, head.t());
      const double product = now() - t, inside = decoder.time().products;
      t = now();
      decoder.decode(rows * scale + 0.001 * repeat, repeat, best, {});
      std::printf("scale %4.0f: product %.3f s, decode %.3f s (products inside %.3f), share %.3f\n", scale,
                  product, now() - t, decoder.time().products - inside, product / (now() - t));
    }
  }
}

}  // namespace
}  // namespace lamina::neurons
