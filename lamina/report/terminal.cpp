#include "lamina/report/terminal.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "lamina/base/text.h"
#include "lamina/report/impl/character_width.h"
#include "lamina/report/impl/markup.h"

namespace lamina::report {

namespace {

constexpr int widest = 80;
constexpr std::string_view bold = "\x1b[1m", dim = "\x1b[2m", yellow = "\x1b[33m", plain = "\x1b[0m";

size_t sequence_length(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const size_t length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  return std::min(length, text.size());
}

uint32_t code_point(std::string_view sequence) {
  const auto lead = static_cast<unsigned char>(sequence[0]);
  if (sequence.size() == 1) return lead;
  uint32_t value = lead & (0x7Fu >> sequence.size());
  for (size_t i = 1; i < sequence.size(); ++i)
    value = value << 6 | (static_cast<unsigned char>(sequence[i]) & 0x3Fu);
  return value;
}

bool holds(std::span<const impl::CharacterRange> ranges, uint32_t character) {
  const auto after = std::ranges::upper_bound(ranges, character, {}, &impl::CharacterRange::first);
  return after != ranges.begin() && character <= std::prev(after)->last;
}

int character_width(uint32_t character) {
  if (character < 0x300) return 1;
  if (holds(impl::zero_width_characters, character)) return 0;
  return holds(impl::wide_characters, character) ? 2 : 1;
}

// One clean line in the characters that the style allows.
std::string line_of(std::string_view text, const Style& style) {
  std::string out;
  for (std::string_view rest = text; !rest.empty();) {
    std::string cleaned = impl::clean(rest.substr(0, sequence_length(rest)));
    rest.remove_prefix(sequence_length(rest));
    if (cleaned == "\n" || cleaned == "\t") cleaned = " ";
    if (!style.unicode && static_cast<unsigned char>(cleaned[0]) >= 0x80) {
      cleaned = cleaned == "–" || cleaned == "−" ? "-"
                : cleaned == "∞"                 ? "inf"
                : cleaned == "±"                 ? "+-"
                : cleaned == "…"                 ? "..."
                : cleaned == "·"                 ? "."
                                                 : "?";
    }
    out += cleaned;
  }
  return out;
}

// The first columns of a clean line, with an ellipsis where it was longer.
std::string shortened(const std::string& text, int width, const Style& style) {
  if (display_width(text) <= width) return text;
  const std::string_view ellipsis = style.unicode ? "…" : width >= 4 ? "..." : "";
  const int room = width - display_width(ellipsis);
  int used = 0;
  size_t end = 0;
  while (end < text.size()) {
    const std::string_view sequence =
        std::string_view(text).substr(end, sequence_length(std::string_view(text).substr(end)));
    const int columns = character_width(code_point(sequence));
    if (used + columns > room) break;
    used += columns, end += sequence.size();
  }
  return room > 0 ? text.substr(0, end) + std::string(ellipsis)
                  : std::string(static_cast<size_t>(std::max(0, width)), '.');
}

std::string padded(const std::string& text, int width, bool to_the_right) {
  const std::string air(static_cast<size_t>(std::max(0, width - display_width(text))), ' ');
  return to_the_right ? air + text : text + air;
}

std::string wrapped(std::string_view text, const Style& style) {
  std::string out, line;
  for (const std::string& word : split(line_of(text, style), ' ')) {
    if (word.empty()) continue;
    if (!line.empty() && display_width(line) + 1 + display_width(word) > style.width)
      out += line + "\n", line.clear();
    line += (line.empty() ? "" : " ") + shortened(word, style.width, style);
  }
  return out + line + (line.empty() ? "" : "\n");
}

std::string coloured(std::string_view colour, const std::string& text, const Style& style) {
  return style.colour && !text.empty() ? std::string(colour) + text + std::string(plain) : text;
}

void trim_end(std::string& line) {
  line.erase(line.find_last_not_of(' ') + 1);
}

}  // namespace

Style style_for(const Surroundings& surroundings) {
  std::string locale = surroundings.locale;
  std::ranges::transform(locale, locale.begin(), [](char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter + 32) : letter;
  });
  const bool utf8 = locale.find("utf-8") != std::string::npos || locale.find("utf8") != std::string::npos;
  const bool dumb = surroundings.term == "dumb";
  return {
      .colour = surroundings.terminal && !dumb && !surroundings.term.empty() && surroundings.no_color.empty(),
      .unicode = utf8 && !dumb,
      .width = std::clamp(surroundings.columns > 0 ? surroundings.columns : widest, 20, widest)};
}

