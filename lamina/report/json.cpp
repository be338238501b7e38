#include "lamina/base/json.h"

#include <cmath>

#include "lamina/base/embedded.h"
#include "lamina/base/hash.h"
#include "lamina/report/impl/markup.h"
#include "lamina/report/impl/picture.h"
#include "lamina/report/report.h"
#include "lamina/report/report_assets.h"

namespace lamina::report {

namespace {

using impl::clean;

// JSON knows neither NaN nor infinity: what was not measured is null, and infinity a word.
Json number(double value) {
  if (std::isnan(value)) return nullptr;
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

Json numbers(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values) list.push_back(number(value));
  return list;
}

Json strings(const std::vector<std::string>& values) {
  Json list = Json::array();
  for (const std::string& value : values) list.push_back(clean(value));
  return list;
}

const char* name_of(Scale scale) {
  return scale == Scale::linear ? "linear" : "logarithmic";
}

const char* name_of(Text::Form form) {
  switch (form) {
    case Text::Form::prose:
      return "prose";
    case Text::Form::list:
      return "list";
    case Text::Form::code:
      return "code";
  }
  return "";
}

const char* name_of(Column::Kind kind) {
  switch (kind) {
    case Column::Kind::number:
      return "number";
    case Column::Kind::label:
      return "label";
    case Column::Kind::prose:
      return "prose";
    case Column::Kind::code:
      return "code";
  }
  return "";
}

const char* name_of(Curve::Role role) {
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

const char* name_of(Part::State state) {
  switch (state) {
    case Part::State::kept:
      return "kept";
    case Part::State::cut:
      return "cut";
    case Part::State::silenced:
      return "silenced";
  }
  return "";
}

const char* name_of(Block::Side side) {
  switch (side) {
    case Block::Side::stack:
      return "stack";
    case Block::Side::down:
      return "down";
    case Block::Side::middle:
      return "middle";
    case Block::Side::up:
      return "up";
  }
  return "";
}

const char* name_of(Figure::Better better) {
  switch (better) {
    case Figure::Better::lower:
      return "lower";
    case Figure::Better::higher:
      return "higher";
    case Figure::Better::neither:
      return "neither";
  }
  return "";
}

// A text with stretches in its parts, so that no reader has to count characters as we do.
Json parts_json(const Cell& cell) {
  Json parts = Json::array();
  const std::string& text = *cell.text();
  size_t at = 0;
  const auto plain = [&](size_t end) {
    if (end > at) parts.push_back({{"text", clean(text.substr(at, end - at))}});
  };
  for (const Stretch& stretch : cell.stretches()) {
    plain(stretch.begin);
    parts.push_back({{"text", clean(text.substr(stretch.begin, stretch.end - stretch.begin))},
                     {"name", clean(stretch.name)},
                     {"wrong", stretch.wrong}});
    at = stretch.end;
  }
  plain(text.size());
  return {{"parts", std::move(parts)}};
}

Json element_json(const Text& text) {
  return {{"kind", "text"}, {"form", name_of(text.form)}, {"text", clean(text.text)}};
}

Json element_json(const Table& table) {
  Json columns = Json::array();
  for (const Column& column : table.columns) {
    columns.push_back(
        {{"name", clean(column.name)}, {"kind", name_of(column.kind)}, {"unit", clean(column.format.unit)}});
  }
  Json rows = Json::array();
  for (const TableRow& row : table.rows) {
    Json cells = Json::array();
    for (const Cell& cell : row.cells) {
      cells.push_back(cell.number()               ? number(*cell.number())
                      : !cell.stretches().empty() ? parts_json(cell)
                      : cell.text()               ? Json(clean(*cell.text()))
                                                  : Json(nullptr));
    }
    rows.push_back({{"cells", std::move(cells)}, {"mark", clean(row.mark)}});
  }
  return {{"kind", "table"},
          {"title", clean(table.title)},
          {"columns", std::move(columns)},
          {"rows", std::move(rows)},
          {"note", clean(table.note)}};
}

Json axis_json(const Axis& axis) {
  return {{"name", clean(axis.name)}, {"unit", clean(axis.format.unit)}, {"scale", name_of(axis.scale)}};
}

Json element_json(const Series& series) {
  Json curves = Json::array();
  for (const Curve& curve : series.curves) {
    Json entry = {{"name", clean(curve.name)},
                  {"role", name_of(curve.role)},
                  {"x", numbers(curve.x)},
                  {"y", numbers(curve.y)}};
    if (!curve.low.empty()) entry["low"] = numbers(curve.low), entry["high"] = numbers(curve.high);
    curves.push_back(std::move(entry));
  }
  return {{"kind", "series"},
          {"title", clean(series.title)},
          {"x", axis_json(series.x)},
          {"y", axis_json(series.y)},
          {"curves", std::move(curves)},
          {"chosen", series.chosen ? Json(*series.chosen) : Json(nullptr)},
          {"note", clean(series.note)}};
}

Json element_json(const DotPlot& plot) {
  Json rows = Json::array();
  for (const DotRow& row : plot.rows) {
    Json values = Json::array();
    for (const DotRow::Value& value : row.values)
      values.push_back(
          {{"value", number(value.value)}, {"low", number(value.low)}, {"high", number(value.high)}});
    rows.push_back({{"name", clean(row.name)},
                    {"pattern", row.pattern},
                    {"values", std::move(values)},
                    {"note", clean(row.note)},
                    {"mark", clean(row.mark)}});
  }
  return {{"kind", "dot_plot"},
          {"title", clean(plot.title)},
          {"axis", axis_json(plot.axis)},
          {"groups", strings(plot.groups)},
          {"rows", std::move(rows)},
          {"reference", number(plot.reference)},
          {"reference_name", clean(plot.reference_name)},
          {"note", clean(plot.note)}};
}

Json element_json(const HeatMap& map) {
  Json values = Json::array(), bounds = Json::array(), chosen = Json::array();
  for (size_t row = 0; row < map.rows.size(); ++row) {
    Json line = Json::array();
    for (size_t column = 0; column < map.columns.size(); ++column) {
      const HeatCell& cell = map.cells[row * map.columns.size() + column];
      line.push_back(cell.sort == HeatCell::Sort::absent ? Json(nullptr) : number(cell.value));
      if (cell.sort == HeatCell::Sort::bound) bounds.push_back({row, column});
      if (cell.chosen) chosen.push_back({row, column});
    }
    values.push_back(std::move(line));
  }
  return {{"kind", "heat_map"},
          {"title", clean(map.title)},
          {"column_axis", clean(map.column_axis)},
          {"row_axis", clean(map.row_axis)},
          {"columns", strings(map.columns)},
          {"rows", strings(map.rows)},
          {"value_name", clean(map.value_name)},
          {"unit", clean(map.format.unit)},
          {"scale", name_of(map.scale)},
          {"values", std::move(values)},
          {"lower_bounds", std::move(bounds)},
          {"chosen", std::move(chosen)},
          {"note", clean(map.note)}};
}

Json element_json(const Pictures& grid) {
  Json pictures = Json::array();
  for (const Picture& picture : grid.pictures) {
    if (picture.bytes.empty()) {
      pictures.push_back(nullptr);
    } else {
      pictures.push_back({{"text", clean(picture.text)},
                          {"media_type", impl::media_type(picture.bytes)},
                          {"bytes", picture.bytes.size()},
                          {"sha256", sha256_hex(std::string_view(picture.bytes))}});
    }
  }
  return {{"kind", "pictures"},         {"title", clean(grid.title)},      {"columns", strings(grid.columns)},
          {"rows", strings(grid.rows)}, {"pictures", std::move(pictures)}, {"note", clean(grid.note)}};
}

Json element_json(const Network& network) {
  Json blocks = Json::array();
  for (const Block& block : network.blocks) {
    Json parts = Json::array();
    for (const Part& part : block.parts) {
      parts.push_back({{"label", clean(part.label)},
                       {"state", name_of(part.state)},
                       {"score", number(part.score)},
                       {"step", part.step > 0 ? Json(part.step) : Json(nullptr)},
                       {"note", clean(part.note)}});
    }
    blocks.push_back(
        {{"name", clean(block.name)}, {"side", name_of(block.side)}, {"parts", std::move(parts)}});
  }
  return {{"kind", "network"},
          {"title", clean(network.title)},
          {"score_name", clean(network.score_name)},
          {"unit", clean(network.format.unit)},
          {"scale", name_of(network.scale)},
          {"cut", clean(cut_list(network))},
          {"blocks", std::move(blocks)},
          {"note", clean(network.note)}};
}

Json figure_json(const Figure& figure) {
  const double difference = figure.after - figure.before;
  const bool relative = figure.before != 0 && figure.format.unit != "%";
  return {{"name", clean(figure.name)},
          {"unit", clean(figure.format.unit)},
          {"before", number(figure.before)},
          {"after", number(figure.after)},
          {"uncertainty", number(figure.uncertainty)},
          {"change", number(difference)},
          {"change_percent", relative ? number(100 * difference / std::abs(figure.before)) : Json(nullptr)},
          {"better", name_of(figure.better)},
          {"judgement", judgement(figure)},
          {"measured", clean(figure.measured)}};
}

}  // namespace

Json to_json(const Report& report) {
  check(report);
  Json figures = Json::array();
  for (const Figure& figure : report.verdict.figures) figures.push_back(figure_json(figure));
  Json sections = Json::array();
  for (const Section& section : report.sections) {
    Json elements = Json::array();
    for (const Element& element : section.elements) {
      elements.push_back(std::visit([](const auto& value) { return element_json(value); }, element));
    }
    sections.push_back(
        {{"title", clean(section.title)}, {"folded", section.folded}, {"elements", std::move(elements)}});
  }
  return {{"lamina_report", 1},
          {"title", clean(report.title)},
          {"date", clean(report.date)},
          {"version", clean(report.version)},
          {"command", clean(report.command)},
          {"verdict", {{"sentence", clean(report.verdict.sentence)}, {"figures", std::move(figures)}}},
          {"sections", std::move(sections)}};
}

std::string_view json_schema() {
  return embedded(report_assets(), "report.schema.json");
}

}  // namespace lamina::report
