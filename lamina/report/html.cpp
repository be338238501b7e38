#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/embedded.h"
#include "lamina/base/hash.h"
#include "lamina/report/impl/drawings.h"
#include "lamina/report/impl/markup.h"
#include "lamina/report/impl/picture.h"
#include "lamina/report/report.h"
#include "lamina/report/report_assets.h"

namespace lamina::report {

namespace {

using impl::escaped;
using impl::with_code;

// A number that a program finds again: the value itself beside what is shown.
std::string data(double value, std::string_view shown) {
  return std::isfinite(value) ? fmt::format("<data value=\"{}\">{}</data>", value, escaped(shown))
                              : escaped(shown);
}

// Lines break between words only: a browser would part "--" from the option behind it.
std::string unbroken_words(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t start = std::min(text.find_first_not_of(" \n"), text.size());
    out += text.substr(0, start);
    text.remove_prefix(start);
    const size_t end = std::min(text.find_first_of(" \n"), text.size());
    const std::string word = escaped(text.substr(0, end));
    out += word.find('-') == std::string::npos ? word : "<span class=\"word\">" + word + "</span>";
    text.remove_prefix(end);
  }
  return out;
}

std::string code_block(std::string_view text, std::string_view what) {
  return fmt::format(
      "<div class=\"code\"><pre tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><code>{1}</code></pre>"
      "<button type=\"button\" class=\"copy\" hidden aria-label=\"Copy: {0}\">Copy</button></div>\n",
      escaped(what), unbroken_words(text));
}

std::string note(std::string_view text) {
  return text.empty() ? "" : fmt::format("<p class=\"note\">{}</p>\n", with_code(text));
}

std::string caption(std::string_view text) {
  return text.empty() ? "" : fmt::format("<figcaption>{}</figcaption>\n", escaped(text));
}

std::string folded_numbers(const std::string& body) {
  return body.empty() ? ""
                      : "<details class=\"numbers\"><summary>The numbers</summary>\n" + body + "</details>\n";
}

std::string scroller(const std::string& body, std::string_view label) {
  return fmt::format("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">\n{}</div>\n",
                     escaped(label), body);
}

std::vector<std::string> pieces(std::string_view text) {
  std::vector<std::string> found;
  while (!text.empty()) {
    const size_t end = text.find("\n\n");
    const std::string_view piece = text.substr(0, end);
    if (piece.find_first_not_of(" \n") != std::string_view::npos) found.emplace_back(piece);
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 2);
  }
  return found;
}

std::string element_html(const Text& text) {
  if (text.form == Text::Form::code) return code_block(text.text, "commands");
  const bool list = text.form == Text::Form::list;
  std::string out = list ? "<ul>\n" : "";
  for (const std::string& piece : pieces(text.text)) {
    out += fmt::format("<{0}>{1}</{0}>\n", list ? "li" : "p", with_code(piece));
  }
  return out + (list ? "</ul>\n" : "");
}

// Prose with its stretches set apart, each with its name behind it.
std::string with_stretches(const Cell& cell) {
  const std::string_view text = *cell.text();
  std::string out;
  size_t at = 0;
  for (const Stretch& stretch : cell.stretches()) {
    out += escaped(text.substr(at, stretch.begin - at));
    out += fmt::format("<span class=\"stretch{}\">{}{}</span>", stretch.wrong ? " wrong" : "",
                       escaped(text.substr(stretch.begin, stretch.end - stretch.begin)),
                       stretch.name.empty() ? "" : fmt::format(" <b>{}</b>", escaped(stretch.name)));
    at = stretch.end;
  }
  return out + escaped(text.substr(at));
}

const char* class_of(Column::Kind kind) {
  switch (kind) {
    case Column::Kind::number:
      return "n";
    case Column::Kind::label:
      return "label";
    case Column::Kind::prose:
      return "prose";
    case Column::Kind::code:
      return "codes";
  }
  return "";
}

