#include "lamina/methods/laptop/score.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/laws/unets.h"

namespace lamina::laptop {
namespace {

using tiny::four_stages;
using tiny::unet_architecture;
using tiny::unet_inputs;

// A transformer of two blocks of which one is gone: with the other its wrapper goes.
Json one_block_left() {
  Json config = unet_architecture().tiny();
  config[std::string(unet::kRemoved)] = {"down_blocks.2.attentions.0.transformer_blocks.1"};
  return config;
}

struct Case {
  const char* name;
  Json (*config)();
};

class EveryShape : public testing::TestWithParam<Case> {
 protected:
  tiny::Tiny model_{unet_architecture(), {.config = GetParam().config()}};
  const Model& model() const { return *model_.model; }
};
INSTANTIATE_TEST_SUITE_P(Every, EveryShape,
                         testing::Values(Case{"tiny", [] { return unet_architecture().tiny(); }},
                                         Case{"four_stages", four_stages},
                                         Case{"one_block_left", one_block_left}),
                         [](const auto& info) { return info.param.name; });

// What each part's absence changes, by a full pass each.
BatchScores::PerSample full_passes(const Model& model, const Inputs& inputs) {
  const Tensor whole = model.run(inputs);
  BatchScores::PerSample values;
  for (Site site : candidates_of(model.blueprint())) {
    Skip skip(model.blueprint());
    skip.add(site);
    const Tensor moved = (model.run(inputs, skip) - whole).square().flatten(1).mean(1).contiguous();
    values.emplace_back(moved.data_ptr<double>(), moved.data_ptr<double>() + moved.numel());
  }
  return values;
}

TEST_P(EveryShape, PrefixReuseIsExact) {
  const Inputs inputs = unet_inputs(GetParam().config(), 5);
  const std::vector<Site> candidates = candidates_of(model().blueprint());
  const BatchScores scores = score(model(), candidates, {.inputs = inputs}, {.rows = 1});
  const BatchScores::PerSample full = full_passes(model(), inputs);
  ASSERT_EQ(scores.output.size(), full.size());
  for (size_t i = 0; i < full.size(); ++i) {
    EXPECT_EQ(scores.output[i], full[i]) << model().blueprint().part(candidates[i]).path;
    EXPECT_GT(full[i][0], 0);
  }
  EXPECT_EQ(score(model(), candidates, {.inputs = inputs}, {.rows = 0}).output, full);
}

TEST_P(EveryShape, CandidatesInOneBatchAreEqualUpToRounding) {
  const Inputs inputs = unet_inputs(GetParam().config(), 7);
  const std::vector<Site> candidates = candidates_of(model().blueprint());
  const BatchScores::PerSample full = full_passes(model(), inputs);
  for (int64_t rows : {4, 7, 1000}) {
    const BatchScores scores = score(model(), candidates, {.inputs = inputs}, {.rows = rows});
    for (size_t i = 0; i < full.size(); ++i)
      for (size_t s = 0; s < 2; ++s) EXPECT_NEAR(scores.output[i][s], full[i][s], 1e-9 * full[i][s]);
  }
}

TEST_P(EveryShape, OtherLossesAreWhatTheySay) {
  const Json config = GetParam().config();
  const Inputs inputs = unet_inputs(config, 11);
  Inputs untold = inputs;
  untold.text = at::zeros_like(inputs.text);
  const Tensor target = random_normal(inputs.sample.sizes(), 3).to(at::kDouble);
  const std::vector<Site> candidates = candidates_of(model().blueprint());
  const BatchScores scores =
      score(model(), candidates, {.inputs = inputs, .unguided = untold, .target = target},
            {.rows = 6, .guidance = 3});
  const auto guided = [&](Tap& tap) {
    const Tensor u = model().run(untold, tap);
    return u + 3 * (model().run(inputs, tap) - u);
  };
  const auto value = [](const Tensor& x, int64_t sample) { return x.square()[sample].mean().item<double>(); };
  Tap none;
  const Tensor whole = model().run(inputs), both = guided(none);
  for (size_t i = 0; i < candidates.size(); i += 3) {
    Skip skip(model().blueprint());
    skip.add(candidates[i]);
    const Tensor without = model().run(inputs, skip);
    for (int64_t s : {0, 1}) {
      const auto at = static_cast<size_t>(s);
      EXPECT_NEAR(scores.task[i][at], value(without - target, s) - value(whole - target, s),
                  1e-8 * value(whole - target, s));
      EXPECT_NEAR(scores.guided[i][at], value(guided(skip) - both, s), 1e-8 * value(guided(skip) - both, s));
      EXPECT_GE(scores.influence[i][at], 0);
      EXPECT_LE(scores.influence[i][at], 2);
    }
  }
  // The products hold the losses on their diagonal, and what two removals do together when they superpose.
  const Scores all = gathered(candidates, std::vector{scores});
  const size_t n = candidates.size();
  for (size_t i = 0; i < n; ++i) {
    EXPECT_NEAR(all.all.products[i * n + i], mean(scores.output[i]).value,
                1e-9 * mean(scores.output[i]).value);
    for (size_t j = 0; j < n; ++j)
      EXPECT_NEAR(all.all.products[i * n + j], all.all.products[j * n + i], 1e-9);
  }
  const std::vector<int> pair = {0, 1};
  Skip first(model().blueprint()), second(model().blueprint());
  first.add(candidates[0]), second.add(candidates[1]);
  const Tensor sum = model().run(inputs, first) + model().run(inputs, second) - 2 * whole;
  EXPECT_NEAR(superposed(all, pair), sum.square().mean().item<double>(),
              1e-8 * sum.square().mean().item<double>());
}

TEST(Score, BatchesGatherAndTravelAsJson) {
  tiny::Tiny tiny(unet_architecture());
  const std::vector<Site> candidates = candidates_of(tiny.model->blueprint());
  std::vector<BatchScores> batches;
  for (uint64_t seed : {1, 2}) {
    batches.push_back(
        score(*tiny.model, candidates, {.inputs = unet_inputs(unet_architecture().tiny(), seed)}, {}));
    const std::string text = to_json(batches.back()).dump();
    const BatchScores again =
        batch_scores_from_json(parse_json(text, "journal"), candidates.size(), "journal");
    EXPECT_EQ(again.output, batches.back().output);
    EXPECT_EQ(again.products, batches.back().products);
    EXPECT_THROW(batch_scores_from_json(parse_json(text, "journal"), 3, "journal"), Error);
  }
  const Scores all = gathered(candidates, batches);
  EXPECT_EQ(all.samples(), 4u);
  EXPECT_EQ(all.all.output[2][3], batches[1].output[2][1]);
  EXPECT_NEAR(all.all.products[0], (batches[0].products[0] + batches[1].products[0]) / 2, 1e-12);
}

TEST(Score, StatisticsOfSamples) {
  const std::vector<double> values = {1, 2, 3, 6};
  EXPECT_DOUBLE_EQ(mean(values).value, 3);
  EXPECT_NEAR(mean(values).error, std::sqrt(14.0 / 3 / 4), 1e-12);
  EXPECT_TRUE(std::isnan(mean(std::vector<double>{1}).error));
  const std::vector<double> squares = {1, 4, 9, 36}, turned = {6, 3, 2, 1}, ties = {1, 1, 2, 3};
  EXPECT_DOUBLE_EQ(rank_correlation(values, squares), 1);
  EXPECT_DOUBLE_EQ(rank_correlation(values, turned), -1);
  EXPECT_NEAR(rank_correlation(values, ties), 0.9486832980505138, 1e-12);
  EXPECT_DOUBLE_EQ(split_half({{1, 1.1, 1, 1.2}, {5, 4, 5, 4}, {2, 3, 2, 3}}), 1);

  Scores scores;
  scores.all.times = {0, 249, 250, 999};
  const auto bands = by_band(scores, {{1, 3, 5, 7}}, 4, 1000);
  EXPECT_EQ(bands[0][0], 2);
  EXPECT_EQ(bands[1][0], 5);
  EXPECT_TRUE(std::isnan(bands[2][0]));
  EXPECT_EQ(bands[3][0], 7);
}

TEST(Score, JointLossIsThatOfAPass) {
  tiny::Tiny tiny(unet_architecture(), {.config = four_stages()});
  const Model& model = *tiny.model;
  Calibration calibration;
  for (uint64_t seed : {1, 2, 3}) calibration.batches.push_back({.inputs = unet_inputs(four_stages(), seed)});
  const std::vector<Site> all = candidates_of(model.blueprint()), one = {all[5]};
  const JointLoss joint(model, calibration), shorter(model, calibration, 3);
  EXPECT_EQ(joint.mean_of({}), 0);
  EXPECT_EQ(shorter.of(one).size(), 4u);
  const std::vector<double> losses = joint.of(one);
  ASSERT_EQ(losses.size(), 6u);
  for (size_t b = 0; b < 3; ++b) {
    const BatchScores scores = score(model, one, calibration.batches[b], {.rows = 1});
    EXPECT_EQ(scores.output[0][1], losses[2 * b + 1]);
  }
  // Nothing removable is left and it still runs.
  EXPECT_GT(joint.mean_of(all), 0);
}

TEST(Score, TimesAreMeasuredPartByPart) {
  tiny::Tiny tiny(unet_architecture(), {.config = four_stages()});
  const std::vector<Site> all = candidates_of(tiny.model->blueprint());
  const Times times = measured_times(*tiny.model, all, unet_inputs(four_stages(), 1, {.batch = 1}), 3);
  ASSERT_EQ(times.saved.size(), all.size());
  EXPECT_GT(times.whole, 0);
  for (double saved : times.saved) EXPECT_GE(saved, 0);
}

}  // namespace
}  // namespace lamina::laptop
