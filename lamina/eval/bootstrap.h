// Intervals by resampling (Efron, 1979), the same for the same seed on every machine.
#pragma once

#include <cstdint>
#include <span>

namespace lamina {

struct Estimate {
  double value = 0;
  double low = 0, high = 0;  // 95 %
};

struct BootstrapOptions {
  int64_t rounds = 1000;
  uint64_t seed = 1;
};

// sum(numerators) / sum(denominators), resampling pairs.
Estimate ratio_of_means(std::span<const double> numerators, std::span<const double> denominators,
                        const BootstrapOptions& options = {});
// Between the two nearest values, in proportion (numpy's default).
double quantile(std::span<const double> sorted, double share);

Estimate mean_of(std::span<const double> values, const BootstrapOptions& options = {});

}  // namespace lamina
