#include "lamina/eval/t_test.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "lamina/base/error.h"

namespace lamina {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Two-sided: the share of Student's t beyond +-t. With z = v / (v + t^2) it is the incomplete beta function
// I_z(v / 2, 1 / 2), summed here as the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4.
double beyond(double t, int64_t freedom) {
  const double v = static_cast<double>(freedom), angle = std::atan(std::abs(t) / std::sqrt(v));
  const double sine = std::sin(angle), cosine = std::cos(angle);
  double inside = 0;
  if (freedom % 2 == 1) {
    double term = cosine, sum = 0;
    for (int64_t k = 3; k <= freedom; k += 2) {
      sum += term;
      term *= cosine * cosine * static_cast<double>(k - 1) / static_cast<double>(k);
    }
    inside = 2 / std::numbers::pi * (angle + sine * sum);
  } else {
    double term = 1, sum = 0;
    for (int64_t k = 2; k <= freedom; k += 2) {
      sum += term;
      term *= cosine * cosine * static_cast<double>(k - 1) / static_cast<double>(k);
    }
    inside = sine * sum;
  }
  return std::clamp(1 - inside, 0.0, 1.0);
}

// What 95 % lie within.
double point(int64_t freedom) {
  double low = 0, high = 20;  // 12.7 with one degree of freedom
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (beyond(middle, freedom) > 0.05 ? low : high) = middle;
  }
  return high;
}

}  // namespace

Mean mean_of_runs(std::span<const double> values) {
  Mean result{.count = std::ssize(values)};
  const double count = static_cast<double>(values.size());
  if (values.empty()) return {.mean = kNone, .deviation = kNone, .low = kNone, .high = kNone};
  for (double value : values) result.mean += value / count;
  double square = 0;
  for (double value : values) square += (value - result.mean) * (value - result.mean);
  result.deviation = values.size() < 2 ? kNone : std::sqrt(square / (count - 1));
  const double half =
      values.size() < 2 ? kNone : point(result.count - 1) * result.deviation / std::sqrt(count);
  result.low = result.mean - half;
  result.high = result.mean + half;
  return result;
}

Mean mean_difference(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size()) fail("{} and {} values cannot be compared one by one", a.size(), b.size());
  std::vector<double> differences;
  for (size_t i = 0; i < a.size(); ++i) differences.push_back(a[i] - b[i]);
  return mean_of_runs(differences);
}

Paired paired(std::span<const double> a, std::span<const double> b) {
  const Mean mean = mean_difference(a, b);
  Paired result{.difference = mean.mean, .low = mean.low, .high = mean.high, .p = kNone, .count = mean.count};
  if (mean.count < 2) return result;
  const double error = mean.deviation / std::sqrt(static_cast<double>(mean.count));
  if (error > 0)
    result.p = beyond(mean.mean / error, mean.count - 1);
  else
    result.p = mean.mean == 0 ? 1 : 0;
  return result;
}

double expected_maximum(int64_t arms) {
  if (arms < 1) fail("{} arms have no best one", arms);
  // The mean of the maximum: integral of x n phi(x) Phi(x)^(n - 1), by Simpson's rule.
  constexpr int kSteps = 4000;
  constexpr double kReach = 10;
  const double n = static_cast<double>(arms), width = 2 * kReach / kSteps;
  double sum = 0;
  for (int i = 0; i <= kSteps; ++i) {
    const double x = -kReach + width * i;
    const double density = std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
    const double value = x * n * density * std::pow(std::erfc(-x / std::numbers::sqrt2) / 2, n - 1);
    sum += value * (i == 0 || i == kSteps ? 1 : i % 2 == 1 ? 4 : 2);
  }
  return sum * width / 3;
}

}  // namespace lamina
