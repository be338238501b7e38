// How a number is written for people. Files for programs (report.json) hold the number itself; this is for
// pages and terminals. Numbers that stand together, in a column or before and after, share one precision and
// one prefix, so that they compare.
#pragma once

#include <limits>
#include <span>
#include <string>
#include <vector>

namespace lamina::report {

// A value that was not measured; null in JSON, a dash on the page.
inline constexpr double not_measured = std::numeric_limits<double>::quiet_NaN();

enum class Notation {
  significant,  // `digits` significant ones: 0.0213, 21.3, and 2.13e-05 where the values span too much
  fixed,        // `digits` after the point: 1,234.50
  scaled,       // `digits` significant ones and a prefix: 134.5 M, 269 MB
};

struct Format {
  Notation notation = Notation::significant;
  int digits = 3;
  std::string unit = {};  // "B", "tokens/s", "%"; empty: a pure number
};

// Counts: no digits after the point, thousands parted by commas.
inline Format whole(std::string unit = {}) {
  return {Notation::fixed, 0, std::move(unit)};
}

// Each number without its unit, except for the prefix that belongs to it ("269 M", or "269 MB" for bytes).
std::vector<std::string> written(std::span<const double> values, const Format& format);
std::string written(double value, const Format& format);
// The number and its unit: "269 MB", "41.3 tokens/s", "4.1 %".
std::string with_unit(double value, const Format& format);
// What stands behind the number or in the head of its column; empty where the prefix says it ("MB").
std::string unit_behind(const Format& format);

// "-12.8 %", "+1.3 points" for a unit of percent, "unchanged"; empty when either was not measured.
std::string change(double before, double after, const Format& format);

}  // namespace lamina::report
