// Precision, recall and F1 of entities: one counts when its type, its first and its last word are right. The
// numbers are those of the `seqeval` package, to the last bit; nothing found or nothing there gives 0, as its
// zero_division=0.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/label/scheme.h"

namespace lamina::label {

struct Counts {
  int64_t gold = 0, predicted = 0, correct = 0;  // entities
  double precision() const;                      // shares, 0 to 1
  double recall() const;
  double f1() const;
  Counts& operator+=(const Counts& other);
  bool operator==(const Counts&) const = default;
};

struct Score {
  Counts all = {};                           // micro
  std::map<std::string, Counts> types = {};  // of every type that is in gold or predictions
  int64_t sentences = 0, words = 0, words_right = 0;
  double macro_precision() const;  // means over `types`, 0 without one
  double macro_recall() const;
  double macro_f1() const;
};

using Tags = std::vector<std::string>;  // of one sentence

// Throws Error when the numbers of sentences or of a sentence's words differ, and for tags that `entities`
// does not read.
Score score(std::span<const Tags> gold, std::span<const Tags> predicted, Scheme scheme, Reading reading);

// What went wrong with one entity. A wrong type or wrong ends belong to the gold entity that the predicted
// one shares most words with; each gold and predicted entity stands in at most one of these. Where several
// share as many words, the one of the same type comes first, then the earlier one.
enum class Fault { missed, invented, wrong_type, wrong_ends, wrong_both };
std::string_view fault_name(Fault fault);  // "missed", "invented", "type", "ends", "type and ends"
struct Mistake {
  Fault fault = Fault::missed;
  int64_t sentence = 0;  // from 0
  std::optional<Entity> gold = {}, predicted = {};
};
// In the order of the sentences and of the words in them. Same errors.
std::vector<Mistake> mistakes(std::span<const Tags> gold, std::span<const Tags> predicted, Scheme scheme,
                              Reading reading);

// {"precision", "recall", "f1", "gold", "predicted", "correct", "macro_precision", "macro_recall",
// "macro_f1", "types": {TYPE: {"precision", ...}}, "sentences", "words", "words_right"}: shares, 0 to 1.
Json to_json(const Score& score);

}  // namespace lamina::label
