#include "lamina/eval/t_test.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lamina/base/error.h"

namespace lamina {
namespace {

TEST(TTest, MeansAndDifferencesHaveStudentsIntervals) {
  const std::vector<double> a = {1, 2, 4}, b = {0.5, 1, 2.5};
  const Mean apart = mean_difference(a, b);
  EXPECT_DOUBLE_EQ(apart.mean, 1);
  // sd 0.5, t(2) = 4.30265
  EXPECT_NEAR(apart.high - apart.mean, 4.30265 * 0.5 / std::sqrt(3.0), 1e-5);
  EXPECT_NEAR(apart.mean - apart.low, 4.30265 * 0.5 / std::sqrt(3.0), 1e-5);
  EXPECT_TRUE(std::isnan(mean_of_runs(std::vector<double>{1}).low));
  EXPECT_THROW(mean_difference(a, std::vector<double>{1}), Error);
  // t(9) = 2.26216
  const std::vector<double> ten = {0, 0, 0, 0, 0, 1, 1, 1, 1, 1};
  EXPECT_NEAR(mean_of_runs(ten).high - 0.5, 2.26216 * std::sqrt(0.25 * 10 / 9 / 10), 1e-5);
}

// scipy.stats.ttest_rel on the same numbers.
TEST(TTest, PairedP) {
  EXPECT_NEAR(paired(std::vector<double>{1, 2, 4}, std::vector<double>{0.5, 1, 2.5}).p, 0.0741799, 1e-6);
  EXPECT_NEAR(paired(std::vector<double>{1, 2, 3, 4}, std::vector<double>{1.1, 1.8, 3.3, 3.9}).p, 0.8360832,
              1e-6);
  EXPECT_EQ(paired(std::vector<double>{1, 2}, std::vector<double>{1, 2}).p, 1);
  EXPECT_EQ(paired(std::vector<double>{2, 3}, std::vector<double>{1, 2}).p, 0);
  EXPECT_TRUE(std::isnan(paired(std::vector<double>{2}, std::vector<double>{1}).p));
}

TEST(TTest, TheLargestOfManyEqualArms) {
  EXPECT_NEAR(expected_maximum(1), 0, 1e-9);
  EXPECT_NEAR(expected_maximum(2), 0.56418958, 1e-7);  // 1 / sqrt(pi)
  EXPECT_NEAR(expected_maximum(16), 1.76599, 1e-4);
}

}  // namespace
}  // namespace lamina
