#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <random>
#include <set>

#include "lamina/base/error.h"
#include "lamina/eval/divergence.h"
#include "lamina/eval/generate.h"
#include "lamina/eval/perplexity.h"

namespace lamina {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Metric kAll[] = {Metric::jsd, Metric::ag, Metric::kl, Metric::ppl, Metric::norm, Metric::angular};

Tensor random_logits(int64_t tokens, int64_t vocabulary, uint64_t seed) {
  std::mt19937_64 engine(seed);
  const Tensor logits = at::empty({tokens, vocabulary}, at::kDouble);
  double* values = logits.data_ptr<double>();
  for (int64_t i = 0; i < logits.numel(); ++i)
    values[i] = 10 * (static_cast<double>(engine() >> 11) * 0x1p-53 - 0.5);
  return logits;
}

// The formulas as they stand in books, on float64 logits [tokens, vocabulary]: what one sample adds before
// scaling.
double plain(Metric metric, const Tensor& dense, const Tensor& changed, const std::vector<int32_t>& ids) {
  const Tensor p = dense.to(at::kDouble), q = changed.to(at::kDouble);
  const Tensor log_p = at::log_softmax(p, 1), log_q = at::log_softmax(q, 1),
               m = (log_p.exp() + log_q.exp()) / 2;
  const auto sum = [](const Tensor& tensor) { return tensor.sum().item<double>(); };
  switch (metric) {
    case Metric::jsd:
      return sum(log_p.exp() * (log_p - m.log()) + log_q.exp() * (log_q - m.log())) / 2;
    case Metric::ag:
      return sum(m * (m.log() - (log_p + log_q) / 2));
    case Metric::kl:
      return sum(log_p.exp() * (log_p - log_q));
    case Metric::norm:
      return (p - q).norm().item<double>();
    case Metric::angular:
      return sum(((p * q).sum(1) / (p.norm(2, 1) * q.norm(2, 1))).clamp(0, 1).acos());
    case Metric::ppl: {
      double nll = 0;
      for (int64_t t = 0; t + 1 < q.size(0); ++t)
        nll -= log_q[t][ids[static_cast<size_t>(t + 1)]].item<double>();
      return std::exp(nll / static_cast<double>(q.size(0) - 1));
    }
  }
  return 0;
}

std::vector<int32_t> some_ids(int64_t count, int64_t vocabulary) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * i + 3 * i) % vocabulary));
  return ids;
}

// A head that hands its input through, so that the hidden states are the logits.
Linear identity(int64_t vocabulary, at::ScalarType dtype) {
  return {at::eye(vocabulary, at::TensorOptions(dtype)), {}};
}

double measured(Metric metric, const Tensor& dense, const Tensor& changed) {
  const Divergence divergence(identity(dense.size(1), dense.scalar_type()), {dense},
                              {some_ids(dense.size(0), dense.size(1))}, {.metric = metric});
  return divergence.term(0, changed, kInfinity).value;
}

double expected(Metric metric, const Tensor& dense, const Tensor& changed) {
  const double whole = plain(metric, dense, changed, some_ids(dense.size(0), dense.size(1)));
  return metric == Metric::ppl || metric == Metric::norm ? whole : whole / static_cast<double>(dense.size(0));
}

TEST(Divergence, EqualsTheFormulasInFloat64) {
  for (int64_t vocabulary : {2, 3, 97, 500}) {
    const Tensor dense = random_logits(40, vocabulary, 1);
    for (double distance : {1.0, 1e-2, 1e-3}) {
      const Tensor changed = dense + distance * random_logits(40, vocabulary, 2);
      for (Metric metric : kAll) {
        const double plainly = expected(metric, dense, changed);
        // The book's formulas subtract nearly equal numbers; ours do not.
        EXPECT_NEAR(measured(metric, dense, changed), plainly,
                    1e-9 * plainly + (metric == Metric::angular ? 1e-8 : 1e-15))
            << metric_name(metric) << " " << vocabulary << " " << distance;
      }
    }
  }
}

