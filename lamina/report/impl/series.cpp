#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lamina/base/json_number.h"
#include "lamina/report/impl/drawings.h"
#include "lamina/report/impl/markup.h"

namespace lamina::report::impl {

namespace {

constexpr double width = 720, height = 346;
constexpr double left = 56, right = 128, top = 36, bottom = 46;
constexpr double plot_width = width - left - right, plot_height = height - top - bottom;
constexpr double label_height = 15;

// Greys are told apart by their dashes, in this order.
constexpr const char* dashes[] = {"", "7 4", "2 3", "9 3 2 3", "4 2", "1 4"};

struct Label {
  size_t curve;
  double y;  // from the top of the plot
};

// Everything about a chart that does not depend on its width.
struct Layout {
  Range x, y;
  std::vector<double> x_ticks, y_ticks;
  std::vector<std::string> x_texts, y_texts;
  std::vector<std::string> dash;  // one a curve
  std::vector<Label> labels;
};

std::vector<double> all(const Series& series, std::vector<double> Curve::* member) {
  std::vector<double> values;
  for (const Curve& curve : series.curves)
    values.insert(values.end(), (curve.*member).begin(), (curve.*member).end());
  return values;
}

Format tick_format(const Axis& axis, const std::vector<double>& ticks) {
  // Ticks are round numbers: as many digits as tell them apart, not as many as the data have.
  if (axis.format.notation == Notation::scaled) return {Notation::scaled, 2, axis.format.unit};
  double step = std::numeric_limits<double>::infinity();
  for (size_t i = 1; i < ticks.size(); ++i) step = std::min(step, ticks[i] - ticks[i - 1]);
  if (!std::isfinite(step) || step <= 0 || step < 1e-6) return {Notation::significant, 2, ""};
  return {Notation::fixed, std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9))), ""};
}

// Names at the right end of the curves, pushed apart until none covers another.
std::vector<Label> place_labels(const Series& series, const Range& y) {
  std::vector<Label> labels;
  for (size_t i = 0; i < series.curves.size(); ++i) {
    const Curve& curve = series.curves[i];
    const auto last =
        std::find_if(curve.y.rbegin(), curve.y.rend(), [](double value) { return std::isfinite(value); });
    if (last != curve.y.rend()) labels.push_back({i, (1 - y.place(*last)) * plot_height});
  }
  std::ranges::sort(labels, {}, [](const Label& label) { return std::pair(label.y, label.curve); });
  for (size_t i = 1; i < labels.size(); ++i)
    labels[i].y = std::max(labels[i].y, labels[i - 1].y + label_height);
  double limit = plot_height + 4;
  for (auto label = labels.rbegin(); label != labels.rend(); ++label) {
    label->y = std::min(label->y, limit);
    limit = label->y - label_height;
  }
  return labels;
}

std::optional<Layout> lay_out(const Series& series) {
  std::vector<double> y = all(series, &Curve::y);
  for (const auto member : {&Curve::low, &Curve::high}) {
    const std::vector<double> ends = all(series, member);
    y.insert(y.end(), ends.begin(), ends.end());
  }
  const auto x_range = Range::of(all(series, &Curve::x), series.x.scale);
  const auto y_range = Range::of(y, series.y.scale);
  if (!x_range || !y_range) return {};
  Layout layout{.x = *x_range,
                .y = y_range->padded(),
                .x_ticks = {},
                .y_ticks = {},
                .x_texts = {},
                .y_texts = {},
                .dash = {},
                .labels = {}};
  // What is counted has no halves.
  const auto least_step = [](const Axis& axis) {
    return axis.format.notation == Notation::fixed && axis.format.digits == 0 ? 1.0 : 0.0;
  };
  layout.x_ticks = layout.x.ticks(8, least_step(series.x));
  layout.y_ticks = layout.y.ticks(6, least_step(series.y));
  layout.x_texts = written(layout.x_ticks, tick_format(series.x, layout.x_ticks));
  layout.y_texts = written(layout.y_ticks, tick_format(series.y, layout.y_ticks));
  size_t greys = 0;
  for (const Curve& curve : series.curves) {
    layout.dash.emplace_back(curve.role == Curve::Role::baseline    ? dashes[greys++ % std::size(dashes)]
                             : curve.role == Curve::Role::reference ? "2 4"
                                                                    : "");
  }
  layout.labels = place_labels(series, layout.y);
  return layout;
}

