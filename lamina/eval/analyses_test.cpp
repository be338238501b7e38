// The analyses against their definitions, written out once more without any of their shortcuts, on tiny
// random models of every architecture in float64.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/data/byte_level.h"
#include "lamina/eval/analyses.h"
#include "tests/laws/tiny.h"

namespace lamina {
namespace {

using testing::HasSubstr;
using tiny::Tiny;

// Every norm divides by a constant, `times` what is divided by on average: far from that, the residuals of
// random weights run away.
class Held : public Tap {
 public:
  Held(const Model& model, double times) {
    class Mean : public Tap {
     public:
      bool reads_norm(Site) const override { return true; }
      Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
        by[path] = norm.scale(x).mean().item<double>();
        return norm(x);
      }
      std::map<NormPath, double> by;
    } mean;
    tiny::logits(model, tiny::tokens(24, model.blueprint().vocabulary, 5), mean);
    by_ = std::move(mean.by);
    for (auto& [path, by] : by_) by *= times;
  }
  bool reads_norm(Site) const override { return true; }
  Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
    return norm.held(x, by_.at(path));
  }

 private:
  std::map<NormPath, double> by_;
};

class Every : public testing::TestWithParam<const Architecture*> {
 protected:
  Every() : tiny(*GetParam(), {.seed = 3}), model(*tiny.model) {
    for (uint64_t s = 0; s < 3; ++s) samples.push_back(tiny::tokens(14, vocabulary(), 40 + s));
  }
  int64_t vocabulary() const { return tiny.opened.blueprint.vocabulary; }
  Tensor logits(const std::vector<int32_t>& ids, Tap& tap) const { return tiny::logits(model, ids, tap)[0]; }
  // Mean cross-entropy of all samples, from whole logits.
  double loss(Tap& tap) const {
    double sum = 0, count = 0;
    for (const std::vector<int32_t>& ids : samples) {
      const Tensor log_p = logits(ids, tap).log_softmax(-1);
      for (size_t t = 0; t + 1 < ids.size(); ++t, ++count)
        sum -= log_p[static_cast<int64_t>(t)][ids[t + 1]].item<double>();
    }
    return sum / count;
  }
  Tiny tiny;
  const Model& model;
  Samples samples;
};

INSTANTIATE_TEST_SUITE_P(Architecture, Every, testing::ValuesIn(tiny::listed()),
                         [](const auto& info) { return std::string(info.param->name); });

// ---- attribution

TEST_P(Every, AttributionIsTheDirectEffectWhereScalesAreHeld) {
  Held held(model, 1.7);
  Tap none;
  for (const auto target : {AttributionOptions::Target::next, AttributionOptions::Target::last_input}) {
    const Attribution frozen = attribution(model, samples, {.target = target}, held),
                      live = attribution(model, samples, {.target = target}, none);
    EXPECT_LT(frozen.head_mean, 1e-9);
    EXPECT_LT(frozen.global.value, 1e-9);
    EXPECT_GT(live.head_mean, 1e-3);
    EXPECT_GT(live.global.value, 1e-3);
    EXPECT_LE(live.global.low, live.global.value);
    EXPECT_GE(live.global.high, live.global.value);
    EXPECT_LT(live.global.low, live.global.high);
    EXPECT_EQ(live.heads.size(), 4U * 6U);  // blocks, heads
    for (const Attribution::Head& head : live.heads) EXPECT_EQ(head.direct.size(), samples.size());
  }
}

// What a part wrote at the last position, and the residual that the head reads.
class Written : public Tap {
 public:
  void saw(Site site, const Tensor& before, const Tensor& after) override {
    parts[site] = (after - before)[0][-1];
  }
  bool reads_heads(Site) const override { return true; }
  void saw_heads(Site site, const Heads& heads) override { bias[site] = heads.out.bias; }
  void saw_end(const Tensor& residual, const Tensor&) override { end = residual[0][-1]; }
  bool reads_norm(Site site) const override { return site == Site{}; }
  Tensor norm(const NormPath&, const Norm& seen, const Tensor& x) override {
    last = seen;
    return seen(x);
  }
  std::map<Site, Tensor> parts, bias;
  Tensor end;
  Norm last;
};

// The last token is read away and predicted; its row of the head is made here by hand.
TEST_P(Every, HeadsAndTheBiasAddUpToTheirPart) {
  Tap none;
  const Attribution measured = attribution(model, samples, {}, none);
  for (size_t s = 0; s < samples.size(); ++s) {
    std::vector<int32_t> read = samples[s];
    const int32_t target = read.back();
    read.pop_back();
    Written written;
    logits(read, written);
    const Norm& norm = written.last;
    const Tensor one_hot = at::zeros({vocabulary()}, at::kDouble);
    one_hot[target] = 1;
    const Linear& head = model.head();
    const Tensor w = at::matmul(one_hot, head.in_out ? head.weight.t() : head.weight);
    std::map<Site, double> sums;
    for (const Attribution::Head& one : measured.heads) sums[one.site] += one.attributed[s];
    ASSERT_EQ(sums.size(), 4U);
    for (const auto& [site, sum] : sums) {
      Tensor piece = written.parts.at(site);
      if (const Tensor& bias = written.bias.at(site); bias.defined()) piece = piece - bias;
      const Tensor centred = norm.centred ? piece - piece.mean() : piece;
      const double expected = (centred / norm.scale(written.end) * norm.gain * w).sum().item<double>();
      EXPECT_NEAR(sum, expected, 1e-10 * (1 + std::abs(expected))) << tiny.opened.blueprint.part(site).path;
    }
  }
}

