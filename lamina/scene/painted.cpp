#include <algorithm>
#include <cmath>
#include <numbers>

#include "lamina/base/error.h"
#include "lamina/scene/scene.h"

namespace lamina::scene {

namespace {

using Rgb = std::array<double, 3>;

constexpr std::array<Rgb, kColours> kPaints{{{222, 45, 45},
                                             {247, 143, 30},
                                             {252, 222, 50},
                                             {46, 165, 70},
                                             {60, 205, 225},
                                             {45, 95, 225},
                                             {155, 65, 190}}};
constexpr std::array<Rgb, kGrounds> kGroundPaints{
    {{246, 246, 246}, {150, 150, 150}, {20, 20, 20}, {22, 30, 84}, {250, 190, 205}, {222, 200, 160}}};

struct Point {
  double x, y;
};

// Crossings to the right of the point, odd: inside.
template <size_t N>
bool inside(const std::array<Point, N>& corners, double x, double y) {
  bool in = false;
  for (size_t i = 0, j = N - 1; i < N; j = i++) {
    const Point &a = corners[i], &b = corners[j];
    if ((a.y > y) != (b.y > y) && x < (b.x - a.x) * (y - a.y) / (b.y - a.y) + a.x) in = !in;
  }
  return in;
}

constexpr std::array<Point, 3> kTriangle{{{0, -1}, {1, 0.82}, {-1, 0.82}}};

const std::array<Point, 10>& star() {
  static const std::array<Point, 10> corners = [] {
    std::array<Point, 10> made{};
    for (size_t i = 0; i < made.size(); ++i) {
      const double angle = std::numbers::pi * (static_cast<double>(i) / 5 - 0.5),
                   radius = i % 2 == 0 ? 1.12 : 0.46;
      made[i] = {radius * std::cos(angle), radius * std::sin(angle) + 0.06};
    }
    return made;
  }();
  return corners;
}

// In units of the radius, y down.
bool covers(Shape shape, double x, double y) {
  const double square = x * x + y * y;
  switch (shape) {
    case Shape::disc:
      return square <= 1;
    case Shape::square:
      return std::max(std::abs(x), std::abs(y)) <= 0.88;
    case Shape::triangle:
      return inside(kTriangle, x, y);
    case Shape::cross:
      return std::max(std::abs(x), std::abs(y)) <= 1 && std::min(std::abs(x), std::abs(y)) <= 0.33;
    case Shape::ring:
      return square <= 1.1 && square >= 0.3;
    case Shape::star:
      return inside(star(), x, y);
    case Shape::heart: {
      // (x^2 + y^2 - 1)^3 <= x^2 y^3, y up, which reaches from -1.14 to 1.14 and from -1 to 1.24.
      const double u = x * 1.14, v = -y * 1.14 + 0.12, w = u * u + v * v - 1;
      return w * w * w <= u * u * v * v * v;
    }
  }
  return false;
}

constexpr int kPoints = 4;  // a side of a pixel

// The share of the pixel that the shape covers.
double share(const Thing& thing, const Place& place, double side, int64_t x, int64_t y) {
  int inside = 0;
  for (int j = 0; j < kPoints; ++j) {
    for (int i = 0; i < kPoints; ++i) {
      const double u = (static_cast<double>(x) + (i + 0.5) / kPoints) / side;
      const double v = (static_cast<double>(y) + (j + 0.5) / kPoints) / side;
      inside += covers(thing.shape, (u - place.x) / place.radius, (v - place.y) / place.radius) ? 1 : 0;
    }
  }
  return static_cast<double>(inside) / (kPoints * kPoints);
}

uint8_t rounded(double value) {
  return static_cast<uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
}

void put(Picture& picture, const Thing& thing, const Place& place, const Rgb& tint) {
  const auto side = static_cast<double>(picture.width);
  const auto bound = [&](double at) {
    return std::clamp(static_cast<int64_t>(std::floor(at * side)), int64_t{0}, picture.width - 1);
  };
  const double reach = place.radius * 1.2;
  for (int64_t y = bound(place.y - reach); y <= bound(place.y + reach); ++y) {
    for (int64_t x = bound(place.x - reach); x <= bound(place.x + reach); ++x) {
      const double covered = share(thing, place, side, x, y);
      uint8_t* pixel = picture.at(x, y);
      for (size_t c = 0; c < 3 && covered > 0; ++c) {
        const double paint = kPaints[static_cast<size_t>(thing.colour)][c] + tint[c];
        pixel[c] = rounded(covered * paint + (1 - covered) * pixel[c]);
      }
    }
  }
}

}  // namespace

Picture painted(const Scene& scene) {
  const size_t things = scene.said.second ? 2 : static_cast<size_t>(scene.said.count);
  if (scene.places.size() != things)
    fail("a scene of {} things has {} places; placed() gives it what it needs", things, scene.places.size());
  Picture picture{.width = scene.side, .height = scene.side};
  picture.pixels.resize(static_cast<size_t>(3 * scene.side * scene.side));
  const Rgb &top = kGroundPaints[static_cast<size_t>(scene.said.top)],
            &bottom = kGroundPaints[static_cast<size_t>(scene.said.bottom)];
  for (int64_t y = 0; y < scene.side; ++y) {
    const double down = static_cast<double>(y) / static_cast<double>(scene.side - 1);
    for (int64_t x = 0; x < scene.side; ++x) {
      for (size_t c = 0; c < 3; ++c) picture.at(x, y)[c] = rounded((1 - down) * top[c] + down * bottom[c]);
    }
  }
  for (size_t i = 0; i < things; ++i) {
    const Thing& thing = scene.said.second && i == 1 ? *scene.said.second : scene.said.first;
    put(picture, thing, scene.places[i], scene.tint);
  }
  return picture;
}

}  // namespace lamina::scene
