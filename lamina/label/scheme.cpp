#include "lamina/label/scheme.h"

#include <algorithm>
#include <array>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::label {

namespace {

struct Tag {
  char prefix = 'O';
  std::string_view type = "_";
};

constexpr std::string_view known_prefixes = "BIESLU";
constexpr std::array by_preference = {Scheme::iob2, Scheme::iob1, Scheme::iobes, Scheme::bilou};

Tag read_tag(std::string_view tag) {
  if (tag == "O") return {};
  if (tag.empty() || known_prefixes.find(tag[0]) == std::string_view::npos ||
      (tag.size() > 1 && tag[1] != '-')) {
    fail("{} is no tag; tags are O, or one of B, I, E, S, L, U, a hyphen and a type, as B-PER",
         in_quotes(tag));
  }
  const std::string_view type = tag.substr(std::min<size_t>(2, tag.size()));
  return {tag[0], type.empty() ? "_" : type};
}

std::vector<Tag> read_tags(std::span<const std::string> tags) {
  std::vector<Tag> read;
  read.reserve(tags.size() + 1);
  for (const std::string& tag : tags) read.push_back(read_tag(tag));
  read.emplace_back();  // what is open ends here
  return read;
}

std::string_view without_hyphens(std::string_view type) {
  const size_t first = type.find_first_not_of('-');
  return first == std::string_view::npos ? "_" : type.substr(first, type.find_last_not_of('-') - first + 1);
}

bool is_one_of(char prefix, std::string_view prefixes) {
  return prefixes.find(prefix) != std::string_view::npos;
}

// ---- seqeval's mode="strict": its tables of patterns, in words

bool starts(Scheme scheme, const Tag& before, const Tag& now) {
  const bool same = before.type == now.type;
  if (scheme == Scheme::iob2) return now.prefix == 'B';
  if (scheme == Scheme::iobes) return is_one_of(now.prefix, "BS");
  if (scheme == Scheme::bilou) return is_one_of(now.prefix, "BU");
  if (now.prefix == 'I') return before.prefix != 'I' || !same;
  return now.prefix == 'B' && before.prefix != 'O' && same;
}

bool goes_on(const Tag& before, const Tag& now) {
  return is_one_of(before.prefix, "BI") && is_one_of(now.prefix, "IEL") && before.type == now.type;
}

// Whether what ends with `before`, and does not go on with `now`, is an entity.
bool ends(Scheme scheme, const Tag& before, const Tag& now) {
  if (scheme == Scheme::iob2) return true;
  if (scheme == Scheme::iobes) return is_one_of(before.prefix, "ES");
  if (scheme == Scheme::bilou) return is_one_of(before.prefix, "LU");
  return !(before.prefix == 'B' && now.prefix == 'B' && before.type != now.type);
}

std::vector<Entity> strict_entities(std::vector<Tag> tags, Scheme scheme) {
  for (Tag& tag : tags) {
    if (tag.prefix != 'O' && !is_one_of(tag.prefix, prefixes(scheme))) {
      fail("a tag begins with {}, which {} does not have; its prefixes are {}", tag.prefix,
           scheme_name(scheme), fmt::join(prefixes(scheme), ", "));
    }
    tag.type = without_hyphens(tag.type);
  }
  std::vector<Entity> found;
  Tag before;
  for (size_t i = 0; i < tags.size();) {
    if (!starts(scheme, before, tags[i])) {
      before = tags[i++];
      continue;
    }
    size_t end = i + 1;  // the O behind the sentence neither starts nor goes on
    while (goes_on(tags[end - 1], tags[end])) ++end;
    if (ends(scheme, tags[end - 1], tags[end]))
      found.push_back({std::string(tags[i].type), static_cast<int64_t>(i), static_cast<int64_t>(end)});
    before = tags[end - 1];
    i = end;
  }
  return found;
}

// ---- seqeval's default mode, conlleval's rules

std::vector<Entity> lenient_entities(std::span<const Tag> tags) {
  std::vector<Entity> found;
  Tag before = {'O', ""};
  size_t begin = 0;
  for (size_t i = 0; i < tags.size(); ++i) {
    const Tag& now = tags[i];
    const bool other = before.type != now.type;
    const bool end = is_one_of(before.prefix, "ES") ||
                     (is_one_of(before.prefix, "BI") && is_one_of(now.prefix, "BSO")) ||
                     (before.prefix != 'O' && other);
    const bool start = is_one_of(now.prefix, "BS") ||
                       (is_one_of(before.prefix, "ESO") && is_one_of(now.prefix, "EI")) ||
                       (now.prefix != 'O' && other);
    if (end)
      found.push_back({std::string(before.type), static_cast<int64_t>(begin), static_cast<int64_t>(i)});
    if (start) begin = i;
    before = now;
  }
  return found;
}

// ---- what a scheme allows

bool breaks_here(Scheme scheme, const Tag& before, const Tag& now) {
  if (now.prefix != 'O' && !is_one_of(now.prefix, prefixes(scheme))) return true;
  const bool same = before.type == now.type;
  if (scheme == Scheme::iob2) return now.prefix == 'I' && !(is_one_of(before.prefix, "BI") && same);
  if (scheme == Scheme::iob1) return now.prefix == 'B' && !(is_one_of(before.prefix, "BI") && same);
  const bool open = is_one_of(before.prefix, "BI"), inside = is_one_of(now.prefix, "IEL");
  return open != inside || (open && !same);
}

}  // namespace