// One head's direct effect, by a pass from which that head's output was truly taken away at the end.
TEST_P(Every, TheDirectEffectIsWhatIsMissingFromTheLogit) {
  class Head : public Tap {
   public:
    bool reads_heads(Site) const override { return true; }
    void saw_heads(Site at, const Heads& heads) override {
      if (at.index != 2) return;
      Tensor mixed = at::zeros_like(heads.mixed);
      mixed.select(1, 4).copy_(heads.mixed.select(1, 4));
      Linear out = heads.out;
      out.bias = Tensor();
      wrote = out(from_heads(mixed));
    }
    Tensor wrote;
  } tap;
  std::vector<int32_t> read = samples[0];
  const int32_t target = read.back();
  read.pop_back();
  Tap none;
  const Attribution measured = attribution(model, samples, {}, none);
  const InferenceMode evaluating;
  Stream stream = model.begin({.ids = tiny::batch(read)});
  for (Site site : model.blueprint().present()) model.step(stream, site, tap);
  const double with = model.finish(stream, none)[0][-1][target].item<double>();
  stream.x = stream.x - tap.wrote;
  const double without = model.finish(stream, none)[0][-1][target].item<double>();
  const Attribution::Head& head = measured.heads.at(1 * 6 + 4);
  EXPECT_EQ(head.site.index, 2);
  EXPECT_EQ(head.block, 1);
  EXPECT_EQ(head.head, 4);
  EXPECT_NEAR(head.direct[0], with - without, 1e-9);
}

Json without_last_norm(const Architecture& architecture) {
  Json config = architecture.tiny();
  config["tie_word_embeddings"] = false;
  config["lamina_norms_removed"] = {{"attention", Json::array()}, {"mlp", Json::array()}, {"final", true}};
  return config;
}

TEST_P(Every, AModelWithoutALastNormIsLinearAtTheEnd) {
  const Tiny bare(*GetParam(), {.seed = 5, .config = without_last_norm(*GetParam())});
  ASSERT_TRUE(bare.opened.blueprint.final_norm.empty());
  Tap none;
  const Attribution direct = attribution(*bare.model, samples, {}, none);
  EXPECT_LT(direct.head_mean, 1e-10);
  EXPECT_GT(std::abs(direct.heads[0].direct[0]), 1e-6);
  const NeuronEffects effects = neuron_effects(*bare.model, samples, {}, none);
  for (const NeuronEffects::Neuron& neuron : effects.neurons) {
    EXPECT_EQ(neuron.total.cross_entropy, neuron.frozen.cross_entropy);
    EXPECT_NE(neuron.total.moved, 0);
  }
}

// ---- neurons

TEST_P(Every, WhatNeuronsWriteIsTheirColumn) {
  for (Site site : model.blueprint().with_neurons()) {
    const Neurons& neurons = *model.blueprint().part(site).neurons;
    const InferenceMode evaluating;
    Tensor down = load(*tiny.opened.checkpoint.find(neurons.down + ".weight"), at::kDouble);
    if (down.size(0) != neurons.count) down = down.t();  // [out, in]
    EXPECT_LT(tiny::greatest_difference(written_by_neurons(model, site), down), 1e-12);
  }
}

// Holds neurons of the last feed-forward at given values; sees them all.
class Mean : public Tap {
 public:
  explicit Mean(Site site) : site_(site) {}
  bool reads_neurons(Site site) const override { return site == site_; }
  Tensor neurons(Site, NeuronPlace place, const Tensor& values) override {
    if (place != NeuronPlace::post) return values;
    seen.push_back(values[0].clone());
    Tensor held = values.clone();
    for (const auto& [neuron, value] : at) held.select(2, neuron).fill_(value);
    return held;
  }
  std::map<int64_t, double> at;
  std::vector<Tensor> seen;

 private:
  Site site_;
};

