#include "lamina/eval/scene_score.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/eval/picture_score.h"
#include "lamina/eval/t_test.h"

namespace lamina {
namespace {

using scene::Said;

Said said(std::string_view caption) {
  return scene::parsed(caption).value();
}

SceneScore score_of(std::string_view shown, std::string_view wanted) {
  return scene_score({scene::labels(said(shown))}, {said(wanted)});
}

TEST(SceneScore, WhatIsShownIsRight) {
  for (uint64_t index = 0; index < 200; ++index) {
    const Said one = scene::scene_at(index, {}).said;
    const SceneScore score = scene_score({scene::labels(one)}, {one});
    for (const auto& [name, rate] : named_rates(score)) EXPECT_EQ(rate.right, rate.asked) << name;
    EXPECT_EQ(score.shape.asked, one.second ? 2 : 1);
    EXPECT_EQ(score.relation.asked, one.second ? 1 : 0);
  }
}

TEST(SceneScore, TurnedRoundIsARelationThatIsWrong) {
  const SceneScore score = score_of("a small red ring right of a large blue star on sand",
                                    "a small red ring left of a large blue star on sand");
  EXPECT_EQ(score.shape.right, 2);
  EXPECT_EQ(score.colour.right, 2);
  EXPECT_EQ(score.size.right, 2);
  EXPECT_EQ(score.relation.right, 0);
  EXPECT_EQ(score.all.right, 0);
}

TEST(SceneScore, ColoursThatChangedPlacesAreWrong) {
  const SceneScore score = score_of("a small blue ring left of a small red star on sand",
                                    "a small red ring left of a small blue star on sand");
  EXPECT_EQ(score.shape.right, 2);
  EXPECT_EQ(score.colour.right, 0);
  EXPECT_EQ(score.relation.right, 1);
}

TEST(SceneScore, OneForTwo) {
  const SceneScore score =
      score_of("a small red ring on sand", "a small red ring above a large blue star on sand");
  EXPECT_EQ(score.shape.right, 1);
  EXPECT_EQ(score.shape.asked, 2);
  EXPECT_EQ(score.count.right, 0);
  EXPECT_EQ(score.relation.right, 0);
  EXPECT_EQ(score.ground.right, 1);
}

TEST(SceneScore, CaptionsAndPicturesOfOneNumber) {
  EXPECT_THROW(scene_score({}, {said("a small red ring on sand")}), Error);
  EXPECT_THROW(agreement({{1}}, {}), Error);
}

// 8 of 10: 49.0 % to 94.3 %; 0 of 20: up to z^2 / (n + z^2).
TEST(Rate, IntervalsOfWilson) {
  const auto [low, high] = Rate{8, 10}.interval();
  EXPECT_NEAR(low, 0.4901625, 1e-6);
  EXPECT_NEAR(high, 0.9433178, 1e-6);
  const auto [none, some] = Rate{0, 20}.interval();
  EXPECT_NEAR(none, 0, 1e-12);
  EXPECT_NEAR(some, 0.1611252, 1e-6);
}

TEST(Marks, OfEachPicture) {
  const Said two = said("a small red ring left of a large blue star on sand"),
             one = said("a small red ring on sand");
  const Marks marks =
      scene_marks({scene::labels(two), scene::labels(one), scene::labels(one)}, {two, one, two});
  using testing::ElementsAre, testing::Pair;
  EXPECT_THAT(marks, ElementsAre(Pair("shape", "110"), Pair("colour", "110"), Pair("size", "110"),
                                 Pair("relation", "1-0"), Pair("count", "110"), Pair("ground", "111"),
                                 Pair("all", "110")));
  EXPECT_THROW(scene_marks({}, {one}), Error);
}

TEST(Marks, AreThoseOfTheRates) {
  std::vector<std::vector<int64_t>> answers;
  std::vector<Said> wanted;
  for (uint64_t index = 0; index < 100; ++index) {
    wanted.push_back(scene::scene_at(index, {}).said);
    answers.push_back(scene::labels(scene::scene_at(index + index % 2, {}).said));
  }
  const SceneScore score = scene_score(answers, wanted);
  for (const auto& [name, marks] : scene_marks(answers, wanted)) {
    if (name == "all") EXPECT_EQ(std::ranges::count(marks, '1'), score.all.right);
    if (name == "relation") EXPECT_EQ(std::ranges::count(marks, '1'), score.relation.right);
    if (name == "relation")
      EXPECT_EQ(std::ssize(marks) - std::ranges::count(marks, '-'), score.relation.asked);
  }
}

// By hand, 98 captions, 8 and 3 right alone: 9 / 100 - 4 / 100 +- z sqrt((0.13 - 0.05^2) / 100).
TEST(PairedShares, IntervalsOfBonettAndPrice) {
  const PairedShares some{.asked = 98, .first_alone = 8, .second_alone = 3};
  EXPECT_NEAR(some.difference(), 5.0 / 98, 1e-15);
  EXPECT_NEAR(some.interval().first, 0.05 - 1.959963984540054 * 0.0357071421427143, 1e-9);
  EXPECT_NEAR(some.interval().second, 0.05 + 1.959963984540054 * 0.0357071421427143, 1e-9);
  // None alone: z sqrt(2 / 400 / 400), where Student's t would claim a difference of nothing for sure.
  const auto [low, high] = PairedShares{.asked = 398}.interval();
  EXPECT_NEAR(low, -0.0069295, 1e-7);
  EXPECT_NEAR(high, 0.0069295, 1e-7);
  EXPECT_EQ(PairedShares{}.interval(), (std::pair<double, double>{-1, 1}));
}

TEST(PairedShares, OfMarks) {
  const PairedShares shares = paired_shares("1100-1", "1010-0");
  EXPECT_EQ(shares.asked, 5);
  EXPECT_EQ(shares.first_alone, 2);
  EXPECT_EQ(shares.second_alone, 1);
  // Of many captions it is Student's interval of the differences.
  std::string a, b;
  std::vector<double> x, y;
  for (int i = 0; i < 4000; ++i) {
    a += i % 5 < 2 ? '1' : '0', b += i % 7 < 2 ? '1' : '0';
    x.push_back(i % 5 < 2 ? 1 : 0), y.push_back(i % 7 < 2 ? 1 : 0);
  }
  const auto [low, high] = paired_shares(a, b).interval();
  const Paired student = paired(x, y);
  EXPECT_NEAR(paired_shares(a, b).difference(), student.difference, 1e-12);
  EXPECT_NEAR(low, student.low, 2e-4);
  EXPECT_NEAR(high, student.high, 2e-4);
  EXPECT_THROW(paired_shares("1", "11"), Error);
  EXPECT_THROW(paired_shares("-", "1"), Error);
  EXPECT_THROW(paired_shares("2", "1"), Error);
}

TEST(FrechetDistance, OfTwoNormalsInClosedForm) {
  // Standard normals; the second moved by 3 and grown to twice the width: 9 + sum (1 - 2)^2.
  const Tensor x = random_normal({4000, 3}, 1).to(at::kDouble);
  const Tensor mean = x.mean(0), centred = x - mean;
  const Tensor covariance = centred.t().mm(centred) / 3999.0;
  const auto [values, vectors] = at::linalg_eigh(covariance);
  const Tensor white = centred.mm(vectors / values.sqrt()).mm(vectors.t());
  Tensor move = at::zeros({3}, at::kDouble);
  move[0] = 3.0;
  EXPECT_NEAR(frechet_distance(white, 2 * white + move), 9 + 3, 1e-9);
  EXPECT_NEAR(frechet_distance(x, x), 0, 1e-9);
  EXPECT_NEAR(frechet_distance(x, 2 * white), frechet_distance(2 * white, x), 1e-9);
  EXPECT_THROW(frechet_distance(x, x.narrow(0, 0, 1)), Error);
  EXPECT_THROW(frechet_distance(x, x.narrow(1, 0, 2)), Error);
}

TEST(Psnr, OfAKnownError) {
  const Tensor a = at::zeros({1, 3, 4, 4});
  EXPECT_NEAR(psnr(a, a + 0.2), 20, 1e-5);
  EXPECT_TRUE(std::isinf(psnr(a, a)));
  EXPECT_THROW(psnr(a, at::zeros({1, 3, 4, 5})), Error);
  const std::vector<double> each = psnr_of_each(at::cat({a, a}), at::cat({a + 0.02, a}));
  EXPECT_NEAR(each.at(0), 40, 1e-4);
  EXPECT_TRUE(std::isinf(each.at(1)));
  EXPECT_THROW(psnr_of_each(a, at::cat({a, a})), Error);
}

}  // namespace
}  // namespace lamina
