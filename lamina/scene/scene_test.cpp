#include "lamina/scene/scene.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::scene {
namespace {

constexpr uint64_t kMany = 4000;

std::vector<Thing> things_of(const Said& said) {
  std::vector<Thing> things{said.first};
  if (said.second) things.push_back(*said.second);
  return things;
}

TEST(Scene, IsAFunctionOfSeedSplitAndIndex) {
  EXPECT_EQ(painted(scene_at(7, {.seed = 3})).pixels, painted(scene_at(7, {.seed = 3})).pixels);
  std::set<std::vector<uint8_t>> pictures;
  for (uint64_t index = 0; index < 50; ++index) {
    for (const Split split : {Split::train, Split::validation, Split::test, Split::novel}) {
      for (uint64_t seed = 0; seed < 3; ++seed)
        pictures.insert(painted(scene_at(index, {.seed = seed, .split = split})).pixels);
    }
  }
  EXPECT_EQ(pictures.size(), 600u);
}

TEST(Scene, StaysTheSameFromVersionToVersion) {
  EXPECT_EQ(caption(scene_at(0, {.split = Split::test})), "two tiny blue rings on grey to white");
  EXPECT_EQ(caption(scene_at(1, {.split = Split::test})),
            "a small yellow square left of a small blue disc on black to navy");
}

TEST(Scene, HeldOutPairsStandInNovelScenesAlone) {
  std::set<Colour> colours;
  std::set<Shape> shapes;
  for (int c = 0; c < kColours; ++c) {
    for (int s = 0; s < kShapes; ++s) {
      if (!held_out(static_cast<Colour>(c), static_cast<Shape>(s))) continue;
      colours.insert(static_cast<Colour>(c));
      shapes.insert(static_cast<Shape>(s));
    }
  }
  EXPECT_EQ(colours.size(), static_cast<size_t>(kColours));
  EXPECT_EQ(shapes.size(), static_cast<size_t>(kShapes));
  const auto unseen = [](const Thing& thing) { return held_out(thing.colour, thing.shape); };
  for (uint64_t index = 0; index < kMany; ++index) {
    for (const Split split : {Split::train, Split::validation, Split::test, Split::novel}) {
      const auto things = things_of(scene_at(index, {.split = split}).said);
      EXPECT_EQ(std::any_of(things.begin(), things.end(), unseen), split == Split::novel);
    }
  }
}

TEST(Scene, CaptionsAreReadBack) {
  const std::vector<std::string> known = vocabulary();
  std::set<std::string> met;
  for (uint64_t index = 0; index < kMany; ++index) {
    const Scene scene = scene_at(index, {});
    const std::string text = caption(scene);
    const std::vector<std::string> words = split(text, ' ');
    EXPECT_LE(words.size(), static_cast<size_t>(kMostWords));
    met.insert(words.begin(), words.end());
    const auto read = parsed(text);
    ASSERT_TRUE(read.has_value()) << text;
    EXPECT_EQ(*read, scene.said) << text;
  }
  EXPECT_TRUE(std::includes(known.begin(), known.end(), met.begin(), met.end()));
  EXPECT_EQ(met.size(), known.size());
}

TEST(Scene, OtherTextIsNoCaption) {
  for (const std::string_view text :
       {"", "a", "a red disc on white", "a small red disc", "a small red disc on",
        "a small red discs on white", "two small red disc on white",
        "two small red discs left of a small blue ring on white",
        "a small red disc left a small blue ring on white", "a small red disc on white to white",
        "a small red disc on a white", "a small red disc on white or so", "A small red disc on white"}) {
    EXPECT_FALSE(parsed(text).has_value()) << text;
  }
  EXPECT_TRUE(parsed("  a  small\tred disc on white\n").has_value());
}

TEST(Scene, EveryPhrasingSaysTheSame) {
  const Said said = *parsed("one tiny red circle over one big blue ring in front of navy");
  std::set<std::string> texts;
  for (uint32_t phrasing = 0; phrasing < kPhrasings; ++phrasing) {
    texts.insert(caption(said, phrasing));
    EXPECT_EQ(parsed(caption(said, phrasing)), said);
  }
  EXPECT_EQ(texts.size(), static_cast<size_t>(kPhrasings));
}

TEST(Scene, LabelsAreOfThePicture) {
  const Said a = *parsed("a small red ring above a large blue square on grey to navy"),
             b = *parsed("a large blue square below a small red ring on grey to navy"),
             c = *parsed("a large blue square above a small red ring on grey to navy");
  EXPECT_TRUE(same_picture(a, b));
  EXPECT_FALSE(same_picture(a, c));
  for (uint64_t index = 0; index < kMany; ++index) {
    const Said said = scene_at(index, {.split = Split::novel}).said;
    const auto answers = labels(said);
    ASSERT_EQ(answers.size(), heads().size());
    for (size_t i = 0; i < answers.size(); ++i) EXPECT_LT(answers[i], heads()[i].classes) << heads()[i].name;
    const auto back = said_by(answers);
    ASSERT_TRUE(back.has_value());
    EXPECT_TRUE(same_picture(*back, said));
  }
  std::vector<int64_t> torn = labels(a);
  torn[5] = kShapes;  // side by side with nothing
  EXPECT_FALSE(said_by(torn).has_value());
  EXPECT_FALSE(said_by({}).has_value());
}

TEST(Scene, ThingsStandApartAndWhole) {
  for (uint64_t index = 0; index < kMany; ++index) {
    const Scene scene = scene_at(index, {});
    for (size_t i = 0; i < scene.places.size(); ++i) {
      const Place& a = scene.places[i];
      EXPECT_GE(std::min({a.x, a.y, 1 - a.x, 1 - a.y}), a.radius) << caption(scene);
      for (size_t j = 0; j < i; ++j) {
        const Place& b = scene.places[j];
        EXPECT_GE(std::max(std::abs(a.x - b.x), std::abs(a.y - b.y)), a.radius + b.radius - 0.03)
            << caption(scene);
      }
    }
  }
}

TEST(Scene, RelationsAreWhereThingsStand) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const auto of = [&](std::string_view relation) {
      return placed(*parsed(fmt::format("a small red ring {} a big blue star on sand", relation)), seed)
          .places;
    };
    EXPECT_LT(of("left of")[0].x + 0.2, of("left of")[1].x);
    EXPECT_GT(of("right of")[0].x, of("right of")[1].x + 0.2);
    EXPECT_LT(of("above")[0].y + 0.2, of("above")[1].y);
    EXPECT_GT(of("below")[0].y, of("below")[1].y + 0.2);
  }
}

TEST(Scene, PaintsWhatIsSaid) {
  Scene scene = placed(*parsed("a large green square on white to black"), 5, 64);
  scene.tint = {};
  const Picture picture = painted(scene);
  EXPECT_EQ(picture.width, 64);
  EXPECT_EQ(picture.at(0, 0)[0], 246);
  EXPECT_EQ(picture.at(63, 63)[2], 20);
  const Place& place = scene.places[0];
  const uint8_t* middle = picture.at(static_cast<int64_t>(place.x * 64), static_cast<int64_t>(place.y * 64));
  EXPECT_THAT((std::vector<int>{middle[0], middle[1], middle[2]}), testing::ElementsAre(46, 165, 70));
}

TEST(Scene, RefusesWhatCannotBeMade) {
  EXPECT_THROW(scene_at(0, {.side = 8}), Error);
  EXPECT_THROW(placed({.count = 5}, 0), Error);
  EXPECT_THROW(placed({.count = 2, .second = Thing{}}, 0), Error);
  EXPECT_THROW(painted(Scene{}), Error);
}

}  // namespace
}  // namespace lamina::scene