TEST_P(Every, NeuronsAreRankedAndHeldAsDefined) {
  Tap none;
  const NeuronEffects effects = neuron_effects(model, samples, {.top = 4}, none);
  ASSERT_EQ(effects.neurons.size(), 4U);
  const Site site = model.blueprint().with_neurons().back();
  EXPECT_EQ(effects.site, site);
  EXPECT_NEAR(effects.cross_entropy, loss(none), 1e-10);

  Written written;
  logits(samples[0], written);
  const InferenceMode evaluating;
  Tensor rows = model.head().in_out ? model.head().weight.t() : model.head().weight;
  rows = rows * written.last.gain;
  if (written.last.centred) rows = rows - rows.mean(1, true);
  const Tensor out = written_by_neurons(model, site);
  std::vector<double> scores;
  for (int64_t n = 0; n < out.size(0); ++n) {
    const Tensor cosine = at::matmul(rows, out[n]) / rows.norm(2, 1) / out[n].norm();
    scores.push_back(out[n].norm().item<double>() / cosine.var().item<double>());
  }
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, std::greater(), [&](int64_t n) { return scores[static_cast<size_t>(n)]; });

  Mean watching(site);
  const double before = loss(watching);
  const Tensor mean = at::cat(watching.seen, 0).mean(0);
  Mean together(site);
  for (size_t k = 0; k < 4; ++k) {
    const NeuronEffects::Neuron& neuron = effects.neurons[k];
    EXPECT_EQ(neuron.neuron, order[k]);
    EXPECT_NEAR(neuron.score / scores[static_cast<size_t>(order[k])], 1, 1e-8);
    EXPECT_NEAR(neuron.mean, mean[order[k]].item<double>(), 1e-12);
    Mean holding(site);
    holding.at[order[k]] = together.at[order[k]] = mean[order[k]].item<double>();
    EXPECT_NEAR(neuron.total.cross_entropy, loss(holding) - before, 1e-10);
    EXPECT_GE(neuron.total.moved, std::abs(neuron.total.cross_entropy));
    EXPECT_GT(std::abs(neuron.total.cross_entropy - neuron.frozen.cross_entropy), 1e-9);
  }
  EXPECT_NEAR(effects.total_together.cross_entropy, loss(together) - before, 1e-10);
}

TEST_P(Every, HeldScalesMakeTotalAndFrozenEffectsOne) {
  Held held(model, 1.3);
  const NeuronEffects effects = neuron_effects(model, samples, {}, held);
  EXPECT_NEAR(effects.cross_entropy, loss(held), 1e-10);
  for (const NeuronEffects::Neuron& neuron : effects.neurons) {
    EXPECT_NEAR(neuron.total.cross_entropy, neuron.frozen.cross_entropy, 1e-10);
    EXPECT_NEAR(neuron.total.entropy, neuron.frozen.entropy, 1e-10);
    EXPECT_NEAR(neuron.total.moved, neuron.frozen.moved, 1e-10);
    EXPECT_GT(neuron.total.moved, 1e-9);
  }
}

TEST_P(Every, TheLastFeedForwardIsTheLastThatRuns) {
  const std::vector<Site> sites = model.blueprint().with_neurons();
  Skip skip(model.blueprint());
  skip.add(sites.back());
  const NeuronEffects effects = neuron_effects(model, samples, {.top = 1}, skip);
  EXPECT_EQ(effects.site, sites[sites.size() - 2]);
  EXPECT_EQ(effects.part, model.blueprint().part(effects.site).path);
  for (Site site : sites) skip.add(site);
  EXPECT_EQ(neuron_effects(model, samples, {}, skip).site, Site{});
}

// ---- patching

// The metric of the corrupted run with `x` as its residual before the part `first`.
double metric_from(const Model& model, const PromptPair& pair, int first, const Tensor& x, Tap& tap) {
  const InferenceMode evaluating;
  Stream stream = model.begin({.ids = tiny::batch(pair.corrupted)});
  stream.x = x;
  for (Site site : model.blueprint().present()) {
    if (site.index >= first) model.step(stream, site, tap);
  }
  const Tensor last = model.finish(stream, tap)[0][-1];
  return (last[pair.answer] - last[pair.other]).item<double>();
}
Tensor residual(const Model& model, const std::vector<int32_t>& ids, int before, Tap& tap) {
  const InferenceMode evaluating;
  Stream stream = model.begin({.ids = tiny::batch(ids)});
  for (Site site : model.blueprint().present()) {
    if (site.index < before) model.step(stream, site, tap);
  }
  return stream.x;
}

std::vector<PromptPair> two_pairs(int64_t vocabulary) {
  std::vector<PromptPair> pairs;
  for (uint64_t s : {8U, 9U}) {
    PromptPair pair{tiny::tokens(9, vocabulary, s), {}, 5, 11};
    pair.corrupted = pair.clean;
    pair.corrupted[4] = (pair.clean[4] + 1) % static_cast<int32_t>(vocabulary);
    pair.corrupted[6] = (pair.clean[6] + 7) % static_cast<int32_t>(vocabulary);
    pairs.push_back(pair);
  }
  return pairs;
}