std::string_view scheme_name(Scheme scheme) {
  switch (scheme) {
    case Scheme::iob1:
      return "IOB1";
    case Scheme::iob2:
      return "IOB2";
    case Scheme::iobes:
      return "IOBES";
    case Scheme::bilou:
      return "BILOU";
  }
  return "";
}

Scheme scheme_from_name(std::string_view name) {
  std::string upper(name);
  std::ranges::transform(upper, upper.begin(), [](char letter) {
    return letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 32) : letter;
  });
  if (upper == "BIO") return Scheme::iob2;
  const auto it = std::ranges::find(by_preference, upper, scheme_name);
  if (it == by_preference.end())
    fail("{} is no scheme of tags; there are IOB2 (or BIO), IOB1, IOBES and BILOU", in_quotes(name));
  return *it;
}

std::string_view prefixes(Scheme scheme) {
  if (scheme == Scheme::iobes) return "BIES";
  return scheme == Scheme::bilou ? "BILU" : "BI";
}

std::vector<Entity> entities(std::span<const std::string> tags, Scheme scheme, Reading reading) {
  std::vector<Tag> read = read_tags(tags);
  return reading == Reading::strict ? strict_entities(std::move(read), scheme) : lenient_entities(read);
}

std::vector<std::string> tags_of(std::span<const Entity> entities, int64_t words, Scheme scheme) {
  std::vector<Entity> sorted(entities.begin(), entities.end());
  std::ranges::sort(sorted, {}, &Entity::begin);
  std::vector<std::string> tags(static_cast<size_t>(std::max<int64_t>(0, words)), "O");
  const Entity* before = nullptr;
  for (const Entity& entity : sorted) {
    if (entity.type.empty()) fail("the entity of words {} to {} has no type", entity.begin, entity.end);
    if (entity.begin < 0 || entity.begin >= entity.end || entity.end > words)
      fail("the entity {} has the words {} to {} of a sentence of {} words", in_quotes(entity.type),
           entity.begin, entity.end, words);
    if (before && entity.begin < before->end)
      fail("the entities {} and {} share word {}", in_quotes(before->type), in_quotes(entity.type),
           entity.begin);
    const bool touches = before && before->end == entity.begin && before->type == entity.type;
    const bool with_ends = scheme == Scheme::iobes || scheme == Scheme::bilou;
    const bool bilou = scheme == Scheme::bilou;
    for (int64_t i = entity.begin; i < entity.end; ++i) {
      const bool first = i == entity.begin, last = i + 1 == entity.end;
      char prefix = first && (scheme != Scheme::iob1 || touches) ? 'B' : 'I';
      if (with_ends && last) prefix = first ? (bilou ? 'U' : 'S') : (bilou ? 'L' : 'E');
      tags[static_cast<size_t>(i)] = fmt::format("{}-{}", prefix, entity.type);
    }
    before = &entity;
  }
  return tags;
}

Breaks breaks(std::span<const std::vector<std::string>> sentences, Scheme scheme) {
  Breaks found;
  for (size_t s = 0; s < sentences.size(); ++s) {
    const std::vector<Tag> tags = read_tags(sentences[s]);
    Tag before;
    for (size_t i = 0; i < tags.size(); ++i) {
      if (breaks_here(scheme, before, tags[i]) && found.count++ == 0) {
        // What is never ended breaks the scheme with its last word.
        found.sentence = static_cast<int64_t>(s);
        found.word = static_cast<int64_t>(std::min(i, sentences[s].size() - 1));
      }
      before = tags[i];
    }
  }
  return found;
}

std::optional<Scheme> scheme_of(std::span<const std::vector<std::string>> sentences) {
  for (const Scheme scheme : by_preference) {
    if (breaks(sentences, scheme).count == 0) return scheme;
  }
  return std::nullopt;
}

}  // namespace lamina::label
