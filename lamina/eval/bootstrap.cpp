#include "lamina/eval/bootstrap.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "lamina/base/random.h"

namespace lamina {

double quantile(std::span<const double> sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Estimate ratio_of_means(std::span<const double> numerators, std::span<const double> denominators,
                        const BootstrapOptions& options) {
  assert(numerators.size() == denominators.size());
  const size_t count = numerators.size();
  double top = 0, bottom = 0;
  for (size_t i = 0; i < count; ++i) top += numerators[i], bottom += denominators[i];
  Estimate estimate{.value = top / bottom, .low = top / bottom, .high = top / bottom};
  if (count < 2 || options.rounds < 1 || !std::isfinite(estimate.value)) return estimate;
  SplitMix random(options.seed);
  std::vector<double> drawn;
  for (int64_t round = 0; round < options.rounds; ++round) {
    double a = 0, b = 0;
    for (size_t k = 0; k < count; ++k) {
      const auto i = static_cast<size_t>(random.below(static_cast<int64_t>(count)));
      a += numerators[i], b += denominators[i];
    }
    if (b != 0) drawn.push_back(a / b);
  }
  if (drawn.empty()) return estimate;
  std::ranges::sort(drawn);
  estimate.low = quantile(drawn, 0.025);
  estimate.high = quantile(drawn, 0.975);
  return estimate;
}

Estimate mean_of(std::span<const double> values, const BootstrapOptions& options) {
  return ratio_of_means(values, std::vector<double>(values.size(), 1.0), options);
}

}  // namespace lamina