TEST(Divergence, Float32KeepsItsDigitsWhereTheChangeIsSmall) {
  for (int64_t vocabulary :
       {2, 7, 8, 15, 16, 17, 31, 33, 97, 1000, 4099}) {  // lanes are 8 or 16 wide: most do not divide
    const Tensor dense = random_logits(12, vocabulary, 3).to(at::kFloat);
    for (double distance : {1.0, 1e-1, 1e-2, 3e-3}) {
      const Tensor changed = dense + (distance * random_logits(12, vocabulary, 4)).to(at::kFloat);
      for (Metric metric : {Metric::jsd, Metric::ag, Metric::kl, Metric::norm, Metric::ppl}) {
        const double wide = measured(metric, dense.to(at::kDouble), changed.to(at::kDouble));
        if (wide < 1e-6) continue;
        EXPECT_NEAR(measured(metric, dense, changed) / wide, 1, 1e-5)
            << metric_name(metric) << " " << vocabulary << " " << distance << " " << wide;
      }
    }
  }
}

TEST(Divergence, JsdIsBoundedSymmetricAndZeroOnEqualInputs) {
  const Tensor p = random_logits(30, 50, 5), q = random_logits(30, 50, 6);
  EXPECT_GT(measured(Metric::jsd, p, q), 0);
  EXPECT_LE(measured(Metric::jsd, p, q), std::numbers::ln2);
  EXPECT_NEAR(measured(Metric::jsd, p, q), measured(Metric::jsd, q, p), 1e-12);
  EXPECT_NEAR(measured(Metric::ag, p, q), measured(Metric::ag, q, p), 1e-12);
  for (at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const Tensor same = p.to(dtype);
    for (Metric metric : {Metric::jsd, Metric::ag, Metric::kl, Metric::norm})
      EXPECT_EQ(measured(metric, same, same), 0) << metric_name(metric);
    EXPECT_NEAR(measured(Metric::angular, same, same), 0, 1e-3);
    // As far apart as can be: all mass on different tokens.
    const Tensor one = at::zeros({1, 2}, at::kDouble), other = at::zeros({1, 2}, at::kDouble);
    one[0][0] = 80, other[0][1] = 80;
    EXPECT_NEAR(measured(Metric::jsd, one.to(dtype), other.to(dtype)), std::numbers::ln2, 1e-6);
    EXPECT_LE(measured(Metric::jsd, one.to(dtype), other.to(dtype)), std::numbers::ln2 + 1e-12);
  }
}

TEST(Divergence, WhatIsFarApartIsNotLost) {
  for (double gap : {80.0, 118.0, 126.0, 160.0, 250.0}) {
    const Tensor p = at::zeros({1, 40}, at::kDouble), q = at::zeros({1, 40}, at::kDouble);
    p[0][0] = gap, q[0][1] = gap;
    for (Metric metric : {Metric::jsd, Metric::ag, Metric::kl}) {
      const double wide = metric == Metric::jsd  ? std::numbers::ln2
                          : metric == Metric::ag ? gap / 2 - std::numbers::ln2
                                                 : gap;
      EXPECT_NEAR(measured(metric, p.to(at::kFloat), q.to(at::kFloat)) / wide, 1, 1e-4)
          << metric_name(metric) << gap;
    }
  }
}

TEST(Divergence, OutputThatIsNotFiniteIsTheWorst) {
  const Tensor p = random_logits(3, 20, 40);
  Tensor broken = random_logits(3, 20, 41);
  broken[1][4] = std::numeric_limits<double>::quiet_NaN();
  for (at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    for (Metric metric : {Metric::jsd, Metric::ag, Metric::kl, Metric::norm, Metric::ppl})
      EXPECT_EQ(measured(metric, p.to(dtype), broken.to(dtype)), kInfinity) << metric_name(metric);
  }
}

TEST(Divergence, AddingAConstantToALogitRowChangesNoDistribution) {
  const Tensor p = random_logits(10, 33, 7), q = random_logits(10, 33, 8);
  for (Metric metric : {Metric::jsd, Metric::ag, Metric::kl, Metric::ppl}) {
    EXPECT_NEAR(measured(metric, p, q), measured(metric, p + 100, q - 50), 1e-10) << metric_name(metric);
  }
}

