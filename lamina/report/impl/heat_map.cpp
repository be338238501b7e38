#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "lamina/report/impl/drawings.h"
#include "lamina/report/impl/markup.h"
#include "lamina/report/terminal.h"

namespace lamina::report::impl {

namespace {

constexpr double full_width = 720;
constexpr double least_left = 44, character = 6.6;  // of 11.5 px, on average
constexpr double top = 22;
constexpr double label_width = 26;  // room for one column label

}  // namespace

std::optional<Range> value_range(const HeatMap& map) {
  std::vector<double> values;
  for (const HeatCell& cell : map.cells) {
    if (cell.sort != HeatCell::Sort::absent) values.push_back(cell.value);
  }
  return Range::of(values, map.scale);
}

std::string draw_heat_map(const HeatMap& map) {
  if (map.cells.empty()) return {};
  const auto range = value_range(map);
  const size_t columns = map.columns.size(), rows = map.rows.size();
  int longest = 0;
  for (const std::string& row : map.rows) longest = std::max(longest, display_width(clean(row)));
  const double left = std::clamp(character * longest + 10, least_left, full_width / 3);
  const double width = std::min(40.0, (full_width - left) / static_cast<double>(columns));
  const double height = rows > 24 ? 12 : rows > 12 ? 16 : 22;
  const double air = width > 6 ? 1 : 0;
  const size_t stride = static_cast<size_t>(std::ceil(label_width / width));
  const size_t row_stride = height < 14 ? 2 : 1;

  std::string labels = fmt::format("<text class=\"name\" x=\"{}\" y=\"14\" text-anchor=\"end\">{}</text>",
                                   coordinate(left - 8), escaped(map.row_axis));
  for (size_t column = 0; column < columns; column += stride) {
    labels +=
        fmt::format("<text class=\"name\" x=\"{}\" y=\"14\">{}</text>",
                    coordinate(left + static_cast<double>(column) * width), escaped(map.columns[column]));
  }
  for (size_t row = 0; row < rows; row += row_stride) {
    labels += fmt::format(
        "<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", coordinate(left - 8),
        coordinate(top + static_cast<double>(row) * height + height / 2 + 4), escaped(map.rows[row]));
  }

  // One path for all cells of one look: a map of a deep network has thousands of them. What each cell says is
  // in the table of numbers, where the script finds it.
  const std::string sides =
      fmt::format("h{}v{}h-{}z", coordinate(width - air), coordinate(height - 1), coordinate(width - air));
  const double corner = std::min(4.5, width - air);
  const std::string corner_sides = fmt::format("h{0}v{0}z", coordinate(corner));
  std::map<std::string, std::string> cells, bounds;  // by class
  std::string rings;
  for (size_t row = 0; row < rows; ++row) {
    for (size_t column = 0; column < columns; ++column) {
      const HeatCell& cell = map.cells[row * columns + column];
      const double x = left + static_cast<double>(column) * width,
                   y = top + static_cast<double>(row) * height;
      const bool absent = cell.sort == HeatCell::Sort::absent;
      const std::string look = absent                   ? "cut"
                               : std::isnan(cell.value) ? "plain"
                                                        : fmt::format("r{}", ramp_step(range, cell.value));
      cells[look] += fmt::format("M{} {}{}", coordinate(x), coordinate(y), sides);
      if (cell.sort == HeatCell::Sort::bound && !std::isnan(cell.value)) {
        bounds[look] +=
            fmt::format("M{} {}{}", coordinate(x + width - air - corner), coordinate(y), corner_sides);
      }
      if (cell.chosen) {
        rings += fmt::format("<rect class=\"ring\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                             coordinate(x - 0.5), coordinate(y - 0.5), coordinate(width - air + 1),
                             coordinate(height));
      }
    }
  }
  std::string body = labels + "\n";
  for (const auto& [look, path] : cells) body += fmt::format("<path class=\"{}\" d=\"{}\"/>\n", look, path);
  for (const auto& [look, path] : bounds)
    body += fmt::format("<g class=\"{}\"><path class=\"bound\" d=\"{}\"/></g>\n", look, path);
  return fmt::format(
      "<svg class=\"heat\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" "
      "aria-label=\"{2}\" "
      "data-left=\"{3}\" data-top=\"{4}\" data-width=\"{5}\" data-height=\"{6}\">\n{7}{8}</svg>\n",
      coordinate(left + static_cast<double>(columns) * width + 2),
      coordinate(top + static_cast<double>(rows) * height + 2), escaped(map.title), coordinate(left),
      coordinate(top), width, coordinate(height), body, rings);
}

}  // namespace lamina::report::impl
