// Means over a few runs, with Student's t.
#pragma once

#include <cstdint>
#include <span>

namespace lamina {

struct Mean {
  double mean = 0, deviation = 0;  // of one run, n - 1 in the denominator
  double low = 0, high = 0;        // 95 %
  int64_t count = 0;
};
// With fewer than two values the deviation and the interval are NaN.
Mean mean_of_runs(std::span<const double> values);

// Of a - b, pair by pair. Throws Error when the numbers of values differ.
Mean mean_difference(std::span<const double> a, std::span<const double> b);

// The same with the two-sided p of no difference.
struct Paired {
  double difference = 0, low = 0, high = 0;
  double p = 1;
  int64_t count = 0;
};
Paired paired(std::span<const double> a, std::span<const double> b);

// By how much the largest of `arms` equal, normal values is expected to lie above their mean, in deviations:
// 0.56 of 2, 1.77 of 16. The reason why the best of many arms is not to be believed by its own score.
double expected_maximum(int64_t arms);

}  // namespace lamina
