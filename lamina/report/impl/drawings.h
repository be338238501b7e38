// The drawings of a page, each as SVG that needs no script. Colours are classes of page.css, so that light,
// dark and print are one drawing: r0 to r8 the ramp, `cut` hatched, `chosen` the accent, `baseline` grey.
#pragma once

#include <string>

#include "lamina/report/impl/scale.h"
#include "lamina/report/report.h"

namespace lamina::report::impl {

// Blocks as rows, parts as cells, beside each other in columns where there are many; a U where the network is
// one.
std::string draw_network(const Network& network);
std::string draw_heat_map(const HeatMap& map);
std::string draw_series(const Series& series);
// What the script needs to lay the same curves out at any width: ranges, ticks and labels are decided here,
// once.
Json series_payload(const Series& series);
std::string draw_dot_plot(const DotPlot& plot);
struct DotAxis {
  double low = 0;
  bool cut = false;  // an interval goes on beyond it
};
DotAxis axis_of(const DotPlot& plot);
// Two bars, before and after, from 0.
std::string draw_change(const Figure& figure);

std::optional<Range> score_range(const Network& network);
std::optional<Range> value_range(const HeatMap& map);

}  // namespace lamina::report::impl
