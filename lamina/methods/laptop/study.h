// How far the sum of single losses can be trusted on a model: random plans, whose loss is measured, against
// what is predicted of them; and few candidates, of which every subset is measured, so that the best plan is
// known.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/methods/laptop/laptop.h"

namespace lamina::laptop {

// The loss of a plan, as it is measured: of the candidates with these indices removed.
using Truth = std::function<double(std::span<const int>)>;

// A way to predict the loss of a plan.
struct Predictor {
  std::string name;
  std::function<double(std::span<const int>)> of;
};
// The sum of `values`; "(sum of norms)^2", to which a triangle inequality leads; and "superposition".
Predictor sum_of(std::string name, std::vector<double> values);
Predictor squared_norms(std::string name, std::vector<double> values);
Predictor superposition(const Scores& scores);

struct StudyOptions {
  int64_t plans = 128;
  int least = 2, most = 14;  // parts in a plan, spread evenly
  uint64_t seed = 0;
};
struct Study {
  struct Row {
    std::vector<int> removed;  // candidates, ascending
    double truth = 0;
    std::vector<double> predicted = {};  // one a predictor
  };
  std::vector<std::string> predictors = {};
  std::vector<Row> rows = {};
  // Spearman's rank correlation with the truth, one a predictor.
  std::vector<double> correlations() const;
  // Median of truth / prediction over the plans of `least` to `most` parts; not a number without one.
  double median_ratio(size_t predictor, int least, int most) const;
};
Study study(int candidates, std::span<const Predictor> predictors, const Truth& truth,
            const StudyOptions& options, const Watch& watch = {});

// Of `few` candidates every subset is measured. For each budget (a share of what they weigh together) the
// best plan there is, and the one that the values choose, by exact search on their sum.
struct BruteForce {
  struct Row {
    double budget = 0;  // share of the weight of the few
    std::vector<int> best = {}, chosen = {};
    double best_truth = 0, chosen_truth = 0;
  };
  std::vector<Row> rows = {};
  int64_t plans = 0;
};
// Throws Error for more than 16.
BruteForce brute_force(std::span<const int> few, std::span<const double> values,
                       std::span<const int64_t> weights, std::span<const double> budgets, const Truth& truth,
                       const Watch& watch = {});

}  // namespace lamina::laptop
