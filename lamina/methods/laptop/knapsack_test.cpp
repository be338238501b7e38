#include "lamina/methods/laptop/knapsack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "lamina/base/error.h"
#include "lamina/base/random.h"

namespace lamina::laptop {
namespace {

// Every choice there is.
std::optional<Choice> brute_force(const Cover& cover) {
  std::optional<Choice> best;
  std::vector<int> taken(cover.groups.size(), 0);
  for (;;) {
    const Choice choice = choice_of(cover, taken);
    if (holds(cover, choice) && (!best || choice.loss < best->loss)) best = choice;
    size_t g = 0;
    while (g < taken.size() && ++taken[g] == static_cast<int>(cover.groups[g].size())) taken[g++] = 0;
    if (g == taken.size()) return best;
  }
}

struct Drawn {
  int64_t items = 0, largest = 1000;
  size_t axes = 1;
  double share = 0.5;
};
Cover draw(SplitMix& random, const Drawn& drawn) {
  std::vector<double> losses;
  std::vector<std::vector<int64_t>> saved(drawn.axes);
  std::vector<int64_t> least;
  for (int64_t i = 0; i < drawn.items; ++i) losses.push_back(std::pow(10.0, -4 * random.uniform()));
  for (auto& axis : saved) {
    int64_t sum = 0;
    for (int64_t i = 0; i < drawn.items; ++i) {
      axis.push_back(random.below(drawn.largest));
      sum += axis.back();
    }
    least.push_back(static_cast<int64_t>(static_cast<double>(sum) * drawn.share));
  }
  return each_alone(losses, saved, least);
}

// Groups of up to four options, as expressible stages give them.
Cover draw_groups(SplitMix& random, size_t groups, size_t axes, double share) {
  Cover cover{.groups = {}, .least = std::vector<int64_t>(axes, 0)};
  int candidate = 0;
  for (size_t g = 0; g < groups; ++g) {
    Group group = {Option{.candidates = {}, .loss = 0, .saved = std::vector<int64_t>(axes, 0)}};
    for (int64_t o = random.below(4); o > 0; --o) {
      Option option{.candidates = {candidate++}, .loss = random.uniform(), .saved = {}};
      for (size_t a = 0; a < axes; ++a) option.saved.push_back(random.below(100));
      group.push_back(option);
    }
    for (size_t a = 0; a < axes; ++a)
      cover.least[a] += std::ranges::max(group, {}, [a](const Option& o) { return o.saved[a]; }).saved[a];
    cover.groups.push_back(std::move(group));
  }
  for (int64_t& least : cover.least) least = static_cast<int64_t>(static_cast<double>(least) * share);
  return cover;
}

TEST(Knapsack, DynamicExactAndBruteForceAgree) {
  SplitMix random(1);
  for (int round = 0; round < 150; ++round) {
    const Cover cover = draw(random, {.items = 1 + random.below(14), .share = random.uniform()});
    const std::optional<Choice> best = brute_force(cover);
    ASSERT_TRUE(best.has_value());
    const Frontier frontier(cover, {});
    EXPECT_TRUE(frontier.exact());
    const std::optional<Choice> dynamic = frontier.at(cover.least[0]);
    const Exact searched = exact(cover);
    ASSERT_TRUE(dynamic.has_value());
    ASSERT_EQ(searched.best.size(), 1u);
    EXPECT_TRUE(searched.proven);
    EXPECT_NEAR(dynamic->loss, best->loss, 1e-12);
    EXPECT_NEAR(searched.best[0].loss, best->loss, 1e-12);
    EXPECT_TRUE(holds(cover, *dynamic));
    EXPECT_TRUE(holds(cover, searched.best[0]));
  }
}

TEST(Knapsack, SixteenItemsAgree) {
  SplitMix random(2);
  for (int round = 0; round < 4; ++round) {
    const Cover cover = draw(random, {.items = 16, .share = 0.2 + 0.2 * round});
    const double best = brute_force(cover)->loss;
    EXPECT_NEAR(Frontier(cover, {}).at(cover.least[0])->loss, best, 1e-12);
    EXPECT_NEAR(exact(cover).best[0].loss, best, 1e-12);
  }
}

TEST(Knapsack, GroupsAgree) {
  SplitMix random(3);
  for (int round = 0; round < 100; ++round) {
    const Cover cover = draw_groups(random, 8, 1, random.uniform());
    const double best = brute_force(cover)->loss;
    EXPECT_NEAR(Frontier(cover, {}).at(cover.least[0])->loss, best, 1e-12);
    EXPECT_NEAR(exact(cover).best[0].loss, best, 1e-12);
  }
}

// A layout where something always goes.
TEST(Knapsack, GroupsWhoseCheapestOptionIsNotFreeAgree) {
  SplitMix random(13);
  for (int round = 0; round < 100; ++round) {
    Cover cover = draw_groups(random, 7, 1 + static_cast<size_t>(round % 2), random.uniform());
    for (Group& group : cover.groups) {
      for (Option& option : group) {
        option.loss += 0.3 * random.uniform();
        for (int64_t& saved : option.saved) saved += random.below(30);
      }
      std::ranges::sort(group, {}, &Option::loss);
    }
    const std::optional<Choice> best = brute_force(cover);
    const Exact searched = exact(cover);
    ASSERT_EQ(searched.best.size(), best ? 1u : 0u);
    if (!best) continue;
    EXPECT_NEAR(searched.best[0].loss, best->loss, 1e-12);
    if (cover.least.size() == 1) {
      EXPECT_NEAR(Frontier(cover, {}).at(cover.least[0])->loss, best->loss, 1e-12);
    }
    for (Order order : {Order::loss, Order::ratio}) {
      const std::optional<Choice> found = greedy(cover, order);
      if (!found) continue;
      EXPECT_TRUE(holds(cover, *found));
      EXPECT_GE(found->loss, best->loss - 1e-12);
    }
  }
}

TEST(Knapsack, TwoBudgetsAtOnceAgreeWithBruteForce) {
  SplitMix random(4);
  for (int round = 0; round < 100; ++round) {
    const bool grouped = round % 2 == 1;
    const double share = 0.9 * random.uniform();
    const Cover cover =
        grouped ? draw_groups(random, 8, 2, share) : draw(random, {.items = 12, .axes = 2, .share = share});
    const std::optional<Choice> best = brute_force(cover);
    const Exact searched = exact(cover);
    ASSERT_EQ(searched.best.size(), best ? 1u : 0u);
    if (best) {
      EXPECT_NEAR(searched.best[0].loss, best->loss, 1e-12);
    }
  }
}

TEST(Knapsack, GreedyHoldsItsBudgetsAndIsNeverBetter) {
  SplitMix random(5);
  for (int round = 0; round < 100; ++round) {
    const Cover cover = draw(
        random, {.items = 12, .axes = 1 + static_cast<size_t>(round % 2), .share = 0.9 * random.uniform()});
    const std::optional<Choice> best = brute_force(cover);
    for (Order order : {Order::loss, Order::ratio}) {
      const std::optional<Choice> found = greedy(cover, order);
      ASSERT_TRUE(found.has_value());
      EXPECT_TRUE(holds(cover, *found));
      EXPECT_GE(found->loss, best->loss - 1e-12);
    }
  }
}

TEST(Knapsack, GreedyGivesBackWhatIsSuperfluous) {
  const std::vector<double> losses = {1, 2, 3};
  const Cover cover = each_alone(losses, {{1, 1, 10}}, {10});
  EXPECT_EQ(removed(cover, *greedy(cover, Order::loss)), std::vector<int>({2}));
}

TEST(Knapsack, BucketsRoundDownSoThatBudgetsHold) {
  SplitMix random(6);
  for (int round = 0; round < 100; ++round) {
    const Cover cover = draw(random, {.items = 12, .largest = 1000003, .share = random.uniform()});
    const Frontier coarse(cover, {.axis = 0, .buckets = 64});
    EXPECT_FALSE(coarse.exact());
    const std::optional<Choice> found = coarse.at(cover.least[0]);
    const double best = brute_force(cover)->loss;
    ASSERT_TRUE(found.has_value());
    EXPECT_GE(found->saved[0], cover.least[0]);
    EXPECT_GE(found->loss, best - 1e-12);
  }
  // Rounding up would take two of these for 20.
  const std::vector<double> losses = {1, 1, 1};
  const Cover cover = each_alone(losses, {{9, 9, 9}}, {20});
  EXPECT_EQ(removed(cover, *Frontier(cover, {.axis = 0, .buckets = 2}).at(20)).size(), 3u);
}

TEST(Knapsack, TheFrontierIsMonotoneAndOfOnePass) {
  SplitMix random(7);
  const Cover cover = draw(random, {.items = 30});
  const Frontier frontier(cover, {});
  double before = 0;
  for (int64_t least = 0; least <= frontier.largest(); least += 97) {
    const std::optional<Choice> choice = frontier.at(least);
    ASSERT_TRUE(choice.has_value());
    EXPECT_GE(choice->saved[0], least);
    EXPECT_GE(choice->loss, before);
    before = choice->loss;
  }
  const std::vector<Choice> points = frontier.sampled(50);
  for (size_t i = 1; i < points.size(); ++i) {
    EXPECT_GT(points[i].saved[0], points[i - 1].saved[0]);
    EXPECT_GT(points[i].loss, points[i - 1].loss);
  }
}

TEST(Knapsack, WhatCannotBeSavedIsNothing) {
  const std::vector<double> losses = {1, 2};
  const Cover cover = each_alone(losses, {{3, 4}}, {8});
  EXPECT_FALSE(greedy(cover, Order::ratio).has_value());
  EXPECT_FALSE(Frontier(cover, {}).at(8).has_value());
  EXPECT_TRUE(exact(cover).best.empty());
  EXPECT_TRUE(exact(cover).proven);
  // Each budget could hold, both together not.
  const std::vector<double> two = {1, 1};
  Cover both = each_alone(two, {{5, 0}, {0, 5}}, {5, 5});
  EXPECT_EQ(exact(both).best.size(), 1u);
  both.groups = {{both.groups[0][0], both.groups[0][1], both.groups[1][1]}};
  EXPECT_TRUE(exact(both).best.empty());
}

TEST(Knapsack, ZeroSavingsAndZeroLosses) {
  const std::vector<double> losses = {0.5, 0, 0.25, 0};
  const Cover cover = each_alone(losses, {{0, 4, 3, 0}}, {6});
  for (const Choice& choice :
       {*Frontier(cover, {}).at(6), exact(cover).best.at(0), *greedy(cover, Order::loss)}) {
    EXPECT_DOUBLE_EQ(choice.loss, 0.25);
    EXPECT_FALSE(std::ranges::count(removed(cover, choice), 0));
  }
  const std::vector<double> one = {1};
  EXPECT_EQ(removed(cover, *Frontier(cover, {}).at(0)), std::vector<int>());
  EXPECT_EQ(Frontier(each_alone(one, {{0}}, {0}), {}).at(0)->loss, 0);
  EXPECT_EQ(exact(Cover{}).best.size(), 1u);
}

TEST(Knapsack, CoveringIsPacking) {
  SplitMix random(8);
  for (int round = 0; round < 60; ++round) {
    const Cover cover = draw(random, {.items = 1 + random.below(16), .share = random.uniform()});
    int64_t total = 0;
    for (const Group& group : cover.groups) total += group[1].saved[0];
    const std::optional<Choice> other = packed(cover, total - cover.least[0]);
    ASSERT_TRUE(other.has_value());
    EXPECT_TRUE(holds(cover, *other));
    EXPECT_NEAR(other->loss, Frontier(cover, {}).at(cover.least[0])->loss, 1e-12);
  }
}

TEST(Knapsack, TheNextBestPlansAreThoseOfBruteForce) {
  SplitMix random(9);
  for (int round = 0; round < 20; ++round) {
    const Cover cover = draw(random, {.items = 10, .share = 0.5});
    const Exact found = exact(cover, {.best = 8});
    // From none of them can anything go back; there is none better between them.
    std::vector<double> all;
    for (int bits = 0; bits < 1 << 10; ++bits) {
      std::vector<int> taken(10);
      for (size_t g = 0; g < 10; ++g) taken[g] = bits >> g & 1;
      const Choice choice = choice_of(cover, taken);
      if (!holds(cover, choice)) continue;
      bool minimal = true;
      for (size_t g = 0; g < 10; ++g) {
        std::vector<int> less = taken;
        if (!less[g]) continue;
        less[g] = 0;
        minimal &= !holds(cover, choice_of(cover, less));
      }
      if (minimal) all.push_back(choice.loss);
    }
    std::ranges::sort(all);
    ASSERT_EQ(found.best.size(), std::min<size_t>(8, all.size()));
    for (size_t i = 0; i < found.best.size(); ++i) EXPECT_NEAR(found.best[i].loss, all[i], 1e-12);
  }
}

TEST(Knapsack, EightySevenCandidatesTakeMoments) {
  SplitMix random(10);
  const Cover cover = draw(random, {.items = 87, .largest = 35'000'000});
  const Exact found = exact(cover, {.best = 50});
  EXPECT_TRUE(found.proven);
  const Frontier frontier(cover, {});
  const std::optional<Choice> dynamic = frontier.at(cover.least[0]);
  EXPECT_NEAR(dynamic->loss, found.best[0].loss, 0.02 * found.best[0].loss);
  EXPECT_GE(dynamic->loss, found.best[0].loss - 1e-12);
}

TEST(Knapsack, RefiningFollowsTheTruth) {
  // Neighbours interact: 0 and 1 together lose ten times their sum, which the sum cannot know.
  const std::vector<double> losses = {1, 1, 1.5, 1.5};
  const Cover cover = each_alone(losses, {{1, 1, 1, 1}}, {2});
  const auto truth = [&](const Choice& choice) {
    return choice.taken[0] && choice.taken[1] ? 10 * choice.loss : choice.loss;
  };
  const Choice start = exact(cover).best[0];
  EXPECT_EQ(removed(cover, start), std::vector<int>({0, 1}));
  const Refined refined = refine(cover, start, truth);
  EXPECT_TRUE(refined.converged);
  EXPECT_DOUBLE_EQ(refined.truth, 2.5);
  EXPECT_TRUE(holds(cover, refined.choice));
  EXPECT_EQ(refine(cover, start, truth, {.evaluations = 1}).truth, 20);
}

TEST(Knapsack, RefusesWhatIsNoKnapsack) {
  const std::vector<double> negative = {-1}, fine = {1}, none = {std::nan("")};
  EXPECT_THROW(each_alone(negative, {{1}}, {1}), Error);
  EXPECT_THROW(each_alone(none, {{1}}, {1}), Error);
  EXPECT_THROW(each_alone(fine, {{-1}}, {1}), Error);
  EXPECT_THROW(each_alone(fine, {{1, 2}}, {1}), Error);
  EXPECT_THROW(each_alone(fine, {{1}}, {1, 2}), Error);
}

}  // namespace
}  // namespace lamina::laptop