// The table element itself. Its heads repeat in `data-head`, for narrow screens where a row of prose becomes
// a stack.
std::string table_html(const Table& table) {
  const bool prose = std::ranges::any_of(
      table.columns, [](const Column& column) { return column.kind == Column::Kind::prose; });
  // A mark has a column of its own, except beside prose, which needs the width: there it stands in the first
  // cell.
  const bool marked =
      !prose && std::ranges::any_of(table.rows, [](const TableRow& row) { return !row.mark.empty(); });
  std::vector<std::vector<std::string>> numbers;  // column after column
  std::string out = fmt::format("<table{}>\n", prose ? " class=\"prose\"" : "");
  if (!table.title.empty()) out += fmt::format("<caption>{}</caption>\n", escaped(table.title));
  out += "<thead><tr>";
  for (size_t j = 0; j < table.columns.size(); ++j) {
    const Column& column = table.columns[j];
    std::vector<double> values;
    for (const TableRow& row : table.rows)
      values.push_back(row.cells[j].number() ? *row.cells[j].number() : not_measured);
    numbers.push_back(written(values, column.format));
    const std::string unit = column.kind == Column::Kind::number ? unit_behind(column.format) : "";
    out +=
        fmt::format("<th scope=\"col\" class=\"{}\">{}{}</th>", class_of(column.kind), escaped(column.name),
                    unit.empty() ? "" : fmt::format(" <span class=\"unit\">{}</span>", escaped(unit)));
  }
  if (marked) out += "<th scope=\"col\" class=\"label\"><span class=\"hidden\">Mark</span></th>";
  out += "</tr></thead>\n<tbody>\n";
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const TableRow& row = table.rows[i];
    out += row.mark.empty() ? "<tr>" : "<tr class=\"marked\">";
    for (size_t j = 0; j < table.columns.size(); ++j) {
      const Column& column = table.columns[j];
      const Cell& cell = row.cells[j];
      std::string inner = cell.text() ? with_stretches(cell) : "";
      if (column.kind == Column::Kind::number)
        inner = data(cell.number() ? *cell.number() : not_measured, numbers[j][i]);
      if (column.kind == Column::Kind::code && !inner.empty()) inner = "<code>" + inner + "</code>";
      if (column.kind == Column::Kind::label && cell.text()) inner = with_code(*cell.text());
      if (prose && j == 0 && !row.mark.empty())
        inner += fmt::format("<span class=\"mark\">{}</span>", escaped(row.mark));
      const std::string head = prose ? fmt::format(" data-head=\"{}\"", escaped(column.name)) : "";
      out += fmt::format("<td class=\"{}\"{}>{}</td>", class_of(column.kind), head, inner);
    }
    if (marked)
      out += row.mark.empty()
                 ? "<td class=\"label\"></td>"
                 : fmt::format("<td class=\"label\"><span class=\"mark\">{}</span></td>", escaped(row.mark));
    out += "</tr>\n";
  }
  return out + "</tbody>\n</table>\n";
}

std::string element_html(const Table& table) {
  return "<figure>\n" + scroller(table_html(table), table.title.empty() ? "table" : table.title) +
         note(table.note) + "</figure>\n";
}

// The curves as a table over every x that one of them has.
Table numbers_of(const Series& series) {
  std::vector<double> x;
  for (const Curve& curve : series.curves) x.insert(x.end(), curve.x.begin(), curve.x.end());
  std::ranges::sort(x);
  x.erase(std::ranges::unique(x).begin(), x.end());
  Table table{.title = {},
              .columns = {{series.x.name, Column::Kind::number, series.x.format}},
              .rows = {},
              .note = {}};
  for (const double value : x) {
    table.rows.push_back({.cells = {value}, .mark = series.chosen == value ? "chosen" : ""});
  }
  const auto add = [&](const Curve& curve, const std::string& name, const std::vector<double>& values) {
    table.columns.push_back({name, Column::Kind::number, series.y.format});
    for (size_t i = 0; i < x.size(); ++i) {
      const auto at = std::ranges::find(curve.x, x[i]);
      table.rows[i].cells.push_back(
          at == curve.x.end() ? Cell() : Cell(values[static_cast<size_t>(at - curve.x.begin())]));
    }
  };
  for (const Curve& curve : series.curves) {
    add(curve, curve.name, curve.y);
    if (!curve.low.empty())
      add(curve, curve.name + ", low", curve.low), add(curve, curve.name + ", high", curve.high);
  }
  return table;
}

