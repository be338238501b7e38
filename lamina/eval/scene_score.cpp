#include "lamina/eval/scene_score.h"

#include <cmath>

#include "lamina/base/error.h"

namespace lamina {

namespace {

// Places of the heads among the answers.
enum Head : size_t { count, axis, shape_1, colour_1, size_1, shape_2, colour_2, size_2, top, bottom };
constexpr size_t kThing = 3;  // heads of one thing

void add(Rate& rate, bool right) {
  rate.right += right ? 1 : 0;
  ++rate.asked;
}

using Answers = std::vector<int64_t>;

constexpr double kWithin95 = 1.959963984540054;  // deviations

// How many of shape, colour and size of both things are as wanted, in order or turned round.
int matches(const Answers& seen, const Answers& wanted, bool turned) {
  int same = 0;
  for (size_t i = 0; i < kThing; ++i) {
    same += seen[(turned ? shape_2 : shape_1) + i] == wanted[shape_1 + i] ? 1 : 0;
    same += seen[(turned ? shape_1 : shape_2) + i] == wanted[shape_2 + i] ? 1 : 0;
  }
  return same;
}

void compare(SceneScore& score, const Answers& seen, const scene::Said& said) {
  const Answers wanted = scene::labels(said);
  const bool two = said.second.has_value();
  const bool turned = two && matches(seen, wanted, true) > matches(seen, wanted, false);
  Rate* const rates[] = {&score.shape, &score.colour, &score.size};
  for (size_t i = 0; i < kThing; ++i) {
    add(*rates[i], seen[(turned ? shape_2 : shape_1) + i] == wanted[shape_1 + i]);
    if (two) add(*rates[i], seen[(turned ? shape_1 : shape_2) + i] == wanted[shape_2 + i]);
  }
  if (two) add(score.relation, seen[axis] == wanted[axis] && !turned);
  add(score.count, seen[count] == wanted[count]);
  add(score.ground, seen[top] == wanted[top] && seen[bottom] == wanted[bottom]);
  add(score.all, seen == wanted);
}

void check_questions(const Model& scorer) {
  int64_t classes = 0;
  for (const scene::Head& head : scene::heads()) classes += head.classes;
  if (scorer.blueprint().family != "scorer" || scorer.head().weight.size(0) != classes)
    fail("this network does not answer the questions about scenes; a scorer with {} answers does", classes);
}

// Logits [pictures, answers] as [pictures, classes] of each question.
std::vector<Tensor> by_question(const Tensor& logits) {
  std::vector<Tensor> parts;
  int64_t from = 0;
  for (const scene::Head& head : scene::heads()) {
    parts.push_back(logits.narrow(1, from, head.classes));
    from += head.classes;
  }
  return parts;
}

}  // namespace

std::pair<double, double> Rate::interval() const {
  if (asked == 0) return {0, 1};
  constexpr double z = kWithin95;
  const auto n = static_cast<double>(asked);
  const double p = share(), scale = 1 + z * z / n;
  const double middle = (p + z * z / (2 * n)) / scale;
  const double half = z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale;
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

std::vector<std::pair<std::string, Rate>> named_rates(const SceneScore& score) {
  return {
      {"shape", score.shape}, {"colour", score.colour}, {"size", score.size}, {"relation", score.relation},
      {"count", score.count}, {"ground", score.ground}, {"all", score.all}};
}

ScorerPass scorer_pass(const Model& scorer, const Tensor& pixels, int64_t batch) {
  const InferenceMode guard;
  check_questions(scorer);
  ScorerPass pass;
  std::vector<Tensor> features;
  Tap none;
  for (int64_t first = 0; first < pixels.size(0); first += batch) {
    const Tensor piece = pixels.narrow(0, first, std::min(batch, pixels.size(0) - first));
    const Tensor read = scorer.read_out(scorer.begin({.sample = piece}), none);
    features.push_back(read.to(at::kDouble));
    std::vector<Tensor> columns;
    for (const Tensor& logits : by_question(scorer.head()(read))) columns.push_back(logits.argmax(1));
    const Tensor answers = at::stack(columns, 1).contiguous();
    const auto* numbers = answers.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < answers.size(0); ++i)
      pass.answers.emplace_back(numbers + i * answers.size(1), numbers + (i + 1) * answers.size(1));
  }
  pass.features = at::cat(features);
  return pass;
}

double scene_likelihood(const Model& scorer, const Tensor& pixels, const std::vector<scene::Said>& said) {
  const InferenceMode guard;
  check_questions(scorer);
  if (pixels.size(0) != std::ssize(said))
    fail("there are {} pictures, and {} captions", pixels.size(0), said.size());
  const std::vector<Tensor> logits = by_question(scorer.run({.sample = pixels}));
  double sum = 0;
  for (size_t i = 0; i < said.size(); ++i) {
    const Answers wanted = scene::labels(said[i]);
    for (size_t q = 0; q < wanted.size(); ++q)
      sum += logits[q][static_cast<int64_t>(i)].to(at::kDouble).log_softmax(0)[wanted[q]].item<double>();
  }
  return sum / static_cast<double>(said.size());
}

SceneScore scene_score(const std::vector<std::vector<int64_t>>& answers,
                       const std::vector<scene::Said>& said) {
  if (answers.size() != said.size())
    fail("there are answers on {} pictures, and {} captions", answers.size(), said.size());
  SceneScore score;
  for (size_t i = 0; i < said.size(); ++i) compare(score, answers[i], said[i]);
  return score;
}

Marks scene_marks(const std::vector<Answers>& answers, const std::vector<scene::Said>& said) {
  if (answers.size() != said.size())
    fail("there are answers on {} pictures, and {} captions", answers.size(), said.size());
  Marks marks;
  for (const auto& [name, rate] : named_rates({})) marks.push_back({name, {}});
  for (size_t i = 0; i < said.size(); ++i) {
    SceneScore one;
    compare(one, answers[i], said[i]);
    const auto rates = named_rates(one);
    for (size_t p = 0; p < rates.size(); ++p) {
      const Rate& rate = rates[p].second;
      marks[p].second += rate.asked == 0 ? '-' : rate.right == rate.asked ? '1' : '0';
    }
  }
  return marks;
}

double PairedShares::difference() const {
  return asked > 0 ? static_cast<double>(first_alone - second_alone) / static_cast<double>(asked) : 0;
}

std::pair<double, double> PairedShares::interval() const {
  if (asked == 0) return {-1, 1};
  const auto n = static_cast<double>(asked + 2);
  const double first = static_cast<double>(first_alone + 1) / n,
               second = static_cast<double>(second_alone + 1) / n, middle = first - second;
  const double half = kWithin95 * std::sqrt((first + second - middle * middle) / n);
  return {std::max(-1.0, middle - half), std::min(1.0, middle + half)};
}

PairedShares paired_shares(std::string_view first, std::string_view second) {
  if (first.size() != second.size())
    fail("marks of {} and of {} captions cannot be compared one by one", first.size(), second.size());
  PairedShares shares;
  for (size_t i = 0; i < first.size(); ++i) {
    for (const char mark : {first[i], second[i]})
      if (mark != '0' && mark != '1' && mark != '-')
        fail("caption {}: the mark '{}' is none; 0, 1 and - are", i + 1, mark);
    if ((first[i] == '-') != (second[i] == '-')) fail("caption {}: only one of the two was asked", i + 1);
    if (first[i] == '-') continue;
    ++shares.asked;
    shares.first_alone += first[i] > second[i] ? 1 : 0;
    shares.second_alone += first[i] < second[i] ? 1 : 0;
  }
  return shares;
}

Rate agreement(const std::vector<std::vector<int64_t>>& a, const std::vector<std::vector<int64_t>>& b) {
  if (a.size() != b.size()) fail("one scorer saw {} pictures, the other {}", a.size(), b.size());
  Rate rate;
  for (size_t i = 0; i < a.size(); ++i) add(rate, a[i] == b[i]);
  return rate;
}

}  // namespace lamina