int display_width(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    const std::string_view sequence = text.substr(0, sequence_length(text));
    width += character_width(code_point(sequence));
    text.remove_prefix(sequence.size());
  }
  return width;
}

std::string terminal_table(const Table& table, const Style& style) {
  const bool marked = std::ranges::any_of(table.rows, [](const TableRow& row) { return !row.mark.empty(); });
  const size_t columns = table.columns.size() + (marked ? 1 : 0);
  if (columns == 0) return {};
  std::vector<std::vector<std::string>> texts(columns);  // column after column, the head first
  std::vector<bool> numeric(columns, false);
  for (size_t j = 0; j < table.columns.size(); ++j) {
    const Column& column = table.columns[j];
    numeric[j] = column.kind == Column::Kind::number;
    const std::string unit = numeric[j] ? unit_behind(column.format) : "";
    texts[j].push_back(line_of(unit.empty() ? column.name : column.name + " " + unit, style));
    std::vector<double> values;
    for (const TableRow& row : table.rows)
      values.push_back(row.cells[j].number() ? *row.cells[j].number() : not_measured);
    const std::vector<std::string> numbers = written(values, column.format);
    for (size_t i = 0; i < table.rows.size(); ++i) {
      const std::string* text = table.rows[i].cells[j].text();
      texts[j].push_back(line_of(numeric[j] ? numbers[i] : text ? *text : "", style));
    }
  }
  if (marked) {
    texts.back().emplace_back();
    for (const TableRow& row : table.rows) texts.back().push_back(line_of(row.mark, style));
  }

  std::vector<int> widths(columns, 0);
  for (size_t j = 0; j < columns; ++j) {
    for (const std::string& text : texts[j]) widths[j] = std::max(widths[j], display_width(text));
  }
  // Two columns of air, one where the window is narrow; text gives way before numbers do.
  int air = 2;
  const auto needed = [&] {
    return std::accumulate(widths.begin(), widths.end(), 0) + air * (static_cast<int>(columns) - 1);
  };
  if (needed() > style.width) air = 1;
  for (const bool numbers_too : {false, true}) {
    while (needed() > style.width) {
      size_t chosen = columns;
      for (size_t j = 0; j < columns; ++j) {
        const int least = numbers_too ? 1 : 6;
        if ((numbers_too || !numeric[j]) && widths[j] > least &&
            (chosen == columns || widths[j] > widths[chosen]))
          chosen = j;
      }
      if (chosen == columns) break;
      --widths[chosen];
    }
  }

  std::string out;
  if (!table.title.empty())
    out += coloured(bold, shortened(line_of(table.title, style), style.width, style), style) + "\n";
  for (size_t i = 0; i <= table.rows.size(); ++i) {
    std::string line;
    for (size_t j = 0; j < columns; ++j) {
      if (j > 0) line += std::string(static_cast<size_t>(air), ' ');
      line += padded(shortened(texts[j][i], widths[j], style), widths[j], numeric[j]);
    }
    // More columns than characters: what does not fit is left out.
    if (display_width(line) > style.width) line = shortened(line, style.width, style);
    trim_end(line);
    out += (i == 0                            ? coloured(dim, line, style)
            : !table.rows[i - 1].mark.empty() ? coloured(bold, line, style)
                                              : line) +
           "\n";
  }
  return out;
}

