#include "lamina/report/impl/scale.h"

#include <algorithm>
#include <cmath>

namespace lamina::report::impl {

namespace {

// The step among 1, 2, 5 times a power of ten that cuts `span` into about `count` pieces.
double round_step(double span, int count) {
  const double rough = span / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * 0.999) return factor * power;
  }
  return 10 * power;
}

}  // namespace

std::optional<Range> Range::of(std::span<const double> values, Scale scale) {
  std::optional<Range> range;
  for (const double value : values) {
    if (!std::isfinite(value) || (scale == Scale::logarithmic && value <= 0)) continue;
    if (!range) range = Range(value, value, scale);
    range->low_ = std::min(range->low_, value);
    range->high_ = std::max(range->high_, value);
  }
  return range;
}

Range Range::padded() const {
  if (scale_ == Scale::logarithmic) {
    const double air = high_ > low_ ? std::pow(high_ / low_, 0.05) : 1.1;
    return {low_ / air, high_ * air, scale_};
  }
  const double span = high_ - low_;
  if (low_ >= 0 && low_ < 0.35 * high_) return {0, high_ + 0.05 * high_, scale_};
  const double air = span > 0 ? 0.05 * span : std::max(1e-9, 0.1 * std::abs(high_));
  return {low_ - air, high_ + air, scale_};
}

double Range::place(double value) const {
  if (std::isnan(value)) return value;
  if (!(high_ > low_)) return value < low_ ? 0 : value > high_ ? 1 : 0.5;
  if (value <= low_) return 0;
  if (value >= high_) return 1;
  const auto on_scale = [&](double v) { return scale_ == Scale::logarithmic ? std::log(v) : v; };
  return (on_scale(value) - on_scale(low_)) / (on_scale(high_) - on_scale(low_));
}

std::vector<double> Range::ticks(int count, double least_step) const {
  std::vector<double> ticks;
  const double slack = 1e-9 * (high_ - low_);
  if (scale_ == Scale::logarithmic && high_ / low_ >= 8) {
    const double decades = std::log10(high_ / low_);
    const int stride = std::max(1, static_cast<int>(decades) / count);
    for (int power = static_cast<int>(std::floor(std::log10(low_))); std::pow(10, power) <= high_;
         power += stride) {
      for (const double factor : {1.0, 2.0, 5.0}) {
        const double tick = factor * std::pow(10, power);
        if ((factor == 1 || 3 * decades <= count + 2) && tick >= low_ && tick <= high_) ticks.push_back(tick);
      }
    }
    if (ticks.size() > 1) return ticks;
    ticks.clear();
  }
  if (!(high_ > low_)) return {low_};
  const double step = std::max(least_step, round_step(high_ - low_, count));
  for (double index = std::ceil((low_ - slack) / step); index * step <= high_ + slack; ++index)
    ticks.push_back(index * step);
  return ticks;
}

std::vector<std::string> shown(std::span<const double> values, const Format& format, Scale scale) {
  if (scale == Scale::linear) return written(values, format);
  std::vector<std::string> out;
  for (const double value : values) out.push_back(written(value, format));
  return out;
}

int ramp_step(const std::optional<Range>& range, double value) {
  if (!range || std::isnan(value)) return 0;
  return std::min(static_cast<int>(range->place(value) * ramp_steps), ramp_steps - 1);
}

}  // namespace lamina::report::impl
