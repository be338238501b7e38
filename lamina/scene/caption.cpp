#include <algorithm>
#include <set>
#include <span>

#include "lamina/base/error.h"
#include "lamina/scene/scene.h"

namespace lamina::scene {

namespace {

constexpr std::string_view kShapeNames[] = {"disc", "square", "triangle", "cross", "ring", "star", "heart"};
constexpr std::string_view kManyNames[] = {"discs", "squares", "triangles", "crosses",
                                           "rings", "stars",   "hearts"};
constexpr std::string_view kColourNames[] = {"red", "orange", "yellow", "green", "cyan", "blue", "purple"};
constexpr std::string_view kGroundNames[] = {"white", "grey", "black", "navy", "pink", "sand"};
constexpr std::string_view kCounts[] = {"a", "two", "three", "four"};
// Two words each that mean the same.
constexpr std::string_view kSizeNames[] = {"small", "large", "tiny", "big"};
constexpr std::string_view kRelationNames[] = {"left of", "right of", "above", "below",
                                               "left of", "right of", "over",  "under"};

// The choices that a phrasing makes.
struct Words {
  uint32_t ground, sizes, discs, relations, article;
};
Words words_of(uint32_t phrasing) {
  const auto take = [&](uint32_t among) {
    const uint32_t chosen = phrasing % among;
    phrasing /= among;
    return chosen;
  };
  Words words{};
  words.ground = take(3);
  words.sizes = take(2);
  words.discs = take(2);
  words.relations = take(2);
  words.article = take(2);
  return words;
}

std::string_view shape_word(Shape shape, bool many, const Words& words) {
  if (shape == Shape::disc && words.discs == 1) return many ? "circles" : "circle";
  const auto i = static_cast<size_t>(shape);
  return many ? kManyNames[i] : kShapeNames[i];
}

std::string thing_words(const Thing& thing, int count, const Words& words) {
  const std::string_view number = count > 1 ? kCounts[count - 1] : words.article == 1 ? "one" : "a";
  return fmt::format(
      "{} {} {} {}", number, kSizeNames[static_cast<size_t>(thing.size) + words.sizes * kSizes],
      kColourNames[static_cast<size_t>(thing.colour)], shape_word(thing.shape, count > 1, words));
}

std::string ground_words(const Said& said, const Words& words) {
  const std::string_view top = name(said.top), bottom = name(said.bottom);
  if (said.top != said.bottom) return fmt::format("on {} to {}", top, bottom);
  if (words.ground == 1) return fmt::format("on a {} background", top);
  if (words.ground == 2) return fmt::format("in front of {}", top);
  return fmt::format("on {}", top);
}

// Reads the words of a caption one after the other.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) { next(); }
  bool done() const { return word_.empty(); }
  bool take(std::string_view word) {
    if (word_ != word) return false;
    next();
    return true;
  }
  // The index of the word among `words`.
  std::optional<size_t> among(std::span<const std::string_view> words) {
    const auto at = std::find(words.begin(), words.end(), word_);
    if (done() || at == words.end()) return std::nullopt;
    next();
    return static_cast<size_t>(at - words.begin());
  }

 private:
  void next() {
    const auto space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
    size_t from = at_;
    while (from < text_.size() && space(text_[from])) ++from;
    at_ = from;
    while (at_ < text_.size() && !space(text_[at_])) ++at_;
    word_ = text_.substr(from, at_ - from);
  }
  std::string_view text_, word_;
  size_t at_ = 0;
};

std::optional<Thing> read_thing(Reader& reader, bool many) {
  Thing thing;
  const auto size = reader.among(kSizeNames);
  if (!size) return std::nullopt;
  thing.size = static_cast<Size>(*size % kSizes);
  const auto colour = reader.among(kColourNames);
  if (!colour) return std::nullopt;
  thing.colour = static_cast<Colour>(*colour);
  if (reader.take(many ? "circles" : "circle")) return thing;
  const auto shape = many ? reader.among(kManyNames) : reader.among(kShapeNames);
  if (!shape) return std::nullopt;
  thing.shape = static_cast<Shape>(*shape);
  return thing;
}

std::optional<int> read_count(Reader& reader) {
  if (reader.take("one")) return 1;
  const auto count = reader.among(kCounts);
  return count ? std::optional<int>(static_cast<int>(*count) + 1) : std::nullopt;
}

std::optional<Relation> read_relation(Reader& reader) {
  constexpr std::string_view first[] = {"left", "right", "above", "below", "over", "under"};
  const auto found = reader.among(first);
  if (!found) return std::nullopt;
  if (*found < 2 && !reader.take("of")) return std::nullopt;
  return static_cast<Relation>(*found < 4 ? *found : *found - 2);
}

bool read_ground(Reader& reader, Said& said) {
  const auto ground = [&](Ground& into) {
    const auto found = reader.among(kGroundNames);
    if (found) into = static_cast<Ground>(*found);
    return found.has_value();
  };
  const auto one = [&] {
    if (!ground(said.top)) return false;
    said.bottom = said.top;
    return true;
  };
  if (reader.take("in")) return reader.take("front") && reader.take("of") && one();
  if (!reader.take("on")) return false;
  if (reader.take("a")) return one() && reader.take("background");
  return one() && (!reader.take("to") || (ground(said.bottom) && said.bottom != said.top));
}

}  // namespace

std::string_view name(Shape shape) {
  return kShapeNames[static_cast<size_t>(shape)];
}
std::string_view name(Colour colour) {
  return kColourNames[static_cast<size_t>(colour)];
}
std::string_view name(Size size) {
  return kSizeNames[static_cast<size_t>(size)];
}
std::string_view name(Relation relation) {
  return kRelationNames[static_cast<size_t>(relation)];
}
std::string_view name(Ground ground) {
  return kGroundNames[static_cast<size_t>(ground)];
}

std::string caption(const Said& said, uint32_t phrasing) {
  const Words words = words_of(phrasing);
  std::string text = thing_words(said.first, said.count, words);
  if (said.second)
    text += fmt::format(" {} {}",
                        kRelationNames[static_cast<size_t>(said.relation) + words.relations * kRelations],
                        thing_words(*said.second, 1, words));
  return text + " " + ground_words(said, words);
}

std::string caption(const Scene& scene) {
  return caption(scene.said, scene.phrasing);
}

std::vector<std::string> vocabulary() {
  std::set<std::string> words{"one",        "circle", "circles", "on",    "in",    "front", "of",   "to",
                              "background", "left",   "right",   "above", "below", "over",  "under"};
  const auto add = [&](std::span<const std::string_view> more) { words.insert(more.begin(), more.end()); };
  add(kShapeNames), add(kManyNames), add(kColourNames), add(kGroundNames), add(kCounts), add(kSizeNames);
  return {words.begin(), words.end()};
}

std::optional<Said> parsed(std::string_view caption) {
  Reader reader(caption);
  const auto count = read_count(reader);
  if (!count) return std::nullopt;
  const auto first = read_thing(reader, *count > 1);
  if (!first) return std::nullopt;
  Said said{.first = *first, .count = *count};
  if (const auto relation = read_relation(reader)) {
    if (said.count != 1 || read_count(reader) != 1) return std::nullopt;
    said.second = read_thing(reader, false);
    if (!said.second) return std::nullopt;
    said.relation = *relation;
  }
  if (!read_ground(reader, said) || !reader.done()) return std::nullopt;
  return said;
}

}  // namespace lamina::scene