// A caller's tap decides in front of the analyses' own, on the very neurons that they hold too.
TEST_P(Every, ACallersTapOnTheSameNeuronsIsHonoured) {
  class Half : public Tap {
   public:
    bool reads_neurons(Site) const override { return true; }
    Tensor neurons(Site, NeuronPlace place, const Tensor& values) override {
      return place == NeuronPlace::post ? values * 0.5 : values;
    }
    bool reads_heads(Site) const override { return true; }
    void saw_heads(Site, const Heads&) override { ++heads; }
    void saw(Site, const Tensor&, const Tensor&) override { ++parts; }
    int heads = 0, parts = 0;
  } half;
  Tap none;
  EXPECT_GT(std::abs(loss(half) - loss(none)), 1e-3);
  const NeuronEffects effects = neuron_effects(model, samples, {.top = 1}, half);
  EXPECT_NEAR(effects.cross_entropy, loss(half), 1e-10);
  EXPECT_NEAR(calibration(model, samples, {}, half).cross_entropy, loss(half), 1e-10);
  half.heads = half.parts = 0;
  attribution(model, samples, {}, half);
  EXPECT_EQ(half.heads, 4 * 3);
  EXPECT_EQ(half.parts, 8 * 3);
  sinks(model, samples, {}, half);
  EXPECT_EQ(half.heads, 2 * 4 * 3);
  EXPECT_EQ(half.parts, 2 * 8 * 3);
  const Patching plain = patching(model, two_pairs(vocabulary()), none),
                 changed = patching(model, two_pairs(vocabulary()), half);
  EXPECT_GT(std::abs(plain.clean - changed.clean), 1e-6);
}

TEST_P(Every, AModelWithoutAttentionOrNeuronsHasNothingToShow) {
  AnalysisData data{.text = samples};
  for (Kind kind : {Kind::attention, Kind::mlp}) {
    Skip skip(model.blueprint());
    for (Site site : model.blueprint().present()) {
      if (model.blueprint().part(site).kind == kind) skip.add(site);
    }
    const std::vector<Arm> arms = {{"without", analyse(model, data, {}, skip)}};
    EXPECT_EQ(arms[0].analyses.attribution.heads.empty(), kind == Kind::attention);
    EXPECT_EQ(arms[0].analyses.neurons.neurons.empty(), kind == Kind::mlp);
    EXPECT_EQ(arms[0].analyses.sinks.rows.size(), 4U);
    const report::Report whole{.title = "Analyses", .sections = analysis_sections(arms)};
    report::check(whole);
    EXPECT_EQ(report::to_html(whole).find("nan"), std::string::npos);
    EXPECT_NE(to_json(arms[0].analyses).dump(), "");
  }
}

TEST_P(Every, PatchingIsWhatItsFormulasSay) {
  Tap none;
  const std::vector<PromptPair> pairs = two_pairs(vocabulary());
  const Patching measured = patching(model, pairs, none);
  ASSERT_EQ(measured.rows.size(), 4U);
  double clean = 0, corrupted = 0;
  std::map<int, std::vector<double>> act, attr;
  for (const PromptPair& pair : pairs) {
    const Tensor good_start = residual(model, pair.clean, 0, none),
                 bad_start = residual(model, pair.corrupted, 0, none);
    clean += metric_from(model, pair, 0, good_start, none) / 2;
    const double bad = metric_from(model, pair, 0, bad_start, none);
    corrupted += bad / 2;
    for (int block = 0; block < 4; ++block) {
      const Tensor from = residual(model, pair.corrupted, 2 * block, none),
                   to = residual(model, pair.clean, 2 * block, none);
      act[block].resize(9), attr[block].resize(9);
      for (int64_t p = 0; p < 9; ++p) {
        const auto moved = [&](double share) {
          const InferenceMode evaluating;
          Tensor x = from.clone();
          x[0][p] += share * (to[0][p] - from[0][p]);
          return metric_from(model, pair, 2 * block, x, none);
        };
        constexpr double kStep = 1e-5;
        act[block][static_cast<size_t>(p)] += (moved(1) - bad) / 2;
        attr[block][static_cast<size_t>(p)] += (moved(kStep) - moved(-kStep)) / (2 * kStep) / 2;
      }
    }
  }
  EXPECT_NEAR(measured.clean, clean, 1e-9);
  EXPECT_NEAR(measured.corrupted, corrupted, 1e-9);
  double mean = 0;
  for (const Patching::Row& row : measured.rows) {
    double error = 0;
    for (size_t p = 0; p < 9; ++p) {
      const double whole = clean - corrupted;
      EXPECT_NEAR(row.activation[p], act[row.block][p] / whole, 1e-9 / std::abs(whole))
          << row.block << " " << p;
      EXPECT_NEAR(row.attribution[p], attr[row.block][p] / whole, 1e-5 / std::abs(whole))
          << row.block << " " << p;
      error += std::abs(row.attribution[p] - row.activation[p]);
    }
    EXPECT_NEAR(row.error, error, 1e-12 * (1 + error));
    EXPECT_GT(row.error, 1e-3);
    mean += row.error / 4;
  }
  EXPECT_NEAR(measured.error, mean, 1e-12 * (1 + mean));
}

// With its parts left out and its last norm held, what follows the third block is linear.
TEST_P(Every, PatchingIsExactWhereWhatFollowsIsLinear) {
  class Rest : public Held {
   public:
    explicit Rest(const Model& model) : Held(model, 1.1) {}
    bool skips(Site site) const override { return site.index >= 4; }
  } linear(model);
  const Patching measured = patching(model, two_pairs(vocabulary()), linear);
  ASSERT_EQ(measured.rows.size(), 4U);
  EXPECT_GT(measured.rows[0].error, 1e-6);
  EXPECT_GT(measured.rows[1].error, 1e-6);
  for (size_t row : {2U, 3U}) {
    EXPECT_LT(measured.rows[row].error, 1e-9);
    // The last position alone is read, and it was patched whole.
    EXPECT_NEAR(measured.rows[row].activation.back(), 1, 1e-9);
  }
}

