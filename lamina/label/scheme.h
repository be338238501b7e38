// Tags of words and the entities they stand for. Four ways of writing (Ramshaw and Marcus 1995; Ratinov and
// Roth 2009):
//   IOB2   B-X begins, I-X goes on
//   IOB1   I-X begins and goes on; B-X begins where the entity before it is of the same type
//   IOBES  B-X, I-X, E-X ends, S-X alone
//   BILOU  the same with L-X for E-X and U-X for S-X
#pragma once

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

// Words [begin, end) of a sentence.
struct Entity {
  std::string type;
  int64_t begin = 0, end = 0;
  auto operator<=>(const Entity&) const = default;
};

// How tags that break the scheme are read. `strict`: as seqeval's mode="strict" with this scheme; an entity
// is what is written rightly from end to end. `lenient`: as seqeval's default mode, which is conlleval's:
// whatever can be read as an entity is one, and the scheme says nothing.
enum class Reading { strict, lenient };

// The entities of one sentence, in order. `strict` throws Error for a prefix that the scheme does not have
// (as seqeval does); "O" is the only tag without a type, other tags are PREFIX-TYPE.
std::vector<Entity> entities(std::span<const std::string> tags, Scheme scheme, Reading reading);

// Tags of `words` words. Throws Error when entities overlap or lie outside.
std::vector<std::string> tags_of(std::span<const Entity> entities, int64_t words, Scheme scheme);

// The scheme that all these tags are written rightly in; of several the first of IOB2, IOB1, IOBES, BILOU.
std::optional<Scheme> scheme_of(std::span<const std::vector<std::string>> sentences);

}  // namespace lamina::label
