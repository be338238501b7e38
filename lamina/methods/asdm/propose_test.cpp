#include "lamina/methods/asdm/propose.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "lamina/eval/step_times.h"
#include "lamina/methods/asdm/asdm_test.h"

namespace lamina::asdm {
namespace {

class Proposing : public testing::Test {
 protected:
  tiny::Tiny whole_{unet_architecture(), {.config = four_stages()}};
  const Blueprint& blueprint() const { return whole_.opened.blueprint; }
  const unet::Config config_ = unet::read_config(whole_.opened.checkpoint.config, "test");

  double macs(const Blueprint& b) const { return unet::macs(config_, b, {}).total(); }
  // Every part with the same loss.
  std::vector<Choice> choices() const {
    std::vector<Choice> all;
    for (Site site : blueprint().present()) {
      all.push_back({.site = site, .loss = 1});
      if (blueprint().part(site).map_heads > 0)
        all.push_back({.site = site, .windows = Windows{.window = 16, .pool = 4}, .loss = 0.1});
    }
    return all;
  }
  Proposal proposed(const ProposeOptions& options) const {
    return propose(blueprint(), choices(), [&](const Blueprint& b) { return macs(b); }, options);
  }
};

TEST_F(Proposing, TheBudgetHoldsAndTheCostIsThatOfTheModel) {
  for (double keep : {0.9, 0.78, 0.5}) {
    const Proposal proposal = proposed({.keep = keep, .inherit = false});
    EXPECT_TRUE(proposal.reached);
    EXPECT_LE(proposal.cost, keep * proposal.whole);
    EXPECT_EQ(macs(edited(whole_.opened, proposal.plan).blueprint), proposal.cost);
  }
}

TEST_F(Proposing, OuterStagesGoFirst) {
  const Proposal proposal = proposed({.keep = 0.9, .outer = 1});
  for (const Edit& edit : proposal.plan.edits) {
    const std::string& site = std::visit([](const auto& e) -> const std::string& { return e.site; }, edit);
    EXPECT_TRUE(site.starts_with("down_blocks.0.") || site.starts_with("up_blocks.3.")) << site;
  }
}

TEST_F(Proposing, EachPartAlone) {
  const auto kinds = [](const Plan& plan) {
    std::array<size_t, 3> count{};
    for (const Edit& edit : plan.edits) {
      count[0] += std::holds_alternative<Cut>(edit);
      count[1] += std::holds_alternative<Regional>(edit);
      count[2] += std::holds_alternative<Inherit>(edit);
    }
    return count;
  };
  const auto cut = kinds(proposed({.keep = 0.1, .regional = false, .inherit = false}).plan);
  EXPECT_GT(cut[0], 0u);
  EXPECT_EQ(cut[1] + cut[2], 0u);
  const Proposal windows = proposed({.keep = 0.999, .cut = false});
  EXPECT_GT(kinds(windows.plan)[1], 0u);
  EXPECT_EQ(kinds(windows.plan)[0] + kinds(windows.plan)[2], 0u);
  // A ResNet that goes leaves its kernels to one of its stage that stays.
  std::vector<Choice> one = choices();
  for (Choice& choice : one) {
    if (blueprint().part(choice.site).path == "down_blocks.0.resnets.1") choice.loss = 1e-4;
  }
  const auto cost = [&](const Blueprint& b) { return macs(b); };
  const auto both = kinds(propose(blueprint(), one, cost, {.keep = 0.999, .regional = false}).plan);
  EXPECT_EQ(both[0], 1u);
  EXPECT_GT(both[2], 0u);
  EXPECT_FALSE(proposed({.keep = 0.1, .cut = false}).reached);
}

TEST_F(Proposing, NothingIsDoneThatTheBudgetHoldsWithout) {
  const Proposal proposal = proposed({.keep = 0.7, .inherit = false});
  for (size_t i = 0; i < proposal.plan.edits.size(); ++i) {
    Plan without = proposal.plan;
    without.edits.erase(without.edits.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_GT(macs(edited(whole_.opened, without).blueprint), 0.7 * proposal.whole);
  }
}

TEST_F(Proposing, WindowsArePricedByWhatTheyChange) {
  const std::vector<Inputs> samples = {inputs_for(four_stages(), 2, 3), inputs_for(four_stages(), 1, 4)};
  const std::vector<Regional> edits = {
      {.site = "down_blocks.0.attentions.0", .windows = {.window = 4, .pool = 2}},
      {.site = "down_blocks.0.attentions.1", .windows = {.window = 8, .pool = 2}}};
  const std::vector<std::vector<double>> changes = changes_by(*whole_.model, edits, samples);
  ASSERT_EQ(changes[0].size(), 3u);
  const Tensor moved =
      answer(edited(whole_.opened, {.edits = {edits[0]}}), samples[0]) - answer(whole_.opened, samples[0]);
  EXPECT_DOUBLE_EQ(changes[0][1], moved[1].square().mean().item<double>());
  EXPECT_GT(changes[0][2], 0);
  EXPECT_THAT(changes[1], testing::Each(0));  // one window is the whole map
}

// A clock by which half of what the sum says is saved.
TEST_F(Proposing, WhatTheMeasuredPlanMissesTheNextBudgetIsStricterBy) {
  const auto cost = [&](const Blueprint& b) { return macs(b); };
  const double whole = macs(blueprint());
  const auto slower = [&](const Plan& plan) {
    return (1 + macs(edited(whole_.opened, plan).blueprint) / whole) / 2;
  };
  const ProposeOptions options{.keep = 0.78, .inherit = false};
  const std::vector<Round> rounds = propose_measured(blueprint(), choices(), cost, slower, options);
  ASSERT_GE(rounds.size(), 2u);
  EXPECT_LE(rounds.size(), 3u);
  EXPECT_GT(rounds[0].share, 0.78);
  EXPECT_LT(rounds[1].keep, 0.78);
  EXPECT_LE(rounds.back().share, 0.78);
  EXPECT_LE(best_of(rounds, 0.78).share, 0.78);
  EXPECT_EQ(propose_measured(blueprint(), choices(), cost, slower, options, 1).size(), 1u);
}

TEST_F(Proposing, APlanThatSavesFarMoreThanWasAskedForIsProposedAgain) {
  const auto cost = [&](const Blueprint& b) { return macs(b); };
  const double whole = macs(blueprint());
  const auto faster = [&](const Plan& plan) {
    return std::max(0.0, 1 - 3 * (1 - macs(edited(whole_.opened, plan).blueprint) / whole));
  };
  const std::vector<Round> rounds =
      propose_measured(blueprint(), choices(), cost, faster, {.keep = 0.78, .inherit = false});
  ASSERT_GE(rounds.size(), 2u);
  EXPECT_GT(rounds[1].keep, 0.78);
  const Round& best = best_of(rounds, 0.78);
  EXPECT_LE(best.share, 0.78);
  EXPECT_LT(best.proposal.loss, rounds[0].proposal.loss);
}

TEST_F(Proposing, WhereNoRoundHoldsTheFastestIsTaken) {
  const auto cost = [&](const Blueprint& b) { return macs(b); };
  const std::vector<double> clock = {0.90, 0.84, 0.86};
  size_t at = 0;
  const auto measured = [&](const Plan&) { return clock[at++]; };
  const std::vector<Round> rounds =
      propose_measured(blueprint(), choices(), cost, measured, {.keep = 0.78, .inherit = false});
  ASSERT_EQ(rounds.size(), 3u);
  EXPECT_EQ(&best_of(rounds, 0.78), &rounds[1]);
  // Out of reach by the sum: measured, and that is all that can be done.
  at = 0;
  const std::vector<Round> far =
      propose_measured(blueprint(), choices(), cost, measured, {.keep = 0.1, .cut = false});
  ASSERT_EQ(far.size(), 1u);
  EXPECT_FALSE(far[0].proposal.reached);
  EXPECT_EQ(far[0].share, clock[0]);
}

TEST_F(Proposing, MillisecondsAreMeasuredByTurns) {
  const Inputs inputs = inputs_for(four_stages(), 1, 3);
  // Out of the order of the walk, each its own.
  const std::vector<Regional> edits = {
      {.site = "up_blocks.3.attentions.1", .windows = {.window = 4, .pool = 2}},
      {.site = "down_blocks.0.attentions.0", .windows = {.window = 4, .pool = 2}}};
  std::vector<Preview> previews;
  for (const Regional& edit : edits) previews.emplace_back(blueprint(), Plan{.edits = {edit}});
  std::vector<StepChange> changes;
  for (size_t i = 0; i < edits.size(); ++i)
    changes.push_back({.site = blueprint().site(edits[i].site), .tap = &previews[i]});
  const std::vector<double> saved = milliseconds_saved(*whole_.model, changes, inputs, 3, "");
  ASSERT_EQ(saved.size(), 2u);
  for (double ms : saved) EXPECT_TRUE(std::isfinite(ms));
  const std::array<const Model*, 2> models = {whole_.model.get(), whole_.model.get()};
  const PassTurns turns = passes_by_turns(models, inputs, 3);
  EXPECT_EQ(turns.shares[0], 1);
  EXPECT_GT(turns.shares[1], 0);
  EXPECT_GT(turns.milliseconds[1], 0);
  EXPECT_THROW(passes_by_turns({}, inputs, 3), Error);
}

}  // namespace
}  // namespace lamina::asdm