TEST_P(Every, PatchingLeavesTheGradientsOfWeightsAloneAndAsksForNoMode) {
  std::map<std::string, Tensor> trained;
  for (const Stored& stored : tiny.opened.checkpoint.tensors)
    trained[stored.name] = load(stored, at::kDouble).clone().set_requires_grad(true);
  const auto student = build_model(tiny.opened, {.dtype = at::kDouble, .trained = trained});
  Tap none;
  const Patching plain = patching(model, two_pairs(vocabulary()), none),
                 same = patching(*student, two_pairs(vocabulary()), none);
  for (const auto& [name, tensor] : trained) EXPECT_FALSE(tensor.grad().defined()) << name;
  const InferenceMode evaluating;
  const Patching inside = patching(model, two_pairs(vocabulary()), none);
  EXPECT_NEAR(plain.error, same.error, 1e-12);
  EXPECT_EQ(plain.error, inside.error);
}

// ---- sinks

TEST_P(Every, SinksAreCountedFromWholeMatricesOfAttention) {
  class Looks : public Tap {
   public:
    bool reads_heads(Site) const override { return true; }
    void saw_heads(Site, const Heads& seen) override {
      weights.push_back(attention_weights(seen.queries, seen.keys, seen.options)[0]);  // [heads, q, k]
    }
    void saw(Site site, const Tensor& before, const Tensor&) override {
      if (site.index % 2 == 0) norms[site.index / 2] = before[0].norm(2, 1);
    }
    std::vector<Tensor> weights;
    std::map<int, Tensor> norms;
  };
  Tap none;
  const Sinks measured = sinks(model, samples, {.threshold = 0.2}, none);
  double queries = 0, heads = 0;
  std::map<int, double> first, rest;
  for (const std::vector<int32_t>& ids : samples) {
    Looks tap;
    logits(ids, tap);
    double looked = 0, sunk = 0;
    for (const Tensor& head : at::cat(tap.weights, 0).unbind(0)) {
      double sum = 0;
      for (int64_t t = 0; t < head.size(0); ++t) {
        const double share = head[t][0].item<double>();
        looked += share > 0.2 ? 1 : 0;
        sum += share;
      }
      sunk += sum / static_cast<double>(head.size(0)) > 0.2 ? 1 : 0;
    }
    queries += looked / (24 * 14) / 3;
    heads += sunk / 24 / 3;
    for (const auto& [block, norms] : tap.norms) {
      first[block] += norms[0].item<double>() / 3;
      rest[block] += norms.narrow(0, 1, 13).mean().item<double>() / 3;
    }
  }
  EXPECT_NEAR(measured.queries.value, queries, 1e-12);
  EXPECT_NEAR(measured.heads.value, heads, 1e-12);
  EXPECT_GE(queries, 1.0 / 14);
  ASSERT_EQ(measured.rows.size(), 4U);
  for (const Sinks::Row& row : measured.rows) {
    EXPECT_NEAR(row.first, first[row.block], 1e-10);
    EXPECT_NEAR(row.rest, rest[row.block], 1e-10);
  }
}

// Queries and keys that are all alike look everywhere alike: position t gives position 0 the share 1 / (t +
// 1).
TEST(Sinks, OfEvenAttention) {
  class Even : public Tap {
   public:
    bool reads_norm(Site) const override { return true; }
    Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
      return path.reader == Reader::qk ? at::zeros_like(x) : norm(x);
    }
  } even;
  for (const Architecture* architecture : tiny::listed()) {
    if (architecture->name != "GPT2LMHeadModel") continue;
    const Tiny tiny(*architecture);
    const auto measured = [&](int64_t count) {
      return sinks(*tiny.model, {tiny::tokens(count, 97, 1)}, {}, even);
    };
    EXPECT_NEAR(measured(6).queries.value, 0.5, 1e-12);  // t = 0, 1, 2
    EXPECT_NEAR(measured(20).queries.value, 0.15, 1e-12);
    EXPECT_EQ(measured(6).heads.value, 1);   // the mean is 0.41
    EXPECT_EQ(measured(20).heads.value, 0);  // the mean is 0.18
  }
}

// ---- calibration and tails

Tensor log_of(const std::vector<std::vector<double>>& rows) {
  std::vector<Tensor> stacked;
  for (const auto& row : rows) stacked.push_back(at::tensor(row, at::kDouble).log());
  return at::stack(stacked);
}