const char* class_of(Curve::Role role) {
  switch (role) {
    case Curve::Role::method:
      return "method";
    case Curve::Role::baseline:
      return "baseline";
    case Curve::Role::reference:
      return "reference";
  }
  return "";
}

Json numbers_or_null(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values) list.push_back(number_or_null(value));
  return list;
}

// The y of the chosen x on the method's own curve.
std::optional<double> chosen_y(const Series& series) {
  if (!series.chosen) return {};
  for (const Curve& curve : series.curves) {
    if (curve.role != Curve::Role::method) continue;
    const auto at = std::ranges::find(curve.x, *series.chosen);
    if (at == curve.x.end()) return {};
    const double y = curve.y[static_cast<size_t>(at - curve.x.begin())];
    if (std::isfinite(y)) return y;
    return {};
  }
  return {};
}

std::string axis_title(const Axis& axis) {
  std::string title = axis.name;
  if (!axis.format.unit.empty()) title += " (" + axis.format.unit + ")";
  if (axis.scale == Scale::logarithmic) title += ", logarithmic";
  return title;
}

}  // namespace

std::string draw_series(const Series& series) {
  const auto layout = lay_out(series);
  if (!layout) return {};
  const auto at_x = [&](double x) { return left + layout->x.place(x) * plot_width; };
  const auto at_y = [&](double y) { return top + (1 - layout->y.place(y)) * plot_height; };
  const auto point = [&](double x, double y) { return coordinate(at_x(x)) + " " + coordinate(at_y(y)); };

  std::string body = fmt::format(
      "<text class=\"name\" x=\"0\" y=\"12\">{}</text><text class=\"name\" x=\"{}\" y=\"{}\" "
      "text-anchor=\"middle\">{}</text>\n",
      escaped(axis_title(series.y)), coordinate(left + plot_width / 2), coordinate(height - 8),
      escaped(axis_title(series.x)));
  for (size_t i = 0; i < layout->y_ticks.size(); ++i) {
    const std::string y = coordinate(at_y(layout->y_ticks[i]));
    body += fmt::format(
        "<path class=\"grid\" d=\"M{} {}h{}\"/><text class=\"tick\" x=\"{}\" y=\"{}\" "
        "text-anchor=\"end\">{}</text>",
        coordinate(left), y, coordinate(plot_width), coordinate(left - 8),
        coordinate(at_y(layout->y_ticks[i]) + 4), escaped(layout->y_texts[i]));
  }
  for (size_t i = 0; i < layout->x_ticks.size(); ++i) {
    const double x = at_x(layout->x_ticks[i]);
    body += fmt::format(
        "<path class=\"axis\" d=\"M{} {}v5\"/><text class=\"tick\" x=\"{}\" y=\"{}\" "
        "text-anchor=\"middle\">{}</text>",
        coordinate(x), coordinate(top + plot_height), coordinate(x), coordinate(top + plot_height + 18),
        escaped(layout->x_texts[i]));
  }
  body += fmt::format("<path class=\"axis\" d=\"M{} {}h{}\"/>\n", coordinate(left),
                      coordinate(top + plot_height), coordinate(plot_width));

  for (const Curve& curve : series.curves) {
    // A band is drawn in pieces where an end of it was not measured.
    for (size_t first = 0; first < curve.low.size();) {
      const auto known = [&](size_t i) {
        return std::isfinite(curve.low[i]) && std::isfinite(curve.high[i]);
      };
      size_t last = first;
      while (last < curve.low.size() && known(last)) ++last;
      if (last > first + 1) {
        std::string path;
        for (size_t i = first; i < last; ++i)
          path += (path.empty() ? "M" : "L") + point(curve.x[i], curve.high[i]);
        for (size_t i = last; i-- > first;) path += "L" + point(curve.x[i], curve.low[i]);
        body += fmt::format("<path class=\"band\" d=\"{}z\"/>\n", path);
      }
      first = std::max(last, first + 1);
    }
  }
  // The method is drawn last, over the baselines.
  for (const Curve::Role role : {Curve::Role::reference, Curve::Role::baseline, Curve::Role::method}) {
    for (size_t i = 0; i < series.curves.size(); ++i) {
      const Curve& curve = series.curves[i];
      if (curve.role != role) continue;
      std::string path, dots;
      bool pen_down = false;
      for (size_t j = 0; j < curve.x.size(); ++j) {
        if (!std::isfinite(curve.y[j])) {
          pen_down = false;
          continue;
        }
        path += (pen_down ? "L" : "M") + point(curve.x[j], curve.y[j]);
        pen_down = true;
        if (role == Curve::Role::method && curve.x.size() <= 80) {
          dots += fmt::format("<circle class=\"dot\" cx=\"{}\" cy=\"{}\" r=\"2.5\"/>",
                              coordinate(at_x(curve.x[j])), coordinate(at_y(curve.y[j])));
        }
      }
      body += fmt::format(
          "<path class=\"{}\" d=\"{}\"{}/>{}\n", class_of(role), path,
          layout->dash[i].empty() ? "" : fmt::format(" stroke-dasharray=\"{}\"", layout->dash[i]), dots);
    }
  }
  if (const auto y = chosen_y(series)) {
    const double x = at_x(*series.chosen);
    body += fmt::format(
        "<path class=\"chosen-line\" d=\"M{0} {1}V{2}\"/><circle class=\"ring\" cx=\"{0}\" cy=\"{3}\" "
        "r=\"6\"/>"
        "<text class=\"chosen\" x=\"{0}\" y=\"{4}\" text-anchor=\"middle\">chosen: {5}</text>\n",
        coordinate(x), coordinate(top), coordinate(top + plot_height), coordinate(at_y(*y)),
        coordinate(top - 6), escaped(written(*series.chosen, series.x.format)));
  }
  for (const Label& label : layout->labels) {
    const Curve& curve = series.curves[label.curve];
    body +=
        fmt::format("<text class=\"label {}\" x=\"{}\" y=\"{}\">{}</text>", class_of(curve.role),
                    coordinate(left + plot_width + 11), coordinate(top + label.y + 4), escaped(curve.name));
  }
  return fmt::format(
      "<svg class=\"series\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" "
      "aria-label=\"{2}\">\n{3}\n</svg>\n",
      coordinate(width), coordinate(height), escaped(series.title), body);
}

