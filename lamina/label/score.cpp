#include "lamina/label/score.h"

#include <algorithm>
#include <iterator>
#include <tuple>

#include "lamina/base/error.h"

namespace lamina::label {

namespace {

double share(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

double mean(const std::map<std::string, Counts>& types, double (Counts::*measure)() const) {
  double sum = 0;
  for (const auto& [type, counts] : types) sum += (counts.*measure)();
  return types.empty() ? 0.0 : sum / static_cast<double>(types.size());
}

void check_lengths(std::span<const Tags> gold, std::span<const Tags> predicted) {
  if (gold.size() != predicted.size())
    fail("there are {} sentences of gold tags and {} of predicted ones; both must be of the same text",
         gold.size(), predicted.size());
  for (size_t s = 0; s < gold.size(); ++s) {
    if (gold[s].size() != predicted[s].size())
      fail("sentence {} has {} gold tags and {} predicted ones; both must be of the same words", s + 1,
           gold[s].size(), predicted[s].size());
  }
}

std::vector<Entity> entities_of(std::span<const Tags> sentences, size_t s, std::string_view kind,
                                Scheme scheme, Reading reading) {
  try {
    return entities(sentences[s], scheme, reading);
  } catch (const Error& error) {
    fail("{} tags of sentence {}: {}", kind, s + 1, error.what());
  }
}

int64_t shared_words(const Entity& a, const Entity& b) {
  return std::min(a.end, b.end) - std::max(a.begin, b.begin);
}

Fault fault_of(const Entity& gold, const Entity& predicted) {
  if (gold.type == predicted.type) return Fault::wrong_ends;
  const bool ends = gold.begin == predicted.begin && gold.end == predicted.end;
  return ends ? Fault::wrong_type : Fault::wrong_both;
}

// The mistakes of one sentence; both lists without what was right, in order.
void add_mistakes(std::vector<Mistake>& out, int64_t sentence, const std::vector<Entity>& gold,
                  const std::vector<Entity>& predicted) {
  struct Pair {
    int64_t words;
    bool other_type;
    size_t gold, predicted;
  };
  std::vector<Pair> pairs;
  // Entities that do not overlap among themselves make fewer pairs than entities. The lenient reading can
  // give ones that do; the limit keeps time and memory in proportion to the words.
  const size_t most = 8 * (gold.size() + predicted.size());
  size_t first = 0;
  for (size_t p = 0; p < predicted.size() && pairs.size() < most; ++p) {
    while (first < gold.size() && gold[first].end <= predicted[p].begin) ++first;
    for (size_t g = first; g < gold.size() && gold[g].begin < predicted[p].end && pairs.size() < most; ++g) {
      const int64_t words = shared_words(gold[g], predicted[p]);
      if (words > 0) pairs.push_back({words, gold[g].type != predicted[p].type, g, p});
    }
  }
  std::ranges::sort(pairs, {}, [](const Pair& pair) {
    return std::tuple(-pair.words, pair.other_type, pair.gold, pair.predicted);
  });
  std::vector<bool> gold_taken(gold.size()), predicted_taken(predicted.size());
  std::vector<Mistake> found;
  for (const Pair& pair : pairs) {
    if (gold_taken[pair.gold] || predicted_taken[pair.predicted]) continue;
    gold_taken[pair.gold] = predicted_taken[pair.predicted] = true;
    const Entity &right = gold[pair.gold], &wrong = predicted[pair.predicted];
    found.push_back({fault_of(right, wrong), sentence, right, wrong});
  }
  for (size_t g = 0; g < gold.size(); ++g) {
    if (!gold_taken[g]) found.push_back({.fault = Fault::missed, .sentence = sentence, .gold = gold[g]});
  }
  for (size_t p = 0; p < predicted.size(); ++p) {
    if (!predicted_taken[p])
      found.push_back({.fault = Fault::invented, .sentence = sentence, .predicted = predicted[p]});
  }
  std::ranges::sort(found, {}, [](const Mistake& mistake) {
    const Entity &one = mistake.gold ? *mistake.gold : *mistake.predicted,
                 &other = mistake.predicted ? *mistake.predicted : *mistake.gold;
    return std::tuple(std::min(one.begin, other.begin), std::max(one.end, other.end), !mistake.gold);
  });
  std::ranges::move(found, std::back_inserter(out));
}

Json to_json(const Counts& counts) {
  return {{"precision", counts.precision()},
          {"recall", counts.recall()},
          {"f1", counts.f1()},
          {"gold", counts.gold},
          {"predicted", counts.predicted},
          {"correct", counts.correct}};
}

}  // namespace

double Counts::precision() const {
  return share(correct, predicted);
}

double Counts::recall() const {
  return share(correct, gold);
}

double Counts::f1() const {
  const double p = precision(), r = recall();
  return p + r == 0 ? 0.0 : 2 * p * r / (p + r);  // in seqeval's order, so that the last bit is the same
}

Counts& Counts::operator+=(const Counts& other) {
  gold += other.gold, predicted += other.predicted, correct += other.correct;
  return *this;
}

double Score::macro_precision() const {
  return mean(types, &Counts::precision);
}

double Score::macro_recall() const {
  return mean(types, &Counts::recall);
}

double Score::macro_f1() const {
  return mean(types, &Counts::f1);
}

Score score(std::span<const Tags> gold, std::span<const Tags> predicted, Scheme scheme, Reading reading) {
  check_lengths(gold, predicted);
  Score result;
  result.sentences = static_cast<int64_t>(gold.size());
  for (size_t s = 0; s < gold.size(); ++s) {
    for (size_t i = 0; i < gold[s].size(); ++i) result.words_right += gold[s][i] == predicted[s][i] ? 1 : 0;
    result.words += static_cast<int64_t>(gold[s].size());
    std::vector<Entity> right = entities_of(gold, s, "gold", scheme, reading);
    std::vector<Entity> found = entities_of(predicted, s, "predicted", scheme, reading);
    std::ranges::sort(right);
    std::ranges::sort(found);
    std::vector<Entity> both;
    std::ranges::set_intersection(right, found, std::back_inserter(both));
    for (const Entity& entity : right) ++result.types[entity.type].gold;
    for (const Entity& entity : found) ++result.types[entity.type].predicted;
    for (const Entity& entity : both) ++result.types[entity.type].correct;
  }
  for (const auto& [type, counts] : result.types) result.all += counts;
  return result;
}

std::string_view fault_name(Fault fault) {
  switch (fault) {
    case Fault::missed:
      return "missed";
    case Fault::invented:
      return "invented";
    case Fault::wrong_type:
      return "type";
    case Fault::wrong_ends:
      return "ends";
    case Fault::wrong_both:
      return "type and ends";
  }
  return "";
}

std::vector<Mistake> mistakes(std::span<const Tags> gold, std::span<const Tags> predicted, Scheme scheme,
                              Reading reading) {
  check_lengths(gold, predicted);
  std::vector<Mistake> out;
  const auto in_order = [](const Entity& entity) { return std::tie(entity.begin, entity.end, entity.type); };
  for (size_t s = 0; s < gold.size(); ++s) {
    const std::vector<Entity> right = entities_of(gold, s, "gold", scheme, reading);
    const std::vector<Entity> found = entities_of(predicted, s, "predicted", scheme, reading);
    std::vector<Entity> missing, extra;
    std::ranges::set_difference(right, found, std::back_inserter(missing), {}, in_order, in_order);
    std::ranges::set_difference(found, right, std::back_inserter(extra), {}, in_order, in_order);
    add_mistakes(out, static_cast<int64_t>(s), missing, extra);
  }
  return out;
}

Json to_json(const Score& score) {
  Json json = to_json(score.all);
  json["macro_precision"] = score.macro_precision();
  json["macro_recall"] = score.macro_recall();
  json["macro_f1"] = score.macro_f1();
  json["types"] = Json::object();
  for (const auto& [type, counts] : score.types) json["types"][type] = to_json(counts);
  json["sentences"] = score.sentences;
  json["words"] = score.words;
  json["words_right"] = score.words_right;
  return json;
}

}  // namespace lamina::label