TEST(Calibration, ByHand) {
  // A head that hands the logits through; the shift by a constant changes nothing.
  const Linear head{.weight = at::eye(3, at::kDouble)};
  const Tensor logits =
      log_of({{0.7, 0.2, 0.1}, {0.25, 0.5, 0.25}, {0.69, 0.01, 0.3}, {1.0, 1e-300, 1e-300}}) + 3;
  const std::vector<TokenScore> scores = token_scores(head, logits, {2, 0, 0, 2, 0});
  ASSERT_EQ(scores.size(), 4U);
  const auto entropy = [](std::initializer_list<double> p) {
    double sum = 0;
    for (double x : p) sum -= x > 0 ? x * std::log(x) : 0;
    return sum;
  };
  EXPECT_NEAR(scores[0].loss, -std::log(0.7), 1e-12);
  EXPECT_NEAR(scores[1].loss, -std::log(0.25), 1e-12);
  EXPECT_NEAR(scores[2].loss, -std::log(0.3), 1e-12);
  EXPECT_NEAR(scores[3].loss, 0, 1e-12);
  EXPECT_NEAR(scores[0].entropy, entropy({0.7, 0.2, 0.1}), 1e-12);
  EXPECT_NEAR(scores[1].entropy, 1.5 * std::log(2), 1e-12);
  EXPECT_NEAR(scores[3].entropy, 0, 1e-12);
  EXPECT_NEAR(scores[2].confidence, 0.69, 1e-12);
  EXPECT_TRUE(scores[0].right);
  EXPECT_FALSE(scores[1].right);
  EXPECT_FALSE(scores[2].right);
  EXPECT_TRUE(scores[3].right);
  EXPECT_EQ(scores[2].position, 3);
  EXPECT_EQ(scores[2].token, 2);

  const Calibration c = calibration(scores);
  ASSERT_EQ(c.bins.size(), 15U);
  // 0.69 and 0.7 share the bin (10/15, 11/15]: half right, 0.695 sure. 0.5 is in (7/15, 8/15], 1 in the last.
  EXPECT_EQ(c.bins[10].tokens, 2);
  EXPECT_EQ(c.bins[7].tokens, 1);
  EXPECT_EQ(c.bins[14].tokens, 1);
  EXPECT_NEAR(c.error, 0.5 * (0.695 - 0.5) + 0.25 * 0.5, 1e-12);
  EXPECT_NEAR(c.accuracy, 0.5, 1e-12);
  EXPECT_NEAR(c.cross_entropy, -(std::log(0.7) + std::log(0.25) + std::log(0.3)) / 4, 1e-12);
  // Two bins: 0.5 is the upper end of the first.
  EXPECT_NEAR(calibration(scores, {.bins = 2}).error, 0.25 * 0.5 + 0.75 * ((0.7 + 0.69 + 1) / 3 - 2.0 / 3),
              1e-12);
}

// Bins take their upper ends: (0, 1/2] and (1/2, 1].
TEST(Calibration, AnEdgeBelongsToTheBinBelow) {
  const std::vector<TokenScore> scores = {{.confidence = 0.5, .right = true},
                                          {.confidence = 1, .right = false}};
  const Calibration c = calibration(scores, {.bins = 2});
  EXPECT_EQ(c.bins[0].tokens, 1);
  EXPECT_EQ(c.bins[1].tokens, 1);
  EXPECT_NEAR(c.error, 0.5 * 0.5 + 0.5 * 1, 1e-15);
}

TEST_P(Every, ScoresAreThoseOfWholeLogits) {
  Held held(model, 1.4);
  const std::vector<TokenScore> scores = token_scores(model, samples, held);
  ASSERT_EQ(scores.size(), 3U * 13U);
  for (const TokenScore& score : scores) {
    const std::vector<int32_t>& ids = samples[static_cast<size_t>(score.sample)];
    EXPECT_EQ(score.token, ids[static_cast<size_t>(score.position)]);
    const Tensor p = logits(ids, held)[score.position - 1].softmax(-1);
    EXPECT_NEAR(score.loss, -p[score.token].log().item<double>(), 1e-10);
    EXPECT_NEAR(score.entropy, -(p * p.log()).sum().item<double>(), 1e-10);
    EXPECT_NEAR(score.confidence, p.max().item<double>(), 1e-12);
  }
  const Calibration c = calibration(scores);
  EXPECT_NEAR(c.cross_entropy, loss(held), 1e-10);
  EXPECT_NEAR((c.by_sample[0] + c.by_sample[1] + c.by_sample[2]) / 3, c.cross_entropy, 1e-12);
}

TEST(Calibration, TilesAreWhole) {
  // More rows than a tile holds, by one.
  const Linear head{.weight = at::eye(5, at::kDouble)};
  const Tensor logits = random_normal({257, 5}, 3).to(at::kDouble);
  const std::vector<int32_t> ids = tiny::tokens(258, 5, 2);
  const std::vector<TokenScore> scores = token_scores(head, logits, ids);
  ASSERT_EQ(scores.size(), 257U);
  const Tensor log_p = logits.log_softmax(1);
  for (const TokenScore& score : scores)
    EXPECT_NEAR(score.loss, -log_p[score.position - 1][score.token].item<double>(), 1e-12);
}

