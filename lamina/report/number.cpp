#include "lamina/report/number.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>

namespace lamina::report {

namespace {

constexpr int max_decimals = 9;
// Beyond this many powers of ten between the smallest and the largest, a column is written with exponents.
constexpr int widest_span = 5;

int magnitude(double value) {
  return static_cast<int>(std::floor(std::log10(std::abs(value))));
}

// How many digits after the point show `digits` significant ones of `value`, rounding up to the next power
// counted in.
int decimals_of(double value, int digits) {
  const int plain = std::clamp(digits - 1 - magnitude(value), 0, max_decimals);
  const double rounded = std::stod(fmt::format("{:.{}f}", std::abs(value), plain));
  return rounded == 0 ? plain : std::clamp(digits - 1 - magnitude(rounded), 0, max_decimals);
}

std::string with_commas(std::string digits) {
  const size_t first = digits.starts_with('-') ? 1 : 0;
  size_t end = std::min(digits.find('.'), digits.size());
  while (end > first + 3) digits.insert(end -= 3, ",");
  return digits;
}

std::string fixed(double value, int decimals) {
  std::string text = fmt::format("{:.{}f}", value, decimals);
  const bool zero = text.find_first_of("123456789") == std::string::npos;
  if (zero && text.starts_with('-')) text.erase(0, 1);
  return with_commas(std::move(text));
}

struct Extent {
  double smallest = 0;  // by magnitude, zeros left out
  double largest = 0;
};

std::optional<Extent> extent(std::span<const double> values) {
  std::optional<Extent> found;
  for (const double value : values) {
    if (!std::isfinite(value) || value == 0) continue;
    const double size = std::abs(value);
    if (!found) found = Extent{size, size};
    found->smallest = std::min(found->smallest, size);
    found->largest = std::max(found->largest, size);
  }
  return found;
}

bool is_bytes(std::string_view unit) {
  return unit == "B" || unit.starts_with("B/");
}

struct Prefix {
  double factor;
  const char* name;
};

Prefix prefix_for(double largest) {
  constexpr Prefix prefixes[] = {{1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}};
  for (const Prefix& prefix : prefixes) {
    if (largest >= 0.9995 * prefix.factor) return prefix;
  }
  if (largest >= 999.5) return {1e3, "k"};
  return {1, ""};
}

}  // namespace

std::vector<std::string> written(std::span<const double> values, const Format& format) {
  const auto found = extent(values);
  const double smallest = found ? found->smallest : 0;
  const double largest = found ? found->largest : 0;
  Prefix prefix{1, ""};
  int decimals = format.digits;
  bool exponents = false;
  if (format.notation == Notation::scaled && found) {
    prefix = prefix_for(largest);
    decimals = decimals_of(largest / prefix.factor, format.digits);
    if (prefix.factor == 1 && std::floor(largest) == largest && std::floor(smallest) == smallest)
      decimals = 0;
  } else if (format.notation == Notation::significant && found) {
    exponents = magnitude(largest) - magnitude(smallest) > widest_span || magnitude(smallest) < -widest_span;
    // The small ones get up to two digits more than the large ones have, not all of theirs: the column stays
    // narrow.
    decimals = std::min(decimals_of(smallest, format.digits), decimals_of(largest, format.digits) + 2);
  } else if (!found && format.notation != Notation::fixed) {
    decimals = 0;
  }

  std::vector<std::string> out;
  for (const double value : values) {
    if (std::isnan(value)) {
      out.emplace_back("–");
    } else if (std::isinf(value)) {
      out.emplace_back(value > 0 ? "∞" : "-∞");
    } else if (exponents && value != 0) {
      out.push_back(fmt::format("{:.{}e}", value, std::max(0, format.digits - 1)));
    } else {
      std::string text = fixed(value / prefix.factor, decimals);
      if (format.notation == Notation::scaled) {
        const std::string behind = is_bytes(format.unit) ? prefix.name + format.unit : prefix.name;
        if (!behind.empty()) text += " " + behind;
      }
      out.push_back(std::move(text));
    }
  }
  return out;
}

std::string written(double value, const Format& format) {
  return written({&value, 1}, format)[0];
}

std::string unit_behind(const Format& format) {
  return format.notation == Notation::scaled && is_bytes(format.unit) ? "" : format.unit;
}

std::string with_unit(double value, const Format& format) {
  const std::string unit = unit_behind(format);
  return unit.empty() ? written(value, format) : written(value, format) + " " + unit;
}

std::string change(double before, double after, const Format& format) {
  if (std::isnan(before) || std::isnan(after)) return {};
  if (before == after) return "unchanged";
  const auto signed_number = [](double value, int digits) {
    const int decimals = std::min(decimals_of(value, digits), 2);
    const std::string text = fixed(value, decimals);
    return value > 0 ? "+" + text : text;
  };
  if (!std::isfinite(before) || !std::isfinite(after)) return after > before ? "+∞" : "-∞";
  if (format.unit == "%") return signed_number(after - before, 3) + " points";
  if (before == 0) return signed_number(after, 3);
  const double percent = 100 * (after - before) / std::abs(before);
  if (percent > 999) return fmt::format("x {}", fixed(after / before, 1));
  return signed_number(percent, 3) + " %";
}

}  // namespace lamina::report
