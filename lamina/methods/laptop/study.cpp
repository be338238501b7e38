#include "lamina/methods/laptop/study.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/base/random.h"

namespace lamina::laptop {

namespace {

// `count` of 0 ... n - 1, ascending.
std::vector<int> drawn_of(int n, int count, SplitMix& random) {
  std::vector<int> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  for (int i = 0; i < count; ++i)
    std::swap(all[static_cast<size_t>(i)], all[static_cast<size_t>(i + random.below(n - i))]);
  all.resize(static_cast<size_t>(count));
  std::ranges::sort(all);
  return all;
}

void tell(const Watch& watch, const char* doing, int64_t done, int64_t total) {
  if (watch.stop.stop_requested()) throw Stopped{};
  watch.report({doing, static_cast<double>(done), static_cast<double>(total), {}});
}

}  // namespace

Predictor sum_of(std::string name, std::vector<double> values) {
  return {std::move(name), [values = std::move(values)](std::span<const int> removed) {
            double sum = 0;
            for (int r : removed) sum += values[static_cast<size_t>(r)];
            return sum;
          }};
}

Predictor squared_norms(std::string name, std::vector<double> values) {
  return {std::move(name), [values = std::move(values)](std::span<const int> removed) {
            double sum = 0;
            for (int r : removed) sum += std::sqrt(values[static_cast<size_t>(r)]);
            return sum * sum;
          }};
}

Predictor superposition(const Scores& scores) {
  return {"superposition", [&scores](std::span<const int> removed) { return superposed(scores, removed); }};
}

std::vector<double> Study::correlations() const {
  std::vector<double> truth, all;
  for (const Row& row : rows) truth.push_back(row.truth);
  for (size_t p = 0; p < predictors.size(); ++p) {
    std::vector<double> predicted;
    for (const Row& row : rows) predicted.push_back(row.predicted[p]);
    all.push_back(rank_correlation(predicted, truth));
  }
  return all;
}

double Study::median_ratio(size_t predictor, int least, int most) const {
  std::vector<double> ratios;
  for (const Row& row : rows) {
    const auto size = static_cast<int>(row.removed.size());
    if (size >= least && size <= most && row.predicted[predictor] > 0)
      ratios.push_back(row.truth / row.predicted[predictor]);
  }
  if (ratios.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::ranges::sort(ratios);
  const size_t half = ratios.size() / 2;
  return ratios.size() % 2 == 1 ? ratios[half] : (ratios[half - 1] + ratios[half]) / 2;
}

Study study(int candidates, std::span<const Predictor> predictors, const Truth& truth,
            const StudyOptions& options, const Watch& watch) {
  if (options.least < 1 || options.most < options.least || options.most > candidates)
    fail("plans of {} to {} parts were asked for; 1 to {} are possible", options.least, options.most,
         candidates);
  Study made;
  for (const Predictor& predictor : predictors) made.predictors.push_back(predictor.name);
  SplitMix random(options.seed);
  const int sizes = options.most - options.least + 1;
  for (int64_t i = 0; i < options.plans; ++i) {
    Study::Row row{.removed = drawn_of(candidates, options.least + static_cast<int>(i % sizes), random)};
    row.truth = truth(row.removed);
    for (const Predictor& predictor : predictors) row.predicted.push_back(predictor.of(row.removed));
    made.rows.push_back(std::move(row));
    tell(watch, "random plans", i + 1, options.plans);
  }
  return made;
}

BruteForce brute_force(std::span<const int> few, std::span<const double> values,
                       std::span<const int64_t> weights, std::span<const double> budgets, const Truth& truth,
                       const Watch& watch) {
  if (few.empty() || few.size() > 16)
    fail("{} candidates were given of which every subset is to be measured; 1 to 16 are possible",
         few.size());
  std::vector<double> losses;
  std::vector<int64_t> saved;
  for (int r : few) {
    losses.push_back(values[static_cast<size_t>(r)]);
    saved.push_back(weights[static_cast<size_t>(r)]);
  }
  const int64_t whole = std::accumulate(saved.begin(), saved.end(), int64_t{0});
  const auto subset = [&](uint32_t bits) {
    std::vector<int> removed;
    for (size_t i = 0; i < few.size(); ++i) {
      if (bits >> i & 1) removed.push_back(few[i]);
    }
    std::ranges::sort(removed);
    return removed;
  };
  const uint32_t all = uint32_t{1} << few.size();
  std::vector<double> measured(all);
  std::vector<int64_t> weight(all);
  for (uint32_t bits = 1; bits < all; ++bits) {
    measured[bits] = truth(subset(bits));
    for (size_t i = 0; i < few.size(); ++i) weight[bits] += bits >> i & 1 ? saved[i] : 0;
    tell(watch, "every subset", bits, all - 1);
  }
  BruteForce made{.plans = int64_t{all}};
  for (double budget : budgets) {
    const auto least = static_cast<int64_t>(std::ceil(budget * static_cast<double>(whole)));
    const Exact solved = exact(each_alone(losses, {saved}, {least}));
    if (solved.best.empty()) continue;
    uint32_t chosen = 0, best = 0;
    for (size_t i = 0; i < few.size(); ++i) chosen |= static_cast<uint32_t>(solved.best[0].taken[i]) << i;
    for (uint32_t bits = 0; bits < all; ++bits) {
      if (weight[bits] >= least && (weight[best] < least || measured[bits] < measured[best])) best = bits;
    }
    made.rows.push_back({.budget = budget,
                         .best = subset(best),
                         .chosen = subset(chosen),
                         .best_truth = measured[best],
                         .chosen_truth = measured[chosen]});
  }
  return made;
}

}  // namespace lamina::laptop
