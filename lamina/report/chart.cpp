#include "lamina/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "lamina/report/impl/markup.h"

namespace lamina::report {

namespace {

constexpr std::array<const char*, 8> kBars = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array<const char*, 5> kPlainBars = {"_", ".", "-", "=", "#"};
constexpr std::array<const char*, 6> kMarks = {"·", "●", "▲", "■", "◆", "+"};
constexpr std::array<const char*, 6> kPlainMarks = {".", "o", "^", "#", "*", "+"};

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double value) {
    if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
  }
  bool empty() const { return !(low <= high); }
  // 0 for the lowest, 1 for the highest; the middle when all are equal.
  double share(double value) const { return high > low ? (value - low) / (high - low) : 0.5; }
};

std::string name_of(const std::string& name, const Style& style) {
  std::string out;
  for (const char letter : impl::clean(name)) {
    if (letter == '\n' || letter == '\t')
      out += ' ';
    else if (style.unicode || (letter & 0x80) == 0)
      out += letter;
  }
  return out;
}

std::string padded_left(const std::string& text, int width) {
  return std::string(static_cast<size_t>(std::max(0, width - display_width(text))), ' ') + text;
}

}  // namespace

std::string sparkline(std::span<const double> values, int width, const Style& style) {
  const auto count = std::min<int64_t>(std::ssize(values), std::max(0, width));
  std::vector<double> means;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first = i * std::ssize(values) / count, last = (i + 1) * std::ssize(values) / count;
    double sum = 0;
    for (int64_t k = first; k < last; ++k) sum += values[static_cast<size_t>(k)];
    means.push_back(sum / static_cast<double>(last - first));
  }
  Range range;
  for (const double mean : means) range.add(mean);
  const std::span<const char* const> bars = style.unicode ? std::span<const char* const>(kBars) : kPlainBars;
  std::string line;
  for (const double mean : means) {
    if (!std::isfinite(mean)) {
      line += "?";
      continue;
    }
    const auto level = static_cast<int64_t>(range.share(mean) * static_cast<double>(bars.size()));
    line += bars[static_cast<size_t>(std::clamp<int64_t>(level, 0, std::ssize(bars) - 1))];
  }
  return line;
}

std::string terminal_chart(const Series& series, const Style& style, int rows) {
  rows = std::max(2, rows);
  const bool logarithmic = series.y.scale == Scale::logarithmic;
  const auto height = [&](double y) { return logarithmic ? std::log(y) : y; };
  Range across, up, shown;
  for (const Curve& curve : series.curves) {
    for (size_t i = 0; i < std::min(curve.x.size(), curve.y.size()); ++i) {
      if (!std::isfinite(curve.x[i]) || !std::isfinite(height(curve.y[i]))) continue;
      across.add(curve.x[i]);
      up.add(height(curve.y[i]));
      shown.add(curve.y[i]);
    }
  }
  if (across.empty() || up.empty()) return {};

  const double ends[] = {shown.high, shown.low};
  std::vector<std::string> labels = written(ends, series.y.format);
  const int margin = std::max(display_width(labels[0]), display_width(labels[1]));
  const int columns = style.width - margin - 2;
  if (columns < 8) return {};
  const std::span<const char* const> marks =
      style.unicode ? std::span<const char* const>(kMarks) : kPlainMarks;

  std::vector<std::vector<std::string>> grid(static_cast<size_t>(rows),
                                             std::vector<std::string>(static_cast<size_t>(columns), " "));
  const auto column_of = [&](double x) {
    return static_cast<size_t>(std::lround(across.share(x) * static_cast<double>(columns - 1)));
  };
  const auto row_of = [&](double y) {
    return static_cast<size_t>(std::lround((1 - up.share(height(y))) * static_cast<double>(rows - 1)));
  };
  std::string legend;
  size_t number = 0;
  for (const Curve& curve : series.curves) {
    const bool level = curve.role == Curve::Role::reference;
    const char* mark = level ? "-" : marks[number++ % marks.size()];
    for (size_t i = 0; i < std::min(curve.x.size(), curve.y.size()); ++i) {
      if (!std::isfinite(curve.x[i]) || !std::isfinite(height(curve.y[i]))) continue;
      if (level) {
        for (std::string& cell : grid[row_of(curve.y[i])])
          if (cell == " ") cell = mark;
      } else {
        grid[row_of(curve.y[i])][column_of(curve.x[i])] = mark;
      }
    }
    legend += fmt::format("{}{} {}", legend.empty() ? "" : "   ", mark, name_of(curve.name, style));
  }

  std::string out;
  const char* side = style.unicode ? "│" : "|";
  for (int row = 0; row < rows; ++row) {
    const std::string label = row == 0 ? labels[0] : row == rows - 1 ? labels[1] : "";
    std::string line = padded_left(label, margin) + " " + side;
    for (const std::string& cell : grid[static_cast<size_t>(row)]) line += cell;
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  const double sides[] = {across.low, across.high};
  const std::vector<std::string> feet = written(sides, series.x.format);
  const std::string middle = name_of(series.x.name, style);
  const int room = columns - display_width(feet[0]) - display_width(feet[1]);
  std::string foot = feet[0];
  if (const int air = room - display_width(middle); air >= 2 && !middle.empty()) {
    foot += std::string(static_cast<size_t>(air / 2), ' ') + middle +
            std::string(static_cast<size_t>(air - air / 2), ' ');
  } else {
    foot += std::string(static_cast<size_t>(std::max(1, room)), ' ');
  }
  out += std::string(static_cast<size_t>(margin + 2), ' ') + foot + feet[1] + "\n";
  if (display_width(legend) <= columns)
    out += std::string(static_cast<size_t>(margin + 2), ' ') + legend + "\n";
  return out;
}

}  // namespace lamina::report
