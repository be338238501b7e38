#include "lamina/methods/laptop/laptop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "lamina/eval/scene_score.h"
#include "lamina/eval/scene_trial.h"
#include "lamina/models/registry.h"
#include "tests/laws/unets.h"

namespace lamina::laptop {
namespace {

using tiny::unet_architecture;

CalibrationBatch batch_for(const Json& config, int64_t count, uint64_t seed, at::ScalarType dtype) {
  const Inputs inputs = tiny::unet_inputs(config, seed, {.batch = count, .dtype = dtype});
  Inputs untold = inputs;
  untold.text = at::zeros_like(inputs.text);
  return {.inputs = inputs,
          .unguided = untold,
          .target = random_normal(inputs.sample.sizes(), seed + 3).to(dtype)};
}

Prices prices_of(const Blueprint& blueprint) {
  return {.axes = {"params"},
          .whole = {blueprint.parameters()},
          .saved = [&blueprint](std::span<const Site> sites) {
            return std::vector<int64_t>{unet::parameters_saved(blueprint, {sites.begin(), sites.end()})};
          }};
}

class Laptop : public testing::Test {
 protected:
  tiny::Tiny tiny_{unet_architecture()};
  const Blueprint& blueprint() const { return tiny_.opened.blueprint; }
  std::vector<Site> candidates_ = candidates_of(tiny_.opened.blueprint);
};

TEST_F(Laptop, CriteriaAreWhatTheySay) {
  const CalibrationBatch batch = batch_for(tiny_.opened.checkpoint.config, 3, 1, at::kDouble);
  const Scores scores = gathered(candidates_, std::vector{score(*tiny_.model, candidates_, batch, {})});
  NoiseSchedule schedule;
  for (int t = 0; t < 1000; ++t) schedule.alpha_bar.push_back(1 / (1.0 + t));
  for (const std::string& name : criterion_names()) {
    const Criterion criterion = criterion_from_name(name);
    EXPECT_EQ(criterion_name(criterion), name);
    if (!reads_scores(criterion)) continue;
    const std::vector<double> values = values_of(scores, criterion, schedule);
    ASSERT_EQ(values.size(), candidates_.size());
    for (double value : values) EXPECT_GE(value, 0) << name;
  }
  EXPECT_THROW(criterion_from_name("outptu"), Error);
  const std::vector<double>& row = scores.all.output[4];
  EXPECT_NEAR(values_of(scores, Criterion::time_weighted, schedule)[4],
              (2 * row[0] + 323 * row[1] + 644 * row[2]) / (2 + 323 + 644), 1e-9 * row[0]);
  // abar is 1 / (1 + t): the clean picture errs t times as much as the noise.
  EXPECT_NEAR(values_of(scores, Criterion::clean, schedule)[4],
              (1 * row[0] + 322 * row[1] + 643 * row[2]) / (1 + 322 + 643), 1e-9 * row[0]);
  schedule.prediction = Prediction::v;
  const double a = 1 / 2.0, b = 322 / 323.0, c = 643 / 644.0;
  EXPECT_NEAR(values_of(scores, Criterion::clean, schedule)[4],
              (a * row[0] + b * row[1] + c * row[2]) / (a + b + c), 1e-9 * row[0]);
  Scores bare = scores;
  bare.all.task.clear(), bare.all.guided.clear();
  EXPECT_THROW(values_of(bare, Criterion::task, schedule), Error);
  EXPECT_THROW(values_of(bare, Criterion::guided, schedule), Error);
}

TEST_F(Laptop, MagnitudeReadsTheWeights) {
  const std::vector<double> values = magnitudes(tiny_.opened.checkpoint, blueprint(), candidates_);
  double squares = 0, count = 0;
  for (const Slot& slot : blueprint().slots) {
    if (slot.part != candidates_[3].index) continue;
    const Tensor w = load(*tiny_.opened.checkpoint.find(slot.name), at::kDouble);
    squares += w.square().sum().item<double>();
    count += static_cast<double>(w.numel());
  }
  EXPECT_NEAR(values[3], squares / count, 1e-6 * values[3]);
}

// sum g w is the derivative of the loss when all of the part's weights are scaled.
TEST_F(Laptop, TaylorIsTheDerivativeAlongThePart) {
  Calibration calibration;
  calibration.batches = {batch_for(tiny_.opened.checkpoint.config, 2, 1, at::kFloat),
                         batch_for(tiny_.opened.checkpoint.config, 1, 9, at::kFloat)};
  const std::vector<double> values = taylor(tiny_.opened, candidates_, calibration);
  const auto loss_scaled = [&](Site site, double scale) {
    tiny::InMemory scaled = tiny::random_checkpoint(unet_architecture());
    for (Stored& stored : scaled.checkpoint.tensors) {
      const Tensor w = load(stored, at::kDouble);
      if (blueprint().slot(stored.name)->part == site.index) scaled.set(stored, w * scale);
    }
    const Opened opened = declare(scaled.checkpoint);
    const std::unique_ptr<Model> model = build_model(opened, {.dtype = at::kDouble});
    double loss = 0;
    for (const CalibrationBatch& batch : calibration.batches)
      loss += (model->run(batch.inputs) - batch.target).square().flatten(1).mean(1).sum().item<double>();
    return loss / 3;
  };
  for (size_t i = 0; i < candidates_.size(); i += 5) {
    const double slope =
        (loss_scaled(candidates_[i], 1 + 1e-4) - loss_scaled(candidates_[i], 1 - 1e-4)) / 2e-4;
    EXPECT_NEAR(values[i], std::abs(slope), 1e-3 * std::abs(slope) + 1e-4) << i;
  }
}

TEST_F(Laptop, ScorersAreAskedOnceACandidate) {
  int calls = 0;
  const std::vector<double> values = score_drops(candidates_, [&](std::span<const Site> gone) {
    ++calls;
    return gone.empty() ? 5.0 : 5.0 - (gone[0].index - 1);
  });
  EXPECT_EQ(calls, static_cast<int>(candidates_.size()) + 1);
  EXPECT_EQ(values[0], 0);  // a score that rose
  EXPECT_EQ(values[3], 2);
  EXPECT_EQ(drawn(4, 1), drawn(4, 1));
  EXPECT_NE(drawn(4, 1), drawn(4, 2));
}

TEST_F(Laptop, BlocksOfAWrapperGoInTheOrderOfTheirValuesAndTakeItWithThem) {
  std::vector<double> values;
  for (size_t i = 0; i < candidates_.size(); ++i)
    values.push_back(static_cast<double>(candidates_.size() - i));
  const std::vector<Bundle> bundles = free_bundles(blueprint(), candidates_, values);
  const Prices prices = prices_of(blueprint());
  const Cover cover = cover_of(bundles, candidates_, values, prices, {1});
  size_t states = 0;
  std::set<int> seen;
  for (const Group& group : cover.groups) {
    states = std::max(states, group.size());
    for (int candidate : group.back().candidates) EXPECT_TRUE(seen.insert(candidate).second);
    EXPECT_EQ(group[0].loss, 0);
    EXPECT_EQ(group[0].saved, std::vector<int64_t>{0});
    if (group.size() != 4) continue;  // the transformer of three blocks
    const int64_t one = group[1].saved[0];
    EXPECT_EQ(group[2].saved[0], 2 * one);
    EXPECT_GT(group[3].saved[0], 3 * one);
    EXPECT_LT(group[1].loss, group[2].loss / 2);
  }
  EXPECT_EQ(states, 4u);
  EXPECT_EQ(seen.size(), candidates_.size());

  // What the solver says it saves is what goes.
  Cover half = cover;
  half.least = {blueprint().parameters() / 2};
  const Choice choice = exact(half).best.at(0);
  const std::vector<int> gone = removed(half, choice);
  EXPECT_EQ(choice.saved, prices.saved(sites_of(candidates_, gone)));
  const Plan plan = plan_of(blueprint(), candidates_, gone, values);
  EXPECT_EQ(removed_sites(plan, blueprint()), sites_of(candidates_, gone));
  const Opened cut = tiny::edited(tiny_.opened, plan);
  EXPECT_EQ(cut.blueprint.parameters(), blueprint().parameters() - choice.saved[0]);
}

TEST_F(Laptop, RandomChoicesHoldTheirBudgets) {
  const std::vector<double> values = drawn(candidates_.size(), 3);
  const Cover cover = cover_of(free_bundles(blueprint(), candidates_, values), candidates_, values,
                               prices_of(blueprint()), {blueprint().parameters() / 3});
  for (uint64_t seed = 0; seed < 20; ++seed) EXPECT_TRUE(holds(cover, *random_choice(cover, seed)));
  EXPECT_NE(random_choice(cover, 1)->taken, random_choice(cover, 2)->taken);
  Cover impossible = cover;
  impossible.least = {blueprint().parameters()};
  EXPECT_FALSE(random_choice(impossible, 1).has_value());
}

TEST(Samples, TimesAreSpreadEvenlyAndNoiseIsFixed) {
  EXPECT_THAT(stratified_times(4, 1000, 1), testing::UnorderedElementsAre(0, 250, 500, 750));
  EXPECT_NE(stratified_times(50, 1000, 1), stratified_times(50, 1000, 2));
  EXPECT_EQ(stratified_times(50, 1000, 1), stratified_times(50, 1000, 1));

  NoiseSchedule schedule;
  for (int t = 0; t < 1000; ++t) schedule.alpha_bar.push_back(1 - (t + 0.5) / 1000);
  const Tensor clean = random_normal({5, 3, 4, 4}, 1);
  const Conditions told{.text = random_normal({5, 7, 6}, 2),
                        .added = {{"time_ids", random_normal({5, 6}, 3)}}};
  const Conditions untold{.text = at::zeros({5, 7, 6}), .added = told.added};
  const Calibration made = calibration(schedule, clean, told, untold, {.batch = 2, .seed = 3});
  ASSERT_EQ(made.batches.size(), 3u);
  EXPECT_EQ(made.samples(), 5);
  const Inputs& last = made.batches[2].inputs;
  EXPECT_TRUE(at::equal(last.text, told.text.narrow(0, 4, 1)));
  EXPECT_TRUE(at::equal(last.added.at("time_ids"), told.added.at("time_ids").narrow(0, 4, 1)));
  EXPECT_TRUE(at::equal(made.batches[2].unguided->sample, last.sample));
  EXPECT_EQ(made.batches[2].unguided->text.sum().item<double>(), 0);
  // x_t is made of the clean sample and of what is to be said.
  const double kept = schedule.alpha_bar[static_cast<size_t>(last.time.item<double>())];
  const Tensor x = std::sqrt(kept) * clean.narrow(0, 4, 1) + std::sqrt(1 - kept) * made.batches[2].target;
  EXPECT_LT((x - last.sample).abs().max().item<double>(), 1e-6);
  EXPECT_TRUE(at::equal(
      calibration(schedule, clean, told, untold, {.batch = 5, .seed = 3}).batches[0].target.narrow(0, 4, 1),
      made.batches[2].target));
  EXPECT_THROW(calibration(schedule, clean.narrow(0, 0, 4), told, untold, {}), Error);
}

TEST(Handcrafted, CutsOfBkSdm) {
  const Blueprint b = unet::blueprint(unet::published_config("sd1.5"), "test");
  EXPECT_EQ(handcrafted(b, "bk-base").size(), 14u);
  EXPECT_EQ(handcrafted(b, "bk-small").size(), 17u);
  std::vector<std::string> names;
  for (Site site : handcrafted(b, "bk-base")) names.push_back(b.part(site).label());
  EXPECT_THAT(names, testing::ElementsAre("d0.r1", "d0.a1", "d1.r1", "d1.a1", "d2.r1", "d2.a1", "d3.r1",
                                          "u0.r1", "u1.r1", "u1.a1", "u2.r1", "u2.a1", "u3.r1", "u3.a1"));
  // d3, mid and u0 are eight, of which d3.r1 and u0.r1 are counted.
  EXPECT_EQ(handcrafted(b, "bk-tiny").size(), 14u + 6u);
  EXPECT_THROW(handcrafted(b, "bk-large"), Error);
  EXPECT_THROW(handcrafted(unet::blueprint(unet::published_config("bk-base"), "test"), "bk-base"), Error);
}

// The scorer that comes along is sure of real pictures' captions, and sure that they are not of others.
TEST(ScoreOfPictures, BelongsToThePicture) {
  const std::unique_ptr<Model> scorer = build_model(open("examples/scenes/scorer-1"));
  const SceneTrial trial = scene_trial({.seed = 7, .split = scene::Split::test, .side = 32}, 0, 16);
  const double own = scene_likelihood(*scorer, trial.real, trial.said);
  std::vector<scene::Said> others = trial.said;
  std::ranges::rotate(others, others.begin() + 1);
  EXPECT_LT(own, 0);
  EXPECT_GT(own, -1);
  EXPECT_LT(scene_likelihood(*scorer, trial.real, others), own - 5);
  others.pop_back();
  EXPECT_THROW(scene_likelihood(*scorer, trial.real, others), Error);
}

}  // namespace
}  // namespace lamina::laptop
