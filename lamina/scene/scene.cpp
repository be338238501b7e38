#include "lamina/scene/scene.h"

#include <algorithm>
#include <utility>

#include "lamina/base/error.h"
#include "lamina/base/random.h"

namespace lamina::scene {

namespace {

template <class E>
E one_of(SplitMix& random, int count) {
  return static_cast<E>(random.below(count));
}

double between(SplitMix& random, double low, double high) {
  return low + (high - low) * random.uniform();
}

Thing some_thing(SplitMix& random, bool novel) {
  for (;;) {
    const Thing thing{.shape = one_of<Shape>(random, kShapes),
                      .colour = one_of<Colour>(random, kColours),
                      .size = one_of<Size>(random, kSizes)};
    if (held_out(thing.colour, thing.shape) == novel) return thing;
  }
}

// A quarter is alone, a quarter several alike, half two that differ.
Said some_meaning(SplitMix& random, bool novel) {
  Said said;
  const int64_t sort = random.below(8);
  const bool other_is_novel = novel && random.below(2) == 0;
  said.first = some_thing(random, novel && !(sort >= 4 && other_is_novel));
  if (sort >= 4) {
    do {
      said.second = some_thing(random, other_is_novel);
    } while (said.second->shape == said.first.shape && said.second->colour == said.first.colour);
    said.relation = one_of<Relation>(random, kRelations);
  } else if (sort >= 2) {
    said.count = 2 + static_cast<int>(random.below(kMostAlike - 1));
  }
  said.top = said.bottom = one_of<Ground>(random, kGrounds);
  if (random.below(4) == 0) {
    while (said.bottom == said.top) said.bottom = one_of<Ground>(random, kGrounds);
  }
  return said;
}

double some_radius(SplitMix& random, Size size) {
  return size == Size::small ? between(random, 0.125, 0.145) : between(random, 0.205, 0.23);
}

// Cells that things alike stand in, in sides of the picture.
std::vector<Place> cells(SplitMix& random, int count) {
  constexpr double a = 0.26, b = 0.74, c = 0.5;
  const int64_t turn = random.below(count == 2 ? 4 : count == 3 ? 4 : 1);
  if (count == 2) {
    const std::array<std::vector<Place>, 4> all{
        {{{a, c}, {b, c}}, {{c, a}, {c, b}}, {{a, a}, {b, b}}, {{b, a}, {a, b}}}};
    return all[static_cast<size_t>(turn)];
  }
  if (count == 3) {
    const std::array<std::vector<Place>, 4> all{{{{c, a}, {a, b}, {b, b}},
                                                 {{a, a}, {b, a}, {c, b}},
                                                 {{a, c}, {b, a}, {b, b}},
                                                 {{a, a}, {a, b}, {b, c}}}};
    return all[static_cast<size_t>(turn)];
  }
  return {{a, a}, {b, a}, {a, b}, {b, b}};
}

std::vector<Place> places_alike(SplitMix& random, const Thing& thing, int count) {
  std::vector<Place> places = cells(random, count);
  const double radius = some_radius(random, thing.size);
  for (Place& place : places) {
    // They stay in their cells: no two touch.
    const double room = 0.235 - radius;
    place.x += between(random, -room, room);
    place.y += between(random, -room, room);
    place.radius = radius;
  }
  return places;
}

Place alone(SplitMix& random, Size size) {
  const double radius = some_radius(random, size), edge = radius + 0.06;
  return {between(random, edge, 1 - edge), between(random, edge, 1 - edge), radius};
}

std::vector<Place> places_of_two(SplitMix& random, const Said& said) {
  Place low{.radius = some_radius(random, said.first.size)};
  Place high{.radius = some_radius(random, said.second->size)};
  const bool first_is_low = said.relation == Relation::left_of || said.relation == Relation::above;
  if (!first_is_low) std::swap(low, high);
  const bool side_by_side = said.relation == Relation::left_of || said.relation == Relation::right_of;
  const double middle = between(random, 0.38, 0.62);
  const auto put = [&](Place& place, double along) {
    along += between(random, -0.02, 0.02);
    const double across = middle + between(random, -0.06, 0.06);
    place.x = side_by_side ? along : across;
    place.y = side_by_side ? across : along;
  };
  put(low, 0.26);
  put(high, 0.74);
  if (first_is_low) return {low, high};
  return {high, low};
}

void place(Scene& scene, SplitMix& random) {
  const Said& said = scene.said;
  if (said.second) {
    scene.places = places_of_two(random, said);
  } else if (said.count > 1) {
    scene.places = places_alike(random, said.first, said.count);
  } else {
    scene.places = {alone(random, said.first.size)};
  }
  for (double& channel : scene.tint) channel = between(random, -10, 10);
}

void check_side(int64_t side) {
  if (side < 16 || side > 1024) fail("scenes of {} pixels a side were asked for; 16 to 1024 are made", side);
}

}  // namespace

bool held_out(Colour colour, Shape shape) {
  return static_cast<int>(shape) == (3 * static_cast<int>(colour) + 1) % kShapes;
}

std::string_view split_name(Split split) {
  constexpr std::string_view names[] = {"train", "validation", "test", "novel"};
  return names[static_cast<size_t>(split)];
}

Scene scene_at(uint64_t index, const Options& options) {
  check_side(options.side);
  // Three draws apart: neighbouring seeds, splits and indices share nothing.
  SplitMix of_seed(options.seed), of_split(of_seed.next() ^ static_cast<uint64_t>(options.split));
  SplitMix of_index(of_split.next() + index), random(of_index.next());
  Scene scene;
  scene.side = options.side;
  scene.said = some_meaning(random, options.split == Split::novel);
  scene.phrasing = static_cast<uint32_t>(random.below(kPhrasings));
  place(scene, random);
  return scene;
}

Scene placed(const Said& said, uint64_t seed, int64_t side) {
  check_side(side);
  if (said.count < 1 || said.count > kMostAlike || (said.second && said.count != 1))
    fail("a scene with {} things alike{} was asked for; 1 to {} are made, and two that differ", said.count,
         said.second ? " and another one" : "", kMostAlike);
  Scene scene{.said = said, .side = side};
  SplitMix random(seed);
  place(scene, random);
  return scene;
}

// ---- labels

const std::vector<Head>& heads() {
  static const std::vector<Head> all{{"count", kMostAlike},      {"axis", 3},
                                     {"shape_1", kShapes},       {"colour_1", kColours},
                                     {"size_1", kSizes},         {"shape_2", kShapes + 1},
                                     {"colour_2", kColours + 1}, {"size_2", kSizes + 1},
                                     {"top", kGrounds},          {"bottom", kGrounds}};
  return all;
}

std::vector<int64_t> labels(const Said& said) {
  const bool turned = said.relation == Relation::right_of || said.relation == Relation::below;
  const bool upright = said.relation == Relation::above || said.relation == Relation::below;
  const Thing& low = said.second && turned ? *said.second : said.first;
  const Thing& high = said.second && !turned ? *said.second : said.first;
  const auto number = [](auto e) { return static_cast<int64_t>(e); };
  return {said.second ? 1 : said.count - 1,
          said.second ? (upright ? 2 : 1) : 0,
          number(low.shape),
          number(low.colour),
          number(low.size),
          said.second ? number(high.shape) : kShapes,
          said.second ? number(high.colour) : kColours,
          said.second ? number(high.size) : kSizes,
          number(said.top),
          number(said.bottom)};
}

std::optional<Said> said_by(const std::vector<int64_t>& labels) {
  if (labels.size() != heads().size()) return std::nullopt;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= heads()[i].classes) return std::nullopt;
  }
  const bool second = labels[1] != 0;
  if (second != (labels[5] < kShapes) || second != (labels[6] < kColours) || second != (labels[7] < kSizes) ||
      (second && labels[0] != 1))
    return std::nullopt;
  Said said{
      .first = {static_cast<Shape>(labels[2]), static_cast<Colour>(labels[3]), static_cast<Size>(labels[4])},
      .count = second ? 1 : static_cast<int>(labels[0]) + 1,
      .top = static_cast<Ground>(labels[8]),
      .bottom = static_cast<Ground>(labels[9])};
  if (second) {
    said.second = {static_cast<Shape>(labels[5]), static_cast<Colour>(labels[6]),
                   static_cast<Size>(labels[7])};
    said.relation = labels[1] == 1 ? Relation::left_of : Relation::above;
  }
  return said;
}

bool same_picture(const Said& a, const Said& b) {
  return labels(a) == labels(b);
}

}  // namespace lamina::scene