std::string script_json(const Json& value) {
  std::string text = value.dump();
  for (size_t at = 0; (at = text.find('<', at)) != std::string::npos;) text.replace(at, 1, "\\u003c");
  return text;
}

std::string element_html(const Series& series) {
  std::string out = "<figure class=\"chart\">\n" + caption(series.title);
  const Json payload = impl::series_payload(series);
  if (payload.is_null()) return out + "<p class=\"note\">Nothing was measured here.</p>\n</figure>\n";
  out += scroller(impl::draw_series(series), series.title);
  out += "<ul class=\"legend curves\">";
  for (size_t i = 0; i < series.curves.size(); ++i) {
    const Json& curve = payload["curves"][i];
    out += fmt::format(
        "<li><svg viewBox=\"0 0 28 8\" width=\"28\" height=\"8\" aria-hidden=\"true\"><path class=\"{}\" "
        "d=\"M1 4H27\" stroke-dasharray=\"{}\"/></svg>{}</li>",
        curve["role"].get<std::string>(), curve["dash"].get<std::string>(), escaped(series.curves[i].name));
  }
  out += "</ul>\n<p class=\"readout\" aria-live=\"polite\" hidden></p>\n";
  std::string said = series.note;
  if (const double low = payload["y"]["range"][0].get<double>(); low > 0) {
    const std::string starts = fmt::format("The vertical axis starts at {}, not at 0.",
                                           written(low, {Notation::significant, 3, ""}));
    said += (said.empty() ? "" : " ") + starts;
  }
  out += note(said);
  const Table numbers = numbers_of(series);
  out += folded_numbers(scroller(table_html(numbers), "the numbers of the chart"));
  out += fmt::format("<script type=\"application/json\">{}</script>\n", script_json(payload));
  return out + "</figure>\n";
}

// The ramp with the values at its ends and in its middle, for a drawing shaded by it.
std::string ramp_legend(const std::optional<impl::Range>& range, const std::string& name,
                        const Format& format) {
  if (!range) return {};
  std::string steps;
  for (int step = 0; step < impl::ramp_steps; ++step)
    steps += fmt::format("<rect class=\"r{}\" x=\"{}\" width=\"14\" height=\"12\"/>", step, 14 * step);
  const double ends[] = {range->low(), range->high()};
  const std::vector<std::string> texts = impl::shown(ends, format, range->scale());
  const std::string unit = unit_behind(format);
  return fmt::format(
      "<li>{}{}: <span class=\"ramp\">{} <svg viewBox=\"0 0 126 12\" width=\"126\" height=\"12\" "
      "aria-label=\"from light to strong\">{}</svg> {}{}</span></li>",
      escaped(name), range->scale() == Scale::logarithmic ? ", logarithmic" : "", data(ends[0], texts[0]),
      steps, data(ends[1], texts[1]), unit.empty() ? "" : " " + escaped(unit));
}

std::string swatch(std::string_view inside, std::string_view text) {
  return fmt::format(
      "<li><svg viewBox=\"0 0 18 14\" width=\"18\" height=\"14\" aria-hidden=\"true\">{}</svg>{}</li>",
      inside, text);
}

