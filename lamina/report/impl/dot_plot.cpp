#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/report/impl/drawings.h"
#include "lamina/report/impl/markup.h"
#include "lamina/report/terminal.h"

namespace lamina::report::impl {

namespace {

constexpr double width = 720;
constexpr double character = 6.9;  // of 12 px, on average
constexpr size_t longest_name = 24, longest_note = 26;
constexpr double square = 12, widest_pattern = 108;
constexpr size_t many_rows = 24;

// Ends of intervals as far as they leave the values room: two runs have an interval thirteen times their
// spread, and one of that kind would make dots of all others.
Range range_of(const DotPlot& plot, bool& cut) {
  std::vector<double> values;
  for (const DotRow& row : plot.rows) {
    for (const DotRow::Value& value : row.values)
      if (std::isfinite(value.value)) values.push_back(value.value);
  }
  if (std::isfinite(plot.reference)) values.push_back(plot.reference);
  const auto inner = Range::of(values, plot.axis.scale);
  if (!inner) return *Range::of(std::vector<double>{0, 1}, Scale::linear);
  const bool logarithmic = plot.axis.scale == Scale::logarithmic;
  const auto flat = [&](double value) { return logarithmic ? std::log(value) : value; };
  const auto [low, high] = std::ranges::minmax(values);
  const double spread = flat(high) - flat(low);
  for (const DotRow& row : plot.rows) {
    for (const DotRow::Value& value : row.values) {
      for (double end : {value.low, value.high}) {
        if (!std::isfinite(end)) continue;
        if (spread > 0 && (flat(end) < flat(low) - spread || flat(end) > flat(high) + spread)) {
          cut = true;
          const double limit = end < low ? flat(low) - spread : flat(high) + spread;
          end = logarithmic ? std::exp(limit) : limit;
        }
        values.push_back(end);
      }
    }
  }
  return Range::of(values, plot.axis.scale)->padded();
}

std::string shortened(const std::string& text, size_t most) {
  const std::string whole = clean(text);
  if (display_width(whole) <= static_cast<int>(most)) return whole;
  std::string out;
  for (size_t at = 0; at < whole.size();) {
    const auto lead = static_cast<unsigned char>(whole[at]);
    const size_t length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (display_width(out) + 2 > static_cast<int>(most)) break;
    out += whole.substr(at, length);
    at += length;
  }
  return out + "…";
}

std::string interval_text(const DotRow::Value& value, const Format& format) {
  const double numbers[] = {value.value, value.low, value.high};
  const std::vector<std::string> texts = written(numbers, format);
  return std::isnan(value.low) ? texts[0] : fmt::format("{} ({} to {})", texts[0], texts[1], texts[2]);
}

}  // namespace

DotAxis axis_of(const DotPlot& plot) {
  DotAxis axis;
  axis.low = range_of(plot, axis.cut).low();
  return axis;
}

std::string draw_dot_plot(const DotPlot& plot) {
  if (plot.rows.empty() || plot.groups.empty()) return {};
  bool cut = false;
  const Range range = range_of(plot, cut);
  size_t longest_pattern = 0;
  int names = 0, notes = 0;
  std::vector<double> firsts;
  for (const DotRow& row : plot.rows) {
    longest_pattern = std::max(longest_pattern, row.pattern.size());
    names = std::max(names, display_width(shortened(row.name, longest_name)));
    notes = std::max(notes, display_width(shortened(row.note, longest_note)) +
                                (row.mark.empty() ? 0 : display_width(row.mark) + 2));
    firsts.push_back(row.values[0].value);
  }
  const std::vector<std::string> texts = written(firsts, plot.axis.format);
  size_t digits = 0;
  for (const std::string& text : texts) digits = std::max(digits, text.size());

  const double cell =
      longest_pattern == 0 ? 0 : std::min(square, widest_pattern / static_cast<double>(longest_pattern));
  const double gap = cell >= 6 ? 2 : 0;
  const double pattern_width = cell * static_cast<double>(longest_pattern);
  const double name_x = pattern_width > 0 ? pattern_width + 8 : 0;
  const double left = name_x + character * names + 16;
  const double value_width = character * static_cast<double>(digits) + 10;
  const double right = value_width + (notes > 0 ? character * notes + 10 : 0);
  const double plot_width = std::max(180.0, width - left - right);
  const double full_width = left + plot_width + right;
  const bool many = plot.rows.size() > many_rows;
  const double row_height = many ? 19 : 24;
  const double top = 48, height = row_height * static_cast<double>(plot.rows.size());
  const auto at_x = [&](double value) { return left + range.place(value) * plot_width; };

  std::string title = plot.axis.name;
  if (!plot.axis.format.unit.empty()) title += " (" + plot.axis.format.unit + ")";
  if (plot.axis.scale == Scale::logarithmic) title += ", logarithmic";
  std::string body =
      fmt::format("<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                  coordinate(left + plot_width / 2), coordinate(top + height + 40), escaped(title));
  const std::vector<double> ticks = range.ticks(plot_width > 320 ? 7 : 4);
  double step = std::numeric_limits<double>::infinity();
  for (size_t i = 1; i < ticks.size(); ++i) step = std::min(step, ticks[i] - ticks[i - 1]);
  const bool even = plot.axis.scale == Scale::linear && std::isfinite(step) && step > 1e-6;
  const Format tick_format =
      even ? Format{Notation::fixed, std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9))), ""}
           : Format{Notation::significant, 2, ""};
  const std::vector<std::string> tick_texts = shown(ticks, tick_format, plot.axis.scale);
  for (size_t i = 0; i < ticks.size(); ++i) {
    const std::string x = coordinate(at_x(ticks[i]));
    body += fmt::format(
        "<path class=\"grid\" d=\"M{0} {1}v{2}\"/><text class=\"tick\" x=\"{0}\" y=\"{3}\" "
        "text-anchor=\"middle\">{4}</text>",
        x, coordinate(top), coordinate(height), coordinate(top + height + 18), escaped(tick_texts[i]));
    if (many)
      body += fmt::format("<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>", x,
                          coordinate(top - 8), escaped(tick_texts[i]));
  }
  body += fmt::format("<path class=\"axis\" d=\"M{} {}h{}\"/>\n", coordinate(left), coordinate(top + height),
                      coordinate(plot_width));
  if (std::isfinite(plot.reference)) {
    const double x = at_x(plot.reference);
    // The name stands on the side that has the room.
    const double place = range.place(plot.reference);
    body += fmt::format(
        "<path class=\"level\" d=\"M{0} {1}V{2}\"/><text class=\"name\" x=\"{0}\" y=\"{3}\" "
        "text-anchor=\"{4}\">{5}</text>\n",
        coordinate(x), coordinate(many ? 18 : top - 12), coordinate(top + height),
        coordinate(many ? 14 : top - 18),
        place < 0.2   ? "start"
        : place > 0.8 ? "end"
                      : "middle",
        escaped(plot.reference_name));
  }
  for (size_t i = 0; i < plot.rows.size(); ++i) {
    const DotRow& row = plot.rows[i];
    const double middle = top + (static_cast<double>(i) + 0.5) * row_height;
    std::string tip = row.name;
    for (size_t group = 0; group < plot.groups.size(); ++group)
      tip += fmt::format("{} {} {}", group ? "," : ":", plot.groups[group],
                         interval_text(row.values[group], plot.axis.format));
    for (const std::string& more : {row.note, row.mark}) {
      if (!more.empty()) tip += "; " + more;
    }
    body +=
        fmt::format("<g class=\"row{}\"><title>{}</title>", row.mark.empty() ? "" : " marked", escaped(tip));
    // What the pointer finds between the things that are drawn.
    body += fmt::format("<path class=\"under\" d=\"M0 {}h{}v{}H0z\"/>", coordinate(middle - row_height / 2),
                        coordinate(full_width), coordinate(row_height));
    const double side = cell - gap, tall = std::min(side, square - 2);
    std::string filled, hollow;
    for (size_t k = 0; k < row.pattern.size(); ++k) {
      const bool on = row.pattern[k];
      const double inset = on || gap == 0 ? 0 : 0.5;  // a hollow one's line lies inside
      (on ? filled : hollow) +=
          fmt::format("M{} {}h{}v{}h-{}z", coordinate(static_cast<double>(k) * cell + inset),
                      coordinate(middle - (gap > 0 ? tall : 10) / 2 + inset), coordinate(side - 2 * inset),
                      coordinate((gap > 0 ? tall : 10) - 2 * inset), coordinate(side - 2 * inset));
    }
    if (!filled.empty()) body += fmt::format("<path class=\"on\" d=\"{}\"/>", filled);
    if (!hollow.empty())
      body += fmt::format("<path class=\"off{}\" d=\"{}\"/>", gap > 0 ? "" : " flat", hollow);
    body += fmt::format("<text x=\"{}\" y=\"{}\">{}</text>", coordinate(name_x), coordinate(middle + 4),
                        escaped(shortened(row.name, longest_name)));
    for (size_t group = plot.groups.size(); group-- > 0;) {
      const DotRow::Value& value = row.values[group];
      if (!std::isfinite(value.value)) continue;
      const char* look = group == 0 ? "first" : "second";
      const double y = plot.groups.size() == 1 ? middle
                       : group == 0            ? middle - 3
                                               : middle + row_height / 2 - 6;
      if (std::isfinite(value.low) && std::isfinite(value.high)) {
        const double from = at_x(value.low), to = at_x(value.high);
        body += fmt::format("<path class=\"interval {}\" d=\"M{} {}H{}\"/>", look, coordinate(from),
                            coordinate(y), coordinate(to));
        if (value.low < range.low())
          body += fmt::format("<path class=\"interval {}\" d=\"M{} {}l-5 3.5l5 3.5\"/>", look,
                              coordinate(from + 5), coordinate(y - 3.5));
        if (value.high > range.high())
          body += fmt::format("<path class=\"interval {}\" d=\"M{} {}l5 3.5l-5 3.5\"/>", look,
                              coordinate(to - 5), coordinate(y - 3.5));
      }
      body += fmt::format("<circle class=\"{}\" cx=\"{}\" cy=\"{}\" r=\"{}\"/>", look,
                          coordinate(at_x(value.value)), coordinate(y), group == 0 ? "4" : "2.75");
    }
    const double behind = left + plot_width;
    body += fmt::format("<text class=\"number\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                        coordinate(behind + value_width), coordinate(middle + 4), escaped(texts[i]));
    std::string note = escaped(shortened(row.note, longest_note));
    if (!row.mark.empty())
      note = fmt::format("<tspan class=\"chosen\">{}</tspan>{}{}", escaped(row.mark),
                         note.empty() ? "" : ", ", note);
    if (!note.empty())
      body += fmt::format("<text class=\"name\" x=\"{}\" y=\"{}\">{}</text>",
                          coordinate(behind + value_width + 10), coordinate(middle + 4), note);
    body += "</g>\n";
  }
  return fmt::format(
      "<svg class=\"dot-plot\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" "
      "aria-label=\"{2}\">\n{3}</svg>\n",
      coordinate(full_width), coordinate(top + height + 48), escaped(plot.title), body);
}

}  // namespace lamina::report::impl