TEST(Divergence, AgIsThePublicCodesExpressionTimesTheVocabulary) {
  const Tensor p = random_logits(25, 61, 9), q = random_logits(25, 61, 10);
  const Tensor log_p = at::log_softmax(p, 1), log_q = at::log_softmax(q, 1),
               m = (log_p.exp() + log_q.exp()) / 2;
  const Tensor torch_expression =
      0.5 * (at::kl_div(log_p, m, at::Reduction::Mean) + at::kl_div(log_q, m, at::Reduction::Mean));
  EXPECT_NEAR(measured(Metric::ag, p, q), 61 * torch_expression.item<double>(), 1e-12);
}

TEST(Divergence, AngleIsClampedToARightAngle) {
  const Tensor p = random_logits(4, 20, 11);
  EXPECT_NEAR(measured(Metric::angular, p, -p), std::numbers::pi / 2, 1e-12);
  EXPECT_NEAR(measured(Metric::angular, p, 3 * p), 0, 1e-6);
}

TEST(Divergence, ScoresAreMeansOverSamples) {
  const Tensor p = random_logits(30, 20, 12), q = random_logits(30, 20, 13);
  const std::vector<int32_t> ids = some_ids(15, 20);
  for (Metric metric : kAll) {
    const Divergence divergence(identity(20, at::kDouble), {p.slice(0, 0, 15), p.slice(0, 15)}, {ids, ids},
                                {.metric = metric});
    double score = 0, by_hand = 0;
    for (int64_t s : {0, 1}) {
      score += divergence.term(static_cast<size_t>(s), q.slice(0, 15 * s, 15 * (s + 1)), kInfinity).value;
      by_hand += plain(metric, p.slice(0, 15 * s, 15 * (s + 1)), q.slice(0, 15 * s, 15 * (s + 1)), ids);
    }
    EXPECT_NEAR(score, by_hand / (metric == Metric::ppl || metric == Metric::norm ? 2 : 30), 1e-9 * score)
        << metric_name(metric);
  }
}

TEST(Divergence, TheDenseModelScoresZeroButForItsPerplexity) {
  const Tensor p = random_logits(30, 20, 14);
  for (Metric metric : kAll) {
    const Divergence divergence(identity(20, at::kDouble), {p}, {some_ids(30, 20)}, {.metric = metric});
    EXPECT_NEAR(divergence.dense(), expected(metric, p, p), metric == Metric::ppl ? 1e-9 : 1e-6)
        << metric_name(metric);
  }
}

TEST(Divergence, ReferencesMadeAgainEqualThoseKept) {
  const Tensor weight = random_logits(70, 24, 15), bias = random_logits(1, 70, 16).flatten();
  const Tensor dense = random_logits(300, 24, 17), changed = dense + 0.1 * random_logits(300, 24, 18);
  for (at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    for (const Tensor& b : {bias.to(dtype), Tensor()}) {
      for (Metric metric : kAll) {
        const Linear head{weight.to(dtype), b};
        const Divergence kept(head, {dense.to(dtype)}, {some_ids(300, 70)}, {.metric = metric});
        const Divergence again(head, {dense.to(dtype)}, {some_ids(300, 70)},
                               {.metric = metric, .reference_bytes = 0});
        const double value = kept.term(0, changed.to(dtype), kInfinity).value;
        EXPECT_EQ(value, again.term(0, changed.to(dtype), kInfinity).value) << metric_name(metric);
        const Tensor p = at::linear(dense, weight, b.defined() ? std::optional<Tensor>(bias) : std::nullopt);
        const Tensor q =
            at::linear(changed, weight, b.defined() ? std::optional<Tensor>(bias) : std::nullopt);
        const double wide = expected(metric, p, q);
        EXPECT_NEAR(value / wide, 1, dtype == at::kDouble ? 1e-7 : 1e-3) << metric_name(metric);
      }
    }
  }
}

