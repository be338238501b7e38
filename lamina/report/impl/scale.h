// From values to places: the range that an axis or a ramp covers, its ticks, and where a value stands in it.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "lamina/report/report.h"

namespace lamina::report::impl {

// The finite values, and on a logarithmic scale the positive ones.
class Range {
 public:
  // Exactly from the smallest to the largest; empty when there is no value to show.
  static std::optional<Range> of(std::span<const double> values, Scale scale);
  // With some air at both ends; a linear one starts at 0 when the values come near it.
  Range padded() const;

  double low() const { return low_; }
  double high() const { return high_; }
  Scale scale() const { return scale_; }
  // 0 at the low end, 1 at the high end, clamped; NaN stays NaN.
  double place(double value) const;
  // Round values inside the range, about `count` of them, no nearer to each other than `least_step`.
  std::vector<double> ticks(int count, double least_step = 0) const;

 private:
  Range(double low, double high, Scale scale) : low_(low), high_(high), scale_(scale) {}
  double low_, high_;
  Scale scale_;
};

// Numbers of one drawing: of one precision on a linear scale, each with its own significant digits on a
// logarithmic one.
std::vector<std::string> shown(std::span<const double> values, const Format& format, Scale scale);

// The step of the ramp that a value takes, from 0 (matters little) to ramp_steps - 1.
inline constexpr int ramp_steps = 9;
int ramp_step(const std::optional<Range>& range, double value);

}  // namespace lamina::report::impl
