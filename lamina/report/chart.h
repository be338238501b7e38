// Curves as text: a sparkline for the line that shows progress, a small chart for the end of a run. Pure
// functions; no line is wider than the style says.
#pragma once

#include <span>
#include <string>

#include "lamina/report/report.h"
#include "lamina/report/terminal.h"

namespace lamina::report {

// "▇▅▃▂▁", the newest value last: as many characters as `width`, each the mean of its stretch, from the
// smallest value to the largest; with few values one character each. What is not finite is a "?".
std::string sparkline(std::span<const double> values, int width, const Style& style);

// The curves of a series in `rows` lines with the axes' ends beside and below, each curve with a mark of its
// own and its name in the last line. A curve of role reference is a level line. Empty when no point is
// finite.
std::string terminal_chart(const Series& series, const Style& style, int rows = 8);

}  // namespace lamina::report
