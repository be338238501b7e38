#include "lamina/methods/laptop/study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"

namespace lamina::laptop {
namespace {

const std::vector<double> kValues = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

double total(std::span<const int> removed) {
  double sum = 0;
  for (int r : removed) sum += kValues[static_cast<size_t>(r)];
  return sum;
}

TEST(Study, OfALossThatAddsUpTheSumIsRight) {
  const std::vector<Predictor> predictors = {sum_of("sum", kValues), squared_norms("norms", kValues),
                                             sum_of("reversed", {kValues.rbegin(), kValues.rend()})};
  const Study made = study(15, predictors, total, {.plans = 39});
  ASSERT_EQ(made.rows.size(), 39U);
  EXPECT_DOUBLE_EQ(made.correlations()[0], 1);
  EXPECT_LT(made.correlations()[2], 0.9);
  for (int size = 2; size <= 14; ++size) EXPECT_DOUBLE_EQ(made.median_ratio(0, size, size), 1) << size;
  EXPECT_LT(made.median_ratio(1, 2, 14), 1) << "the bound is above the truth";
  EXPECT_TRUE(std::isnan(made.median_ratio(0, 15, 15)));
  const Study again = study(15, predictors, total, {.plans = 39});
  EXPECT_EQ(again.rows[7].removed, made.rows[7].removed);
  EXPECT_THROW(study(10, predictors, total, {}), Error);
}

TEST(Study, EverySubsetIsMeasured) {
  const std::vector<int> few = {0, 3, 5};
  const std::vector<int64_t> weights = {5, 0, 0, 4, 0, 6};
  const std::vector<double> budgets = {0.3, 0.7}, values = {1, 0, 0, 2, 0, 3.5};
  // Parts 0 and 3 hurt more together than alone, which the sum does not know.
  const auto truth = [&](std::span<const int> removed) {
    double sum = 0;
    for (int r : removed) sum += values[static_cast<size_t>(r)];
    return removed.size() == 2 && removed[0] == 0 && removed[1] == 3 ? 10 : sum;
  };
  const BruteForce made = brute_force(few, values, weights, budgets, truth);
  EXPECT_EQ(made.plans, 8);
  ASSERT_EQ(made.rows.size(), 2U);
  EXPECT_THAT(made.rows[0].best, testing::ElementsAre(0));
  EXPECT_EQ(made.rows[0].best, made.rows[0].chosen);
  EXPECT_THAT(made.rows[1].best, testing::ElementsAre(0, 5));
  EXPECT_DOUBLE_EQ(made.rows[1].best_truth, 4.5);
}

}  // namespace
}  // namespace lamina::laptop