TEST(Divergence, AnEarlyStopLeavesALowerBound) {
  const Tensor p = random_logits(300, 30, 19), q = random_logits(300, 30, 20);
  for (Metric metric : kAll) {
    const Divergence divergence(identity(30, at::kDouble), {p}, {some_ids(300, 30)}, {.metric = metric});
    const Divergence::Term whole = divergence.term(0, q, kInfinity);
    EXPECT_TRUE(whole.complete);
    EXPECT_EQ(whole.tokens, metric == Metric::ppl ? 299 : 300);
    const Divergence::Term at_once = divergence.term(0, q, 0);
    EXPECT_FALSE(at_once.complete) << metric_name(metric);
    EXPECT_LT(at_once.tokens, 300);
    EXPECT_GT(at_once.value, 0);
    for (double share : {0.3, 0.7, 0.99, 1.01}) {
      const Divergence::Term term = divergence.term(0, q, share * whole.value);
      EXPECT_LE(term.value, whole.value) << metric_name(metric);
      if (term.complete) {
        EXPECT_EQ(term.value, whole.value);
      } else {
        EXPECT_GT(term.value, share * whole.value);
      }
    }
  }
}

// Peaked as a language model's answers are: a shortlist holds most of what is likely.
TEST(Divergence, TheBoundIsBelowAndNotFar) {
  constexpr int64_t kWords = 8192, kWidth = 24, kTokens = 10;
  const Tensor head = random_logits(kWords, kWidth, 31) / 4;
  const Tensor hidden = random_logits(kTokens, kWidth, 32) / 2;
  for (at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    for (Metric metric : {Metric::jsd, Metric::ag, Metric::kl, Metric::ppl}) {
      const Divergence divergence({head.to(dtype), {}}, {hidden.to(dtype)}, {some_ids(kTokens, kWords)},
                                  {.metric = metric});
      for (double distance : {0.0, 1e-4, 0.02, 0.2, 1.0, 3.0}) {
        const Tensor changed = (hidden + distance * random_logits(kTokens, kWidth, 33) / 2).to(dtype);
        const auto bound = divergence.bound({changed});
        ASSERT_TRUE(bound.has_value());
        EXPECT_EQ(bound->words(), kWords / 8);
        const double truth = divergence.term(0, changed, kInfinity).value, least = (*bound)(0, changed);
        EXPECT_LE(least, truth) << metric_name(metric) << " " << distance;
        if (distance >= 0.02) {
          EXPECT_GE(least, 0.6 * truth) << metric_name(metric) << " " << distance;
        }
        // Any shortlist bounds, a bad one too.
        EXPECT_LE((*divergence.bound({-hidden.to(dtype)}))(0, changed), truth) << metric_name(metric);
      }
    }
  }
}

TEST(Divergence, BoundsAreForDivergencesOverLargeVocabularies) {
  const Tensor small = random_logits(3, 97, 34), large = random_logits(3, 5000, 35);
  const Tensor hidden = at::ones({3, 1}, at::kDouble);
  EXPECT_FALSE(Divergence(identity(97, at::kDouble), {small}, {some_ids(3, 97)}, {.metric = Metric::jsd})
                   .bound({small}));
  for (Metric metric : {Metric::norm, Metric::angular}) {
    const Linear head{large.narrow(0, 0, 1).t().contiguous(), {}};
    EXPECT_FALSE(Divergence(head, {hidden}, {some_ids(3, 5000)}, {.metric = metric}).bound({hidden}));
  }
}

TEST(Metric, NamesGoBothWays) {
  for (Metric metric : kAll) EXPECT_EQ(metric_from_name(metric_name(metric)), metric);
  EXPECT_THROW(metric_from_name("mse"), Error);
}

// A model whose next token depends on the last one alone: windows and caches cannot change its likelihoods,
// so every difference is a token scored twice or not at all.
class Markov : public Model {
 public:
  static Blueprint speaking(int64_t vocabulary) {
    Blueprint blueprint;
    blueprint.vocabulary = vocabulary;
    return blueprint;
  }
  explicit Markov(int64_t vocabulary)
      : Model(speaking(vocabulary), at::kDouble), table_(random_logits(vocabulary, vocabulary, 21)) {
    head_ = identity(vocabulary, at::kDouble);
  }
  Stream begin(const Inputs& inputs) const override {
    return {.x = at::embedding(table_, inputs.ids), .shared = {}, .padding = {}, .cache = inputs.cache};
  }
  void step(Stream&, Site, Tap&) const override {}
  Tensor read_out(const Stream& stream, Tap&) const override { return stream.x; }
  double nll(int32_t from, int32_t to) const { return -at::log_softmax(table_[from], 0)[to].item<double>(); }
  Tensor chances(int32_t from) const { return at::softmax(table_[from], 0); }

