// Tags of words and the entities they stand for. Four ways of writing (Ramshaw and Marcus 1995; Ratinov and
// Roth 2009):
//   IOB2   B-X begins, I-X goes on
//   IOB1   I-X begins and goes on; B-X begins where the entity before it is of the same type
//   IOBES  B-X, I-X, E-X ends, S-X alone
//   BILOU  the same with L-X for E-X and U-X for S-X
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lamina::label {

enum class Scheme { iob1, iob2, iobes, bilou };
std::string_view scheme_name(Scheme scheme);  // "IOB1", "IOB2", "IOBES", "BILOU"
// Upper and lower case alike; "BIO" is IOB2. Throws Error that lists them.
Scheme scheme_from_name(std::string_view name);
std::string_view prefixes(Scheme scheme);  // "BI", "BI", "BIES", "BILU"

// Words [begin, end) of a sentence.
struct Entity {
  std::string type = {};
  int64_t begin = 0, end = 0;
  auto operator<=>(const Entity&) const = default;
};

// How tags that break the scheme are read. `strict`: as seqeval's mode="strict" with this scheme; an entity
// is what is written rightly from end to end. `lenient`: as seqeval's default mode, which is conlleval's:
// whatever can be read as an entity is one, and the scheme says nothing.
enum class Reading { strict, lenient };

// The entities of one sentence, in order. "O" is the only tag outside; others are PREFIX-TYPE, and what
// stands behind the first hyphen is the type. As in seqeval, the type of "B-" and "B" is "_"; `strict` takes
// hyphens off both ends of a type; and `lenient` loses or doubles entities where L or U meets E, S or B of
// the same type, since conlleval knows neither L nor U. Throws Error for anything else, and `strict` for a
// prefix that the scheme does not have.
std::vector<Entity> entities(std::span<const std::string> tags, Scheme scheme, Reading reading);

// Tags of `words` words. Throws Error when entities are empty, overlap or lie outside, or have no type. A
// strict reading gives the entities back unless a type begins or ends with a hyphen.
std::vector<std::string> tags_of(std::span<const Entity> entities, int64_t words, Scheme scheme);

// Tags that a scheme does not allow where they stand, and the place of the first.
struct Breaks {
  int64_t count = 0;
  int64_t sentence = 0, word = 0;  // from 0
};
Breaks breaks(std::span<const std::vector<std::string>> sentences, Scheme scheme);

// The scheme that all these tags are written rightly in; of several the first of IOB2, IOB1, IOBES, BILOU.
std::optional<Scheme> scheme_of(std::span<const std::vector<std::string>> sentences);

}  // namespace lamina::label