Json series_payload(const Series& series) {
  const auto layout = lay_out(series);
  if (!layout) return nullptr;
  Json curves = Json::array();
  for (size_t i = 0; i < series.curves.size(); ++i) {
    const Curve& curve = series.curves[i];
    Json entry = {{"name", clean(curve.name)},     {"role", class_of(curve.role)},
                  {"dash", layout->dash[i]},       {"x", curve.x},
                  {"y", numbers_or_null(curve.y)}, {"texts", written(curve.y, series.y.format)}};
    if (!curve.low.empty()) {
      entry["low"] = numbers_or_null(curve.low), entry["high"] = numbers_or_null(curve.high);
    }
    curves.push_back(std::move(entry));
  }
  Json labels = Json::array();
  for (const Label& label : layout->labels)
    labels.push_back({{"curve", label.curve}, {"y", std::round(100 * label.y) / 100}});
  const auto axis_payload = [](const Axis& axis, const Range& range, const std::vector<double>& ticks,
                               const std::vector<std::string>& texts) {
    return Json{{"name", clean(axis_title(axis))},
                {"logarithmic", axis.scale == Scale::logarithmic},
                {"range", {range.low(), range.high()}},
                {"ticks", ticks},
                {"texts", texts}};
  };
  const auto y = chosen_y(series);
  Json chosen = nullptr;
  if (y)
    chosen = {
        {"x", *series.chosen}, {"y", *y}, {"text", "chosen: " + written(*series.chosen, series.x.format)}};
  return {{"x", axis_payload(series.x, layout->x, layout->x_ticks, layout->x_texts)},
          {"y", axis_payload(series.y, layout->y, layout->y_ticks, layout->y_texts)},
          {"curves", std::move(curves)},
          {"labels", std::move(labels)},
          {"chosen", std::move(chosen)}};
}

}  // namespace lamina::report::impl