 private:
  Tensor table_;
};

// As transformers' own recipe has it: with windows that do not overlap, the first token of each is context
// only.
TEST(Perplexity, ScoresEveryTokenWithOneBeforeItOnce) {
  const Markov model(23);
  Tap none;
  for (int64_t count : {2, 3, 7, 16, 17, 100}) {
    const std::vector<int32_t> ids = some_ids(count, 23);
    for (const auto& [length, stride] : std::vector<std::pair<int64_t, int64_t>>{
             {2, 1}, {2, 2}, {8, 1}, {8, 3}, {8, 7}, {8, 8}, {16, 16}, {64, 32}, {1024, 512}}) {
      double nll = 0;
      int64_t scored = 0;
      for (int64_t i = 1; i < count; ++i) {
        if (stride == length && i % stride == 0) continue;
        nll += model.nll(ids[static_cast<size_t>(i - 1)], ids[static_cast<size_t>(i)]);
        ++scored;
      }
      nll /= static_cast<double>(scored);
      const Perplexity result = perplexity(model, ids, {.length = length, .stride = stride}, none);
      EXPECT_EQ(result.tokens, scored) << count << " " << length << " " << stride;
      EXPECT_NEAR(result.nll, nll, 1e-10) << count << " " << length << " " << stride;
      EXPECT_NEAR(result.value, std::exp(nll), 1e-8);
      EXPECT_TRUE(std::isfinite(result.stderr_nll)) << count << " " << length << " " << stride;
    }
  }
}

// The mean weighs windows by their tokens, and so must its error, or a short window at the end makes it
// anything: of windows that do not overlap, each is also a text of its own.
TEST(Perplexity, ItsErrorWeighsWindowsAsTheMeanDoes) {
  const Markov model(23);
  Tap none;
  for (int64_t count : {40, 34, 35, 49, 200}) {  // 34: a window of one scored token at the end
    const std::vector<int32_t> ids = some_ids(count, 23);
    const Perplexity whole = perplexity(model, ids, {.length = 16, .stride = 16}, none);
    double squares = 0, windows = 0;
    for (int64_t begin = 0; begin + 1 < count; begin += 16) {
      const std::vector<int32_t> window(ids.begin() + begin, ids.begin() + std::min(begin + 16, count));
      const Perplexity one = perplexity(model, window, {.length = 16, .stride = 16}, none);
      const double off = static_cast<double>(one.tokens) * (one.nll - whole.nll);
      squares += off * off;
      ++windows;
    }
    EXPECT_NEAR(whole.stderr_nll,
                std::sqrt(windows / (windows - 1) * squares) / static_cast<double>(whole.tokens), 1e-12)
        << count;
    EXPECT_GT(whole.stderr_nll, 0) << count;
  }
}

TEST(Perplexity, ThreadsDoNotChangeIt) {
  const Markov model(23);
  Tap none;
  const std::vector<int32_t> ids = some_ids(200, 23);
  const Perplexity one = perplexity(model, ids, {.length = 16, .stride = 5, .threads = 1}, none);
  const Perplexity two = perplexity(model, ids, {.length = 16, .stride = 5, .threads = 2}, none);
  EXPECT_EQ(one.nll, two.nll);
  EXPECT_EQ(one.stderr_nll, two.stderr_nll);
  EXPECT_EQ(one.windows, two.windows);
}

TEST(Perplexity, UsesAsManyTokensAsAsked) {
  const Markov model(23);
  Tap none;
  EXPECT_EQ(perplexity(model, some_ids(100, 23), {.length = 16, .stride = 8, .max_tokens = 40}, none).tokens,
            39);
  EXPECT_EQ(perplexity(model, some_ids(30, 23), {.length = 16, .stride = 8, .max_tokens = 40}, none).tokens,
            29);
}

TEST(Perplexity, RefusesWhatHasNoAnswer) {
  const Markov model(23);
  Tap none;
  EXPECT_THROW(perplexity(model, {1}, {}, none), Error);
  EXPECT_THROW(perplexity(model, {}, {}, none), Error);
  for (const auto& [length, stride] : {std::pair{1, 1}, {8, 0}, {8, 9}, {8, -1}}) {
    EXPECT_THROW(perplexity(model, {1, 2, 3}, {.length = length, .stride = stride}, none), Error);
  }
}

