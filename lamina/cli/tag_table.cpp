#include "lamina/cli/tag_table.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "lamina/base/text.h"
#include "lamina/cli/cli.h"

namespace lamina::cli {

namespace {

using label::Counts;
using label::Fault;
using report::Column;
using report::Format;
using report::Notation;

constexpr std::array kFaults = {Fault::missed, Fault::invented, Fault::wrong_type, Fault::wrong_ends,
                                Fault::wrong_both};

std::array<int64_t, kFaults.size()> counted(std::span<const label::Mistake> mistakes) {
  std::array<int64_t, kFaults.size()> faults{};
  for (const label::Mistake& mistake : mistakes)
    ++faults[static_cast<size_t>(std::ranges::find(kFaults, mistake.fault) - kFaults.begin())];
  return faults;
}

report::TableRow row_of(const std::string& name, const Counts& counts) {
  return {.cells = {name, 100 * counts.precision(), 100 * counts.recall(), 100 * counts.f1(), counts.gold,
                    counts.predicted, counts.correct}};
}

}  // namespace

std::string score_table(const label::Score& score) {
  const Format percent = {Notation::fixed, 2, "%"};
  report::Table table{.columns = {{"type", Column::Kind::label},
                                  {"precision", Column::Kind::number, percent},
                                  {"recall", Column::Kind::number, percent},
                                  {"F1", Column::Kind::number, percent},
                                  {"gold", Column::Kind::number, report::whole()},
                                  {"predicted", Column::Kind::number, report::whole()},
                                  {"correct", Column::Kind::number, report::whole()}}};
  table.rows.push_back(row_of("all (micro)", score.all));
  report::TableRow& macro = table.rows.emplace_back(row_of("mean of types (macro)", score.all));
  macro.cells[1] = 100 * score.macro_precision();
  macro.cells[2] = 100 * score.macro_recall();
  macro.cells[3] = 100 * score.macro_f1();
  for (const auto& [type, counts] : score.types) table.rows.push_back(row_of(type, counts));
  return report::terminal_table(table, style_of(STDOUT_FILENO));
}

std::string faults_said(std::span<const label::Mistake> mistakes, const label::Score& score) {
  const auto faults = counted(mistakes);
  return wrapped(fmt::format(
      "Wrong entities: {} missed, {} invented, {} of another type, {} with other ends, {} with both. Tags: "
      "{} of {} right.",
      thousands(faults[0]), thousands(faults[1]), thousands(faults[2]), thousands(faults[3]),
      thousands(faults[4]), thousands(score.words_right), thousands(score.words)));
}

Json faults_json(std::span<const label::Mistake> mistakes) {
  const auto faults = counted(mistakes);
  Json json = Json::object();
  for (size_t i = 0; i < kFaults.size(); ++i) json[std::string(fault_name(kFaults[i]))] = faults[i];
  return json;
}

std::string wrapped(std::string_view sentence) {
  return report::terminal_verdict({.sentence = std::string(sentence), .figures = {}},
                                  style_of(STDOUT_FILENO));
}

}  // namespace lamina::cli
