#include "lamina/report/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/report/impl/picture.h"

namespace lamina::report {

namespace {

void check_element(const Text&, const std::string&) {}

void check_stretches(const Cell& cell, const Column& column, const std::string& where) {
  size_t end = 0;
  for (const Stretch& stretch : cell.stretches()) {
    if (column.kind != Column::Kind::prose)
      fail("{} has stretches in the column {}, which is not of prose: change its kind", where,
           in_quotes(column.name));
    if (stretch.begin < end || stretch.end < stretch.begin || stretch.end > cell.text()->size())
      fail(
          "{} has the stretch {} to {} behind one that ends at {}, in a text of {} bytes: sort them, none "
          "over another",
          where, stretch.begin, stretch.end, end, cell.text()->size());
    end = stretch.end;
  }
}

void check_element(const Table& table, const std::string& where) {
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const TableRow& row = table.rows[i];
    if (row.cells.size() != table.columns.size()) {
      fail("{}: row {} of the table has {} cells and the table {} columns: give each column a cell", where,
           i + 1, row.cells.size(), table.columns.size());
    }
    for (size_t j = 0; j < row.cells.size(); ++j) {
      const bool number_column = table.columns[j].kind == Column::Kind::number;
      if (number_column ? row.cells[j].text() != nullptr : row.cells[j].number() != nullptr) {
        fail("{}: row {} of the table holds a {} in the column {}, whose kind is {}: change one of them",
             where, i + 1, number_column ? "text" : "number", in_quotes(table.columns[j].name),
             number_column ? "number" : "text");
      }
      check_stretches(row.cells[j], table.columns[j], fmt::format("{}: row {} of the table", where, i + 1));
    }
  }
}

void check_element(const Series& series, const std::string& where) {
  for (const Curve& curve : series.curves) {
    const auto matches = [&](const std::vector<double>& values) { return values.size() == curve.x.size(); };
    if (!matches(curve.y)) {
      fail("{}: the curve {} has {} values of x and {} of y: give one y for each x", where,
           in_quotes(curve.name), curve.x.size(), curve.y.size());
    }
    if (curve.low.size() != curve.high.size() || (!curve.low.empty() && !matches(curve.low))) {
      fail(
          "{}: the band of the curve {} has {} lower and {} upper ends for {} points: give both for each "
          "point, or none",
          where, in_quotes(curve.name), curve.low.size(), curve.high.size(), curve.x.size());
    }
    if (!std::ranges::all_of(curve.x, [](double x) { return std::isfinite(x); })) {
      fail("{}: the curve {} has an x that is not finite: leave that point out", where,
           in_quotes(curve.name));
    }
    if (std::ranges::adjacent_find(curve.x, std::greater_equal<>()) != curve.x.end()) {
      fail("{}: the curve {} does not go from left to right: sort its points by x, each x once", where,
           in_quotes(curve.name));
    }
    const auto positive = [](const std::vector<double>& values) {
      return std::ranges::all_of(values, [](double value) { return !(value <= 0); });
    };
    if (series.x.scale == Scale::logarithmic && !positive(curve.x)) {
      fail(
          "{}: the curve {} has an x that is not above 0, which a logarithmic axis cannot show: use a linear "
          "one",
          where, in_quotes(curve.name));
    }
    if (series.y.scale == Scale::logarithmic &&
        !(positive(curve.y) && positive(curve.low) && positive(curve.high))) {
      fail(
          "{}: the curve {} has a y that is not above 0, which a logarithmic axis cannot show: use a linear "
          "one",
          where, in_quotes(curve.name));
    }
  }
  if (series.chosen && !std::isfinite(*series.chosen))
    fail("{}: the chosen point is not finite: leave it out", where);
}

void check_element(const DotPlot& plot, const std::string& where) {
  if (plot.groups.size() > 2)
    fail("{}: the dot plot has {} groups, and two can be told apart: make a plot of each", where,
         plot.groups.size());
  for (const DotRow& row : plot.rows) {
    if (row.values.size() != plot.groups.size()) {
      fail("{}: the row {} of the dot plot has {} values for {} groups: give one for each", where,
           in_quotes(row.name), row.values.size(), plot.groups.size());
    }
    for (const DotRow::Value& value : row.values) {
      if (std::isnan(value.low) != std::isnan(value.high) || value.low > value.value ||
          value.high < value.value) {
        fail(
            "{}: the row {} of the dot plot has the value {} and an interval from {} to {}: give both ends, "
            "around the value, or none",
            where, in_quotes(row.name), value.value, value.low, value.high);
      }
      if (plot.axis.scale == Scale::logarithmic && (value.value <= 0 || value.low <= 0))
        fail(
            "{}: the row {} of the dot plot is not above 0, which a logarithmic axis cannot show: use a "
            "linear one",
            where, in_quotes(row.name));
    }
  }
}

void check_element(const HeatMap& map, const std::string& where) {
  if (map.cells.size() != map.columns.size() * map.rows.size()) {
    fail("{}: the heat map has {} cells for {} rows and {} columns: give one for each pair", where,
         map.cells.size(), map.rows.size(), map.columns.size());
  }
}

void check_element(const Pictures& grid, const std::string& where) {
  if (grid.pictures.size() != grid.columns.size() * grid.rows.size()) {
    fail(
        "{}: the grid has {} pictures for {} rows and {} columns: give one for each pair, without bytes "
        "where there is none",
        where, grid.pictures.size(), grid.rows.size(), grid.columns.size());
  }
  for (size_t i = 0; i < grid.pictures.size(); ++i) {
    const std::string& bytes = grid.pictures[i].bytes;
    if (!bytes.empty() && impl::media_type(bytes).empty()) {
      fail("{}: picture {} of the grid is no PNG, JPEG or WebP file: give the whole file's bytes", where,
           i + 1);
    }
  }
}

void check_element(const Network& network, const std::string& where) {
  for (const Block& block : network.blocks) {
    for (const Part& part : block.parts) {
      if (part.step < 0 || (part.step > 0 && part.state == Part::State::kept)) {
        fail("{}: {} has the step {}, which only a part that went has: set its state or no step", where,
             in_quotes(part.label), part.step);
      }
    }
  }
}

}  // namespace

void check(const Report& report) {
  for (const Section& section : report.sections) {
    for (size_t i = 0; i < section.elements.size(); ++i) {
      const std::string where =
          fmt::format("report, section {}, element {}", in_quotes(section.title), i + 1);
      std::visit([&](const auto& element) { check_element(element, where); }, section.elements[i]);
    }
  }
}

std::string cut_list(const Network& network) {
  std::multimap<int, const Part*> gone;  // equal steps stay in reading order
  for (const Block& block : network.blocks) {
    for (const Part& part : block.parts) {
      if (part.state != Part::State::kept) gone.emplace(part.step, &part);
    }
  }
  std::string list;
  for (const auto& [step, part] : gone) list += (list.empty() ? "" : " ") + part->label;
  return list;
}

std::string_view judgement(const Figure& figure) {
  if (std::isnan(figure.before) || std::isnan(figure.after)) return {};
  if (figure.before == figure.after) return "same";
  if (figure.better == Figure::Better::neither) return {};
  return (figure.after < figure.before) == (figure.better == Figure::Better::lower) ? "better" : "worse";
}

}  // namespace lamina::report