TEST(Calibration, PairedDifferencesByHand) {
  const std::vector<double> before = {1, 2, 3}, after = {2, 4, 6};
  const Estimate moved = paired_difference(before, after);
  EXPECT_NEAR(moved.value, 2, 1e-12);
  EXPECT_NEAR(moved.high - 2, 4.3027 / std::sqrt(3.0), 1e-4);  // sd 1, two degrees of freedom
  EXPECT_NEAR(2 - moved.low, moved.high - 2, 1e-12);
  std::vector<double> zero(41, 0.0), signs(41);
  for (size_t i = 0; i < 41; ++i) signs[i] = i % 2 == 0 ? 1 : -1;
  const double deviation = std::sqrt((41 - 1.0 / 41) / 40);
  EXPECT_NEAR((paired_difference(zero, signs).high - 1.0 / 41) / deviation * std::sqrt(41.0), 2.0211, 1e-4);
  EXPECT_THROW(paired_difference(before, zero), Error);
  EXPECT_FALSE(std::isfinite(paired_difference(std::vector{1.0}, std::vector{2.0}).high));
}

TEST(Bootstrap, IntervalsAreThoseOfTheSample) {
  std::vector<double> values(400);
  for (size_t i = 0; i < values.size(); ++i) values[i] = i % 2 == 0 ? 0 : 1;
  const Estimate mean = mean_of(values);
  EXPECT_EQ(mean.value, 0.5);
  EXPECT_NEAR(mean.high - mean.low, 2 * 1.96 * 0.025, 0.015);
  EXPECT_EQ(mean.low, mean_of(values).low);
  const std::vector<double> top = {1, 3, 2}, bottom = {2, 6, 4};
  const Estimate ratio = ratio_of_means(top, bottom);  // the same in every draw
  EXPECT_EQ(ratio.low, 0.5);
  EXPECT_EQ(ratio.high, 0.5);
}

std::vector<TokenScore> with_losses(const std::vector<double>& losses) {
  std::vector<TokenScore> scores;
  for (size_t i = 0; i < losses.size(); ++i)
    scores.push_back({.position = static_cast<int32_t>(i + 1), .token = 7, .loss = losses[i]});
  return scores;
}

TEST(LossTail, ByHand) {
  std::vector<double> losses(1001);
  for (size_t i = 0; i < losses.size(); ++i) losses[i] = static_cast<double>((i * 3) % 1001);
  const LossTail tail = loss_tail(with_losses(losses));
  EXPECT_EQ(tail.mean, 500);
  EXPECT_EQ(tail.median, 500);
  EXPECT_EQ(tail.permille, 999);
  EXPECT_EQ(tail.most, 1000);
  EXPECT_EQ(losses[static_cast<size_t>(tail.worst.position - 1)], 1000);
  EXPECT_EQ(loss_tail(with_losses({4, 1, 2, 3})).median, 2.5);
  const LossTail broken = loss_tail(with_losses({1, std::nan(""), 2}));
  EXPECT_EQ(broken.worst.position, 2);
  EXPECT_FALSE(std::isfinite(broken.most));
  EXPECT_THROW(loss_tail(std::vector<TokenScore>{}), Error);
}

TEST(LossTail, StrangeTextIsStrangeAndTheSameEveryTime) {
  const std::string text = strange_text(4000);
  EXPECT_GE(text.size(), 4000U);
  EXPECT_LT(text.size(), 4100U);
  EXPECT_EQ(text, strange_text(4000));
  EXPECT_NE(text, strange_text(4000, 2));
  EXPECT_THAT(text, HasSubstr("\f"));
  EXPECT_THAT(text, HasSubstr("\t\t\t"));
  EXPECT_THAT(text, HasSubstr("\x01"));
  EXPECT_EQ(text.find('\0'), std::string::npos);
  EXPECT_EQ(repair_utf8(text), text);
  std::map<unsigned char, int> bytes;
  for (char c : text) ++bytes[static_cast<unsigned char>(c)];
  EXPECT_GT(bytes.size(), 200U);
}

TEST(LossTail, UnseenTokensAreUnseen) {
  const Samples seen = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2}, {2, 3}};
  const Samples made = unseen_tokens(seen, 12, {.count = 3, .length = 8});
  ASSERT_EQ(made.size(), 3U);
  EXPECT_EQ(made[0].size(), 8U);
  EXPECT_EQ(made[1].size(), 2U);
  for (size_t s = 0; s < 3; ++s) {
    int changed = 0;
    for (size_t t = 0; t < made[s].size(); ++t) {
      if (made[s][t] == seen[s % 2][t]) continue;
      ++changed;
      EXPECT_TRUE(made[s][t] == 0 || made[s][t] >= 10) << made[s][t];
      EXPECT_LT(made[s][t], 12);
    }
    EXPECT_GE(changed, 1);
    EXPECT_EQ(made[s][0], seen[s % 2][0]);
  }
  EXPECT_TRUE(unseen_tokens({{0, 1, 2}}, 3).empty());
}

// ---- all together

