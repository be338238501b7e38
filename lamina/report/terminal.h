// What a terminal shows: pure functions from values to text of a given width. The caller knows its terminal
// and says so in `Style`; strings from files lose their control characters here, so that no model's text can
// move the cursor.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lamina/base/progress.h"
#include "lamina/report/report.h"

namespace lamina::report {

struct Style {
  bool colour = false;
  bool unicode = true;  // false: ASCII alone
  int width = 80;       // columns; no line is longer
};

// What a program finds around it, as values. Empty strings stand for variables that are not set.
struct Surroundings {
  bool terminal = false;  // the stream is one
  int columns = 80;
  std::string term;      // TERM
  std::string no_color;  // NO_COLOR
  std::string locale;    // the first set of LC_ALL, LC_CTYPE and LANG
};
// At most 80 columns; colour only on a terminal that is not dumb and without NO_COLOR; ASCII unless the
// locale is UTF-8.
Style style_for(const Surroundings& surroundings);

// Columns that a string takes: 2 for wide characters, 0 for combining ones.
int display_width(std::string_view text);

// Numbers to the right, text to the left; the widest columns of text are shortened until the table fits.
std::string terminal_table(const Table& table, const Style& style);
// The sentence, and the figures as a table: before, after, change.
std::string terminal_verdict(const Verdict& verdict, const Style& style);

// "search  217/480  45 %  3.2/s  1 min 22 s left  best F27 0.0213", what is last dropped first where it does
// not fit. `seconds`: since the phase began. One line, no line end.
std::string progress_line(const Tick& tick, double seconds, const Style& style);

// One character a part; a stack longer than the line shows the surroundings of what is being tried.
std::string stack_line(std::span<const StackCell> cells, const Style& style);

}  // namespace lamina::report