std::string element_html(const DotPlot& plot) {
  std::string out = "<figure class=\"dots\">\n" + caption(plot.title);
  if (plot.rows.empty() || plot.groups.empty())
    return out + "<p class=\"note\">Nothing was measured here.</p>\n</figure>\n";
  out += scroller(impl::draw_dot_plot(plot), plot.title.empty() ? "the dot plot" : plot.title);
  const bool patterns =
      std::ranges::any_of(plot.rows, [](const DotRow& row) { return !row.pattern.empty(); });
  if (plot.groups.size() > 1) {
    out += "<ul class=\"legend dot-plot\">";
    for (size_t group = 0; group < plot.groups.size(); ++group)
      out += swatch(fmt::format("<path class=\"interval {0}\" d=\"M0 7H18\"/><circle class=\"{0}\" cx=\"9\" "
                                "cy=\"7\" r=\"{1}\"/>",
                                group == 0 ? "first" : "second", group == 0 ? "4" : "2.75"),
                    escaped(plot.groups[group]));
    out += "</ul>\n";
  }
  std::string said = plot.note;
  const impl::DotAxis axis = impl::axis_of(plot);
  if (axis.low > 0)
    said += (said.empty() ? "" : " ") + fmt::format("The axis starts at {}, not at 0.",
                                                    written(axis.low, {Notation::significant, 3, ""}));
  if (axis.cut)
    said += (said.empty() ? "" : " ") + std::string("An interval with an arrow goes on beyond the axis.");
  out += note(said);
  Table numbers{.columns = {{"", Column::Kind::label}}};
  for (const std::string& group : plot.groups) {
    numbers.columns.push_back({group, Column::Kind::number, plot.axis.format});
    numbers.columns.push_back({group + ", low", Column::Kind::number, plot.axis.format});
    numbers.columns.push_back({group + ", high", Column::Kind::number, plot.axis.format});
  }
  if (patterns) numbers.columns.push_back({"pattern", Column::Kind::label});
  for (const DotRow& row : plot.rows) {
    TableRow line{.cells = {row.name}, .mark = row.mark};
    for (const DotRow::Value& value : row.values)
      line.cells.insert(line.cells.end(), {Cell(value.value), Cell(value.low), Cell(value.high)});
    if (patterns) {
      std::string bits;
      for (const bool on : row.pattern) bits += on ? '1' : '0';
      line.cells.emplace_back(bits);
    }
    numbers.rows.push_back(std::move(line));
  }
  if (std::isfinite(plot.reference)) {
    TableRow line{.cells = {plot.reference_name}};
    line.cells.resize(numbers.columns.size());
    line.cells[1] = Cell(plot.reference);
    numbers.rows.push_back(std::move(line));
  }
  return out + folded_numbers(scroller(table_html(numbers), "the numbers of the dot plot")) + "</figure>\n";
}