std::string terminal_verdict(const Verdict& verdict, const Style& style) {
  Table table{.columns = {{"", Column::Kind::label},
                          {"before", Column::Kind::label},
                          {"after", Column::Kind::label},
                          {"change", Column::Kind::label},
                          {"", Column::Kind::label}}};
  // Rows have units of their own: the numbers are written one row at a time and set to the right by hand.
  std::vector<std::array<std::string, 5>> rows;
  for (const Figure& figure : verdict.figures) {
    const double values[] = {figure.before, figure.after};
    const std::vector<std::string> texts = written(values, figure.format);
    const std::string unit = unit_behind(figure.format);
    rows.push_back({unit.empty() ? figure.name : figure.name + " (" + unit + ")", texts[0], texts[1],
                    change(figure.before, figure.after, figure.format), std::string(judgement(figure))});
  }
  for (size_t j = 1; j <= 3; ++j) {
    int width = display_width(table.columns[j].name);
    for (auto& row : rows) width = std::max(width, display_width(row[j] = line_of(row[j], style)));
    for (auto& row : rows) row[j] = padded(row[j], width, true);
    table.columns[j].name = padded(table.columns[j].name, width, true);
  }
  for (const auto& row : rows) table.rows.push_back({.cells = {row[0], row[1], row[2], row[3], row[4]}});
  const std::string sentence = wrapped(verdict.sentence, style);
  return rows.empty() ? sentence : sentence + (sentence.empty() ? "" : "\n") + terminal_table(table, style);
}

std::string progress_line(const Tick& tick, double seconds, const Style& style) {
  const auto count = [](double value) {
    return value < 10 && value != std::floor(value) ? fmt::format("{:.1f}", value)
                                                    : thousands(std::llround(value));
  };
  const bool known = tick.total > 0 && std::isfinite(tick.total);
  const double done = known ? std::clamp(tick.done, 0.0, tick.total) : std::max(0.0, tick.done);
  std::vector<std::string> pieces = {line_of(tick.phase, style)};
  pieces.push_back(known ? count(done) + "/" + count(tick.total) : count(done));
  if (known) pieces.push_back(fmt::format("{:.0f} %", std::floor(100 * done / tick.total)));
  // A rate from less than a second, or from nothing done, would only mislead.
  if (seconds >= 1 && done > 0) {
    const double rate = done / seconds;
    pieces.push_back(rate >= 0.95 ? fmt::format("{}/s", written(rate, {Notation::significant, 2, ""}))
                                  : fmt::format("{} each", human_seconds(1 / rate)));
    if (known && done < tick.total) pieces.push_back(human_seconds((tick.total - done) / rate) + " left");
  }
  if (!tick.detail.empty()) pieces.push_back(line_of(tick.detail, style));
  std::string line;
  for (const std::string& piece : pieces) {
    const std::string longer = line.empty() ? piece : line + "  " + piece;
    if (display_width(longer) > style.width) {
      // The last piece is worth showing in part; a number cut in two is not.
      if (line.empty() ||
          (&piece == &pieces.back() && !tick.detail.empty() && style.width - display_width(line) > 8))
        line = shortened(longer, style.width, style);
      break;
    }
    line = longer;
  }
  return line;
}

std::string stack_line(std::span<const StackCell> cells, const Style& style) {
  const auto size = static_cast<int>(cells.size());
  int first = 0, last = size;
  if (size > style.width) {
    // A window of the line's width less its two ellipses, around what is being tried.
    const auto tried = std::ranges::find(cells, StackCell::tried);
    const int centre = tried == cells.end() ? size : static_cast<int>(tried - cells.begin());
    const int room = std::max(1, style.width - 2);
    first = std::clamp(centre - room / 2, 0, size - room);
    last = first + room;
  }
  std::string line;
  const std::string_view more = style.unicode ? "…" : "~";
  if (first > 0) line += more;
  for (int i = first; i < last; ++i) {
    switch (cells[static_cast<size_t>(i)]) {
      case StackCell::kept:
        line += style.unicode ? "·" : ".";
        break;
      case StackCell::cut:
        line += coloured(dim, style.unicode ? "○" : "o", style);
        break;
      case StackCell::tried:
        line += coloured(yellow, style.unicode ? "▸" : ">", style);
        break;
    }
  }
  if (last < size) line += more;
  return line;
}

}  // namespace lamina::report
