// Generated pictures with captions: shapes of two sizes on flat or shaded grounds, alone, several alike, or
// two that stand somewhere to each other. What a text-to-image model of our own is trained on, and what its
// pictures are scored by: every caption can be read back to what it says.
// A scene is a pure function of seed, split and index, the same on every machine.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/image/image.h"

namespace lamina::scene {

enum class Shape { disc, square, triangle, cross, ring, star, heart };
enum class Colour { red, orange, yellow, green, cyan, blue, purple };
enum class Size { small, large };
enum class Relation { left_of, right_of, above, below };
enum class Ground { white, grey, black, navy, pink, sand };
inline constexpr int kShapes = 7, kColours = 7, kSizes = 2, kRelations = 4, kGrounds = 6, kMostAlike = 4;

struct Thing {
  Shape shape = Shape::disc;
  Colour colour = Colour::red;
  Size size = Size::small;
  bool operator==(const Thing&) const = default;
};

// What a caption says, whatever its words.
struct Said {
  Thing first = {};
  int count = 1;                     // of things like the first; 1 where there is a second
  std::optional<Thing> second = {};  // another one: "first RELATION second"
  Relation relation = Relation::left_of;
  Ground top = Ground::white, bottom = Ground::white;  // one ground: both are it
  bool operator==(const Said&) const = default;
};
// Whether a picture of one is a picture of the other: "a above b" is "b below a".
bool same_picture(const Said& a, const Said& b);

// Where a thing stands: centre and radius, in sides of the picture.
struct Place {
  double x = 0, y = 0, radius = 0;
};

struct Scene {
  Said said;
  uint32_t phrasing = 0;            // which of the words and templates the caption takes
  std::vector<Place> places = {};   // of each thing
  std::array<double, 3> tint = {};  // of the things' colours, added to each channel of 0 ... 255
  int64_t side = 32;                // pixels
};

// Pairs of colour and shape that training never sees: one for each colour and each shape.
bool held_out(Colour colour, Shape shape);

// `novel`: every scene has a thing of a held-out pair; the others have none.
enum class Split { train, validation, test, novel };
std::string_view split_name(Split split);

struct Options {
  uint64_t seed = 0;
  Split split = Split::train;
  int64_t side = 32;
};
Scene scene_at(uint64_t index, const Options& options);
// The same meaning drawn anew: places and tint by a seed.
Scene placed(const Said& said, uint64_t seed, int64_t side = 32);

// Each pixel is the mean of 4 x 4 points.
Picture painted(const Scene& scene);

// At most 14 words of `vocabulary`, parted by one space.
std::string caption(const Scene& scene);
std::string caption(const Said& said, uint32_t phrasing = 0);
inline constexpr uint32_t kPhrasings = 3 * 2 * 2 * 2 * 2;
inline constexpr int kMostWords = 14;
// Every word that captions have, sorted.
std::vector<std::string> vocabulary();
// What a caption says; nothing where it is none of ours.
std::optional<Said> parsed(std::string_view caption);

std::string_view name(Shape shape);
std::string_view name(Colour colour);
std::string_view name(Size size);
std::string_view name(Relation relation);
std::string_view name(Ground ground);

// ---- for scorers: what can be told from the picture alone

// One question with its possible answers.
struct Head {
  std::string name;
  int64_t classes = 0;
};
// count; axis (none, side by side, one above the other); shape, colour and size of the left or upper thing
// and of the other one (a class more: there is none); the ground at the top and at the bottom.
const std::vector<Head>& heads();
// The right answer for each head.
std::vector<int64_t> labels(const Said& said);
// What answers say; nothing where they contradict each other.
std::optional<Said> said_by(const std::vector<int64_t>& labels);

}  // namespace lamina::scene
