#include "lamina/eval/scene_score.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lamina/base/error.h"
#include "lamina/eval/picture_score.h"

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
}

}  // namespace
}  // namespace lamina