// A token for every byte.
Tokenizer bytes() {
  Json vocabulary = Json::object();
  for (int b = 0; b < 256; ++b) vocabulary[byte_letters().letter[static_cast<size_t>(b)]] = b;
  return Tokenizer::from_json(
      {{"version", "1.0"},
       {"added_tokens", Json::array()},
       {"normalizer", nullptr},
       {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
       {"post_processor", nullptr},
       {"decoder", {{"type", "ByteLevel"}}},
       {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", Json::array()}}}},
      {}, "bytes");
}

TEST(Patching, PromptsOfBytesLineUp) {
  const std::vector<PromptPair> pairs = object_prompts(bytes(), {.count = 6});
  ASSERT_EQ(pairs.size(), 6U);
  for (const PromptPair& pair : pairs) {
    const std::string clean(pair.clean.begin(), pair.clean.end()),
        corrupted(pair.corrupted.begin(), pair.corrupted.end());
    EXPECT_EQ(clean.size(), pairs[0].clean.size());
    EXPECT_EQ(clean.size(), corrupted.size());
    EXPECT_THAT(clean, HasSubstr("Then, "));
    EXPECT_TRUE(clean.ends_with(" to ")) << clean;
    // "Then, A and B went to the PLACE. A gave": the answer is B.
    EXPECT_EQ(clean[15], static_cast<char>(pair.answer)) << clean;
    EXPECT_EQ(clean[6], static_cast<char>(pair.other)) << clean;
    const size_t giver = clean.find(". ") + 2;
    EXPECT_EQ(clean.substr(giver, 4), clean.substr(6, 4));
    EXPECT_EQ(corrupted.substr(giver, 4), corrupted.substr(15, 4));
    EXPECT_EQ(corrupted.substr(0, giver), clean.substr(0, giver));
  }
  EXPECT_EQ(object_prompts(bytes(), {.count = 6})[3].clean, pairs[3].clean);
}

TEST(Analyses, OfTwoArmsStandSideBySide) {
  for (const Architecture* architecture : tiny::listed()) {
    Json config = architecture->tiny();
    config["vocab_size"] = 256;
    const Tiny tiny(*architecture, {.config = config});
    std::string text;
    for (int i = 0; i < 40; ++i) text += "It was the best of times, it was the worst of times. ";
    const AnalysisData data =
        analysis_data(text, "", bytes(), *tiny.model, {.samples = 3, .length = 40, .pairs = 1});
    EXPECT_EQ(data.text.size(), 3U);
    EXPECT_EQ(data.text[2].size(), 40U);
    EXPECT_EQ(data.strange.size(), 3U);
    EXPECT_EQ(data.unseen.size(), 3U);
    Tap none;
    Held held(*tiny.model, 1.5);
    std::vector<Arm> arms = {{"original", analyse(*tiny.model, data, {}, none)},
                             {"norm-free", analyse(*tiny.model, data, {}, held)}};
    EXPECT_EQ(arms[0].analyses.patching.pairs, 1);
    EXPECT_LT(arms[1].analyses.attribution.head_mean, 1e-9);

    report::Report whole{.title = "Analyses", .sections = analysis_sections(arms)};
    report::check(whole);
    EXPECT_THAT(report::to_html(whole), HasSubstr("norm-free"));
    const Json json = to_json(arms[0].analyses);
    for (const char* key : {"calibration", "losses", "attribution", "neurons", "sinks"})
      EXPECT_TRUE(json.contains(key)) << key;
    EXPECT_EQ(json["losses"].size(), 3U);
    EXPECT_EQ(json["attribution"]["heads"].size(), 24U);
    EXPECT_EQ(analysis_tables(arms)[0].rows.size(), 2U);

    arms[1].analyses.strange->most = 11 * arms[0].analyses.strange->most;
    arms[1].analyses.text.most = 9 * arms[0].analyses.text.most;
    arms[1].analyses.unseen->most = std::numeric_limits<double>::infinity();
    const std::vector<std::string> warnings = analysis_warnings(arms);
    ASSERT_EQ(warnings.size(), 2U);
    EXPECT_THAT(warnings[0], HasSubstr("11 times that of original"));
    EXPECT_THAT(warnings[1], HasSubstr("not finite"));
  }
}

TEST(Analyses, WrongInputIsSaidInASentence) {
  const Tiny tiny(*tiny::listed()[0]);
  Tap none;
  const auto message = [&](const Samples& samples) {
    try {
      attribution(*tiny.model, samples, {}, none);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(message({}), HasSubstr("no text"));
  EXPECT_THAT(message({{1}}), HasSubstr("needs at least two"));
  EXPECT_THAT(message({{1, 2}, {3, 970}}), HasSubstr("sample 1: token 970"));
  EXPECT_THROW(patching(*tiny.model, {{{1, 2}, {1, 2, 3}, 0, 1}}, none), Error);
  EXPECT_THROW(neuron_effects(*tiny.model, {{1, 2}}, {.top = 0}, none), Error);
  EXPECT_THROW(calibration(std::vector<TokenScore>{}, {.bins = 0}), Error);
}

}  // namespace
}  // namespace lamina