// Row after row as in the map, or column after column where that is narrower.
std::string heat_numbers(const HeatMap& map) {
  std::vector<double> values;
  for (const HeatCell& cell : map.cells) values.push_back(cell.value);
  const std::vector<std::string> texts = impl::shown(values, map.format, map.scale);
  const bool turned = map.columns.size() > map.rows.size();
  const auto& heads = turned ? map.rows : map.columns;
  const auto& lines = turned ? map.columns : map.rows;
  std::string out = fmt::format(
      "<table data-turned=\"{}\" data-rows=\"{}\" data-columns=\"{}\" data-value=\"{}\"><thead><tr><th "
      "scope=\"col\" class=\"label\">{}</th>",
      turned, escaped(map.row_axis), escaped(map.column_axis), escaped(map.value_name),
      escaped(turned ? map.column_axis + " \\ " + map.row_axis : map.row_axis + " \\ " + map.column_axis));
  for (const std::string& head : heads)
    out += fmt::format("<th scope=\"col\" class=\"n\">{}</th>", escaped(head));
  out += "</tr></thead>\n<tbody>\n";
  for (size_t i = 0; i < lines.size(); ++i) {
    out += fmt::format("<tr><th scope=\"row\" class=\"label\">{}</th>", escaped(lines[i]));
    for (size_t j = 0; j < heads.size(); ++j) {
      const size_t index = turned ? j * map.columns.size() + i : i * map.columns.size() + j;
      const HeatCell& cell = map.cells[index];
      const std::string shown =
          cell.sort == HeatCell::Sort::absent
              ? ""
              : (cell.sort == HeatCell::Sort::bound ? "≥ " : "") + data(cell.value, texts[index]);
      out += fmt::format("<td class=\"n{}\">{}</td>", cell.chosen ? " chosen" : "", shown);
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table>\n";
}

std::string element_html(const HeatMap& map) {
  const auto holds = [&](HeatCell::Sort sort) {
    return std::ranges::any_of(map.cells, [&](const HeatCell& cell) { return cell.sort == sort; });
  };
  std::string out =
      "<figure class=\"map\">\n" + caption(map.title) + scroller(impl::draw_heat_map(map), map.title);
  out += "<ul class=\"legend\">" + ramp_legend(impl::value_range(map), map.value_name, map.format);
  if (std::ranges::any_of(map.cells, &HeatCell::chosen)) {
    out += swatch("<rect class=\"ring\" x=\"2\" y=\"2\" width=\"14\" height=\"10\"/>", "chosen");
  }
  if (holds(HeatCell::Sort::bound)) {
    out += swatch(
        "<g class=\"cell r4\"><rect x=\"2\" y=\"1\" width=\"14\" height=\"12\"/><path class=\"bound\" "
        "d=\"M10 1h6v6z\"/></g>",
        "given up early: at least this much");
  }
  if (holds(HeatCell::Sort::absent))
    out += swatch("<g class=\"cell cut\"><rect x=\"2\" y=\"1\" width=\"14\" height=\"12\"/></g>",
                  "already gone");
  out += "</ul>\n" + note(map.note);
  if (!map.cells.empty()) out += folded_numbers(scroller(heat_numbers(map), "the numbers of the map"));
  return out + "</figure>\n";
}

std::string element_html(const Pictures& grid) {
  std::string out = "<figure>\n<div class=\"scroll\"><table class=\"pictures\">\n";
  if (!grid.title.empty()) out += fmt::format("<caption>{}</caption>\n", escaped(grid.title));
  out += "<thead><tr>";
  for (const std::string& column : grid.columns)
    out += fmt::format("<th scope=\"col\">{}</th>", escaped(column));
  out += "</tr></thead>\n";
  for (size_t row = 0; row < grid.rows.size(); ++row) {
    out += fmt::format("<tbody><tr><th scope=\"rowgroup\" colspan=\"{}\">{}</th></tr>\n<tr>",
                       grid.columns.size(), escaped(grid.rows[row]));
    for (size_t column = 0; column < grid.columns.size(); ++column) {
      const Picture& picture = grid.pictures[row * grid.columns.size() + column];
      out += picture.bytes.empty()
                 ? "<td>–</td>"
                 : fmt::format("<td><img alt=\"{}\" src=\"data:{};base64,{}\"></td>", escaped(picture.text),
                               impl::media_type(picture.bytes), impl::base64(picture.bytes));
    }
    out += "</tr></tbody>\n";
  }
  return out + "</table></div>\n" + note(grid.note) + "</figure>\n";
}

// The drawing again as lines of text, one a block, every number in it.
std::string network_text(const Network& network) {
  std::vector<double> scores;
  size_t name_width = 0, label_width = 0;
  for (const Block& block : network.blocks) {
    name_width = std::max(name_width, block.name.size());
    for (const Part& part : block.parts)
      scores.push_back(part.score), label_width = std::max(label_width, part.label.size());
  }
  const std::vector<std::string> texts = impl::shown(scores, network.format, network.scale);
  std::string out = "<pre tabindex=\"0\">";
  size_t number = 0;
  for (const Block& block : network.blocks) {
    out += escaped(fmt::format("{:>{}}", block.name, name_width));
    for (const Part& part : block.parts) {
      out += "   " + escaped(fmt::format("{:<{}} ", part.label, label_width));
      out += std::isnan(part.score)
                 ? std::string(8, ' ')
                 : std::string(texts[number].size() < 8 ? 8 - texts[number].size() : 0, ' ') +
                       data(part.score, texts[number]);
      const std::string verb = part.state == Part::State::kept  ? ""
                               : part.state == Part::State::cut ? "cut"
                                                                : "silenced";
      out += fmt::format(" {:<11}", part.step > 0 ? fmt::format("{} at {}", verb, part.step) : verb);
      ++number;
    }
    while (out.ends_with(' ')) out.pop_back();
    out += "\n";
  }
  return out + "</pre>\n";
}

std::string element_html(const Network& network) {
  const auto holds = [&](Part::State state) {
    return std::ranges::any_of(network.blocks, [&](const Block& block) {
      return std::ranges::any_of(block.parts, [&](const Part& part) { return part.state == state; });
    });
  };
  std::string out = "<figure class=\"cells\">\n" + caption(network.title);
  out += "<div class=\"scroll columns\" tabindex=\"0\" role=\"region\" aria-label=\"the network, drawn\">\n" +
         impl::draw_network(network) + "</div>\n";
  out += "<ul class=\"legend\">" + ramp_legend(impl::score_range(network),
                                               network.score_name.empty() ? "score" : network.score_name,
                                               network.format);
  if (holds(Part::State::cut))
    out += swatch("<g class=\"cell cut\"><rect x=\"1\" y=\"1\" width=\"16\" height=\"12\" rx=\"2\"/></g>",
                  "cut, with the step at which it went");
  if (holds(Part::State::silenced))
    out +=
        swatch("<g class=\"cell silenced\"><rect x=\"1\" y=\"1\" width=\"16\" height=\"12\" rx=\"2\"/></g>",
               "silenced: kept in shape, writes zeros");
  out += "</ul>\n" + note(network.note);
  const std::string list = cut_list(network);
  if (!list.empty())
    out += "<p class=\"lead\">What went, in order:</p>\n" + code_block(list, "what went, in order");
  out += "<details class=\"numbers\"><summary>The network as text</summary>\n" + network_text(network) +
         "</details>\n";
  return out + "</figure>\n";
}

// "233.7 MB" with the number large and what follows it small.
std::string large(double value, const std::string& shown, const std::string& unit) {
  const size_t end = std::min(shown.find(' '), shown.size());
  std::string behind = shown.substr(end);
  if (!unit.empty()) behind += " " + unit;
  return data(value, shown.substr(0, end)) +
         (behind.empty() ? "" : fmt::format("<span class=\"unit\">{}</span>", escaped(behind)));
}

std::string figure_html(const Figure& figure) {
  const double values[] = {figure.before, figure.after, figure.uncertainty};
  const std::vector<std::string> texts = written(values, figure.format);
  const std::string unit = unit_behind(figure.format);
  std::string changed = change(figure.before, figure.after, figure.format);
  if (changed.starts_with('-')) changed.replace(0, 1, "−");
  const std::string_view word = judgement(figure);
  std::string out = fmt::format("<div class=\"figure\"><dt>{}</dt>\n<dd class=\"after\">{}</dd>\n",
                                escaped(figure.name), large(figure.after, texts[1], unit));
  if (!std::isnan(figure.before)) {
    out += fmt::format(
        "<dd class=\"bars\">{}</dd>\n<dd class=\"changed\">{}{}</dd>\n<dd class=\"how\">before: {}</dd>\n",
        impl::draw_change(figure), escaped(changed),
        word.empty() || word == "same" ? "" : fmt::format(", {}", word), data(figure.before, texts[0]));
  }
  if (!std::isnan(figure.uncertainty))
    out += fmt::format("<dd class=\"how\">uncertainty: ± {}</dd>\n", data(figure.uncertainty, texts[2]));
  if (!figure.measured.empty()) out += fmt::format("<dd class=\"how\">{}</dd>\n", with_code(figure.measured));
  return out + "</div>\n";
}

std::string section_html(const Section& section) {
  std::string body;
  for (const Element& element : section.elements)
    body += std::visit([](const auto& value) { return element_html(value); }, element);
  const std::string title = escaped(section.title);
  return section.folded
             ? fmt::format("<details class=\"section\"><summary><h2>{}</h2></summary>\n{}</details>\n", title,
                           body)
             : fmt::format("<section>\n<h2>{}</h2>\n{}</section>\n", title, body);
}

// 'sha256-...' of what stands between the tags: the page runs this script and carries this style, and no
// other.
std::string content_hash(std::string_view text) {
  const std::string hex = sha256_hex(text);
  std::string digest;
  for (size_t i = 0; i < hex.size(); i += 2)
    digest += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return "'sha256-" + impl::base64(digest) + "'";
}

}  // namespace

std::string to_html(const Report& report) {
  check(report);
  const bool curves = std::ranges::any_of(report.sections, [](const Section& section) {
    return std::ranges::any_of(
        section.elements, [](const Element& element) { return std::holds_alternative<Series>(element); });
  });
  const auto assets = report_assets();
  std::string style, script;
  if (curves) {
    style += embedded(assets, "assets/uplot/uPlot.min.css");
    style += "\n";
    script += embedded(assets, "assets/uplot/uPlot.iife.min.js");
  }
  style += embedded(assets, "assets/page.css");
  script += embedded(assets, "assets/page.js");

  const std::string title = escaped(report.title);
  std::string out = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
  out += fmt::format(
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src "
      "{}; script-src {}; base-uri 'none'; form-action 'none'\">\n",
      content_hash(style), content_hash(script));
  out += fmt::format(
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" "
      "content=\"light dark\">\n"
      "<meta name=\"generator\" content=\"lamina {}\">\n<link rel=\"icon\" "
      "href=\"data:,\">\n<title>{}</title>\n",
      escaped(report.version), title);
  out += "<style>" + style + "</style>\n</head>\n<body>\n";
  // Hatching for every drawing; it has no size of its own, and is not `display: none`, which would take its
  // patterns away.
  out +=
      "<svg class=\"patterns\" width=\"0\" height=\"0\" aria-hidden=\"true\"><defs><pattern id=\"hatch\" "
      "width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" "
      "patternTransform=\"rotate(45)\"><path class=\"hatch\" d=\"M0 0V6\"/></pattern></defs></svg>\n<main>\n";
  out += fmt::format("<header>\n<h1>{}</h1>\n<p class=\"meta\">{} · lamina {}</p>\n", title,
                     escaped(report.date), escaped(report.version));
  if (!report.command.empty()) out += code_block(report.command, "the command that makes this report again");
  out += "</header>\n";
  out += fmt::format("<section class=\"verdict\" aria-label=\"The verdict\">\n<p class=\"sentence\">{}</p>\n",
                     with_code(report.verdict.sentence));
  if (!report.verdict.figures.empty()) {
    out += "<dl class=\"figures\">\n";
    for (const Figure& figure : report.verdict.figures) out += figure_html(figure);
    out += "</dl>\n";
  }
  out += "</section>\n";
  for (const Section& section : report.sections) out += section_html(section);
  out +=
      "<footer><p>This page asks nothing of the network. <code>report.json</code> beside it holds every "
      "number shown here.</p></footer>\n";
  out += "</main>\n<script>" + script + "</script>\n</body>\n</html>\n";
  return out;
}

}  // namespace lamina::report