TEST(Perplexity, StopsWhenAsked) {
  const Markov model(23);
  Tap none;
  std::stop_source source;
  source.request_stop();
  for (int threads : {1, 2})
    EXPECT_THROW(
        perplexity(model, {1, 2, 3}, {.threads = threads}, none, {.tick = {}, .stop = source.get_token()}),
        Stopped);
}

TEST(Generate, TakesTheLikeliestAtTemperatureZero) {
  const Markov model(23);
  Tap none;
  const Generated text = generate(model, {4}, {.tokens = 12}, none);
  int32_t last = 4;
  ASSERT_EQ(text.ids.size(), 12U);
  for (int32_t id : text.ids) {
    EXPECT_EQ(id, model.chances(last).argmax().item<int64_t>());
    last = id;
  }
  EXPECT_EQ(generate(model, {4}, {.tokens = 12, .temperature = 2, .top_k = 1}, none).ids, text.ids);
  EXPECT_EQ(generate(model, {4}, {.tokens = 12, .temperature = 2, .top_p = 1e-9}, none).ids, text.ids);
  EXPECT_EQ(generate(model, {4}, {.tokens = 12, .cache = false}, none).ids, text.ids);
}

TEST(Generate, ASeedMakesTheTextAgain) {
  const Markov model(23);
  Tap none;
  const auto text = [&](uint64_t seed) {
    return generate(model, {4}, {.tokens = 30, .temperature = 1.5, .seed = seed}, none).ids;
  };
  EXPECT_EQ(text(1), text(1));
  EXPECT_NE(text(1), text(2));
}

TEST(Generate, SamplesAsOftenAsTheModelSays) {
  const Markov model(5);
  Tap none;
  const Tensor chances = model.chances(2);
  std::vector<int> seen(5);
  constexpr int kDraws = 2000;
  for (uint64_t seed = 0; seed < kDraws; ++seed)
    ++seen[static_cast<size_t>(
        generate(model, {2}, {.tokens = 1, .temperature = 1, .seed = seed}, none).ids.at(0))];
  for (int64_t id = 0; id < 5; ++id) {
    const double chance = chances[id].item<double>();
    EXPECT_NEAR(seen[static_cast<size_t>(id)] / static_cast<double>(kDraws), chance,
                5 * std::sqrt(chance * (1 - chance) / kDraws) + 1e-9)
        << id;
  }
}

TEST(Generate, TopKAndTopPLeaveTheRestOut) {
  const Markov model(23);
  Tap none;
  const auto [sorted, order] = model.chances(4).sort(0, true);
  const double two = (sorted[0] + sorted[1]).item<double>();
  std::set<int32_t> by_count, by_mass;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    by_count.insert(
        generate(model, {4}, {.tokens = 1, .temperature = 1, .top_k = 2, .seed = seed}, none).ids.at(0));
    by_mass.insert(
        generate(model, {4}, {.tokens = 1, .temperature = 1, .top_p = two - 1e-6, .seed = seed}, none)
            .ids.at(0));
  }
  for (int32_t id : by_count) EXPECT_TRUE(id == order[0].item<int64_t>() || id == order[1].item<int64_t>());
  EXPECT_EQ(by_count, by_mass);
}

TEST(Generate, EndsAtAStopTokenOrWhenTold) {
  const Markov model(23);
  Tap none;
  const std::vector<int32_t> text = generate(model, {4}, {.tokens = 12}, none).ids;
  const auto first_of = [&](int32_t id) { return std::ranges::find(text, id) - text.begin(); };
  EXPECT_EQ(generate(model, {4}, {.tokens = 12, .stop = {text[2]}}, none).ids.size(),
            static_cast<size_t>(first_of(text[2])));
  int shown = 0;
  EXPECT_EQ(
      generate(model, {4}, {.tokens = 12, .stop = {}, .on_token = [&](int32_t) { return ++shown < 3; }}, none)
          .ids.size(),
      3U);
  EXPECT_TRUE(generate(model, {4}, {.tokens = 0}, none).ids.empty());
  EXPECT_THROW(generate(model, {}, {}, none), Error);
}

}  // namespace
}  // namespace lamina
