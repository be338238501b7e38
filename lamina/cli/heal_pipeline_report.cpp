// How a run over a pipeline's denoiser is shown: losses, what share of the loss each term had, and settings.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/heal_pipeline_run.h"
#include "lamina/report/chart.h"

namespace lamina::cli {

namespace {

using report::Notation;
using Better = report::Figure::Better;

constexpr size_t kPoints = 100;  // of a curve on a page
constexpr const char* kRatio = "gradient ratio";
const report::Format kError{Notation::significant, 4, ""};

// Means over stretches of steps, of the steps that have the value.
report::Curve stretched(const std::vector<StepRecord>& records, std::string name,
                        const std::function<double(const StepRecord&)>& value) {
  report::Curve curve{.name = std::move(name)};
  const size_t points = std::min(records.size(), kPoints);
  for (size_t p = 0; p < points; ++p) {
    double sum = 0;
    int64_t found = 0;
    const size_t end = (p + 1) * records.size() / points;
    for (size_t i = p * records.size() / points; i < end; ++i) {
      const double v = value(records[i]);
      if (std::isfinite(v)) sum += v, ++found;
    }
    if (found == 0) continue;
    curve.x.push_back(static_cast<double>(records[end - 1].step));
    curve.y.push_back(sum / static_cast<double>(found));
  }
  return curve;
}

double all_terms(const StepRecord& record) {
  double sum = 0;
  for (const auto& [name, value] : record.terms) sum += name == kRatio ? 0 : value;
  return sum;
}

double term_of(const StepRecord& record, const std::string& name) {
  const auto it = record.terms.find(name);
  return it == record.terms.end() ? report::not_measured : it->second;
}

report::Axis steps_axis() {
  return {.name = "step", .format = report::whole()};
}

report::Series error_series(const HealedPipeline& run) {
  const report::Axis error{.name = "mean squared error", .format = kError};
  report::Series series{.title = "Loss against steps", .x = steps_axis(), .y = error};
  report::Curve curve =
      stretched(run.trained.curve, "train", [](const StepRecord& record) { return record.loss; });
  curve.role = report::Curve::Role::method;
  series.curves.push_back(std::move(curve));
  report::Curve held{.name = "held out"};
  for (const Evaluation& evaluation : run.trained.evaluations) {
    held.x.push_back(static_cast<double>(evaluation.step));
    held.y.push_back(evaluation.loss);
  }
  if (!held.x.empty()) series.curves.push_back(std::move(held));
  series.note = fmt::format("Of the loss of training each point is the mean of one of {} stretches of steps.",
                            std::min(run.trained.curve.size(), kPoints));
  return series;
}

std::set<std::string> terms_in(const std::vector<StepRecord>& curve) {
  std::set<std::string> names;
  for (const StepRecord& record : curve) {
    for (const auto& [name, value] : record.terms) names.insert(name);
  }
  names.erase(kRatio);
  return names;
}

double share_of(const StepRecord& record, const std::string& name) {
  const double sum = all_terms(record);
  return sum > 0 ? term_of(record, name) / sum : report::not_measured;
}

report::Section shares_section(const HealedPipeline& run) {
  const std::vector<StepRecord>& curve = run.trained.curve;
  report::Series shares{.title = "Share of each term in the loss",
                        .x = steps_axis(),
                        .y = {.name = "share", .format = {Notation::fixed, 3}}};
  for (const std::string& name : terms_in(curve))
    shares.curves.push_back(
        stretched(curve, name, [&](const StepRecord& record) { return share_of(record, name); }));
  if (!shares.curves.empty()) shares.curves.front().role = report::Curve::Role::method;
  report::Section section{.title = "What the loss was made of", .elements = {std::move(shares)}};
  report::Curve ratio =
      stretched(curve, "ratio", [](const StepRecord& record) { return term_of(record, kRatio); });
  if (!ratio.x.empty()) {
    ratio.role = report::Curve::Role::method;
    section.elements.push_back(
        report::Series{.title = "Largest norm of a term's gradient over the smallest",
                       .x = steps_axis(),
                       .y = {.name = "ratio", .format = kError, .scale = report::Scale::logarithmic},
                       .curves = {std::move(ratio)},
                       .note = "At the map behind the first convolution, on which every term depends."});
  }
  if (!run.taps.empty()) {
    using Kind = report::Column::Kind;
    report::Table taps{
        .title = "Maps that are compared",
        .columns = {{.name = "behind", .kind = Kind::code},
                    {.name = "mean square of the teacher's", .kind = Kind::number, .format = kError}}};
    for (size_t i = 0; i < run.taps.size(); ++i)
      taps.rows.push_back({.cells = {run.taps[i].name, run.mean_squares[i]}});
    section.elements.push_back(std::move(taps));
  }
  return section;
}

report::Section stages_section(const HealedPipeline& run) {
  using Kind = report::Column::Kind;
  report::Table table{.title = "Distance to the teacher",
                      .columns = {{.name = "what learnt", .kind = Kind::code},
                                  {.name = "steps", .kind = Kind::number, .format = report::whole()},
                                  {.name = "before", .kind = Kind::number, .format = kError},
                                  {.name = "after", .kind = Kind::number, .format = kError}},
                      .note = run.incubation == "sequential"
                                  ? "Of the teacher with this stage, and those above it, in its cut form."
                                  : "Of the teacher with this stage alone in its cut form."};
  for (const HealedPipeline::Stage& stage : run.stages)
    table.rows.push_back({.cells = {stage.name, stage.steps, stage.before, stage.after}});
  return {.title = fmt::format("Stage by stage, {}", run.incubation), .elements = {std::move(table)}};
}

report::Verdict verdict_of(const HealedPipeline& run) {
  report::Verdict verdict;
  verdict.sentence = fmt::format(
      "{} steps took the error on pictures that were held out from {:.4g} to {:.4g}{}; {} of {} parameters "
      "were trained.",
      thousands(std::ssize(run.trained.curve)), run.before.task, run.after.task,
      run.taught ? fmt::format(", and the distance to what the teacher says from {:.4g} to {:.4g}",
                               *run.before.to_teacher, *run.after.to_teacher)
                 : "",
      human_count(static_cast<double>(run.learning)), human_count(static_cast<double>(run.parameters)));
  verdict.figures.push_back({.name = "Error of the denoiser",
                             .before = run.before.task,
                             .after = run.after.task,
                             .format = kError,
                             .better = Better::lower,
                             .measured = "mean squared, " + run.held_out});
  if (run.taught)
    verdict.figures.push_back({.name = "Distance to the teacher",
                               .before = *run.before.to_teacher,
                               .after = *run.after.to_teacher,
                               .format = kError,
                               .better = Better::lower,
                               .measured = "mean squared difference of what both say, " + run.held_out});
  verdict.figures.push_back({.name = "Parameters trained",
                             .after = static_cast<double>(run.learning),
                             .format = {Notation::scaled, 3},
                             .measured = fmt::format("the denoiser has {}", thousands(run.parameters))});
  verdict.figures.push_back({.name = "Time",
                             .after = run.seconds,
                             .format = {Notation::significant, 3, "s"},
                             .measured = "of the steps alone, on " + processor_name()});
  return verdict;
}

std::vector<std::string> limits() {
  return {
      "One run with one seed; another seed gives other numbers, and how far apart they lie was not measured.",
      "Errors at single times say little of whole pictures: draw some from fixed seeds and look at them."};
}

}  // namespace

std::vector<std::pair<std::string, double>> shares_of(const HealedPipeline& run) {
  std::vector<std::pair<std::string, double>> shares;
  const std::vector<StepRecord>& curve = run.trained.curve;
  for (const std::string& name : terms_in(curve)) {
    double sum = 0;
    for (const StepRecord& record : curve) {
      const double share = share_of(record, name);
      if (std::isfinite(share)) sum += share;
    }
    shares.emplace_back(name, sum / static_cast<double>(curve.size()));
  }
  std::ranges::stable_sort(shares, std::greater<>(), &std::pair<std::string, double>::second);
  return shares;
}

Json incubation_json(const HealedPipeline& run) {
  Json json = {{"order", run.incubation}, {"stages", Json::array()}};
  for (const HealedPipeline::Stage& stage : run.stages)
    json["stages"].push_back(
        {{"stage", stage.name}, {"steps", stage.steps}, {"before", stage.before}, {"after", stage.after}});
  return json;
}

report::Report report_of(const HealedPipeline& run) {
  report::Report report{.title = fmt::format("Healing {}", run.name),
                        .date = today(),
                        .version = std::string(version_of()),
                        .command = run.command,
                        .verdict = verdict_of(run),
                        .sections = {}};
  report.sections.push_back({.title = "The curve", .elements = {error_series(run)}});
  if (!run.stages.empty()) report.sections.push_back(stages_section(run));
  if (run.taught) report.sections.push_back(shares_section(run));
  Settings rows = run.settings;
  rows.emplace_back("hardware", processor_name());
  for (const std::string& note : run.trained.notes) rows.emplace_back("note", note);
  report.sections.push_back({.title = "How it was done", .elements = {settings_table(rows)}, .folded = true});
  report.sections.push_back({.title = "What does not hold",
                             .elements = {report::Text{.text = fmt::format("{}", fmt::join(limits(), "\n\n")),
                                                       .form = report::Text::Form::list}}});
  return report;
}

report::ModelCard card_of(const HealedPipeline& run) {
  const report::Verdict verdict = verdict_of(run);
  return {.title = fmt::format("{}, healed", run.name),
          .base_model = run.name,
          .tags = {"healed"},
          .summary = verdict.sentence,
          .figures = verdict.figures,
          .limits = limits(),
          .command = run.command};
}

std::string summary_of(const HealedPipeline& run, const std::filesystem::path& target) {
  const report::Style style = style_of(STDOUT_FILENO);
  std::string text =
      fmt::format("Healing {}\n\n{}\n{}\n", run.name, report::terminal_verdict(verdict_of(run), style),
                  report::terminal_chart(error_series(run), style));
  for (const HealedPipeline::Stage& stage : run.stages)
    text += fmt::format("{:<16} {:>7} step{} distance to the teacher {:.4g} -> {:.4g}\n", stage.name,
                        thousands(stage.steps), stage.steps == 1 ? ", " : "s,", stage.before, stage.after);
  std::vector<std::string> shares;
  for (const auto& [name, share] : shares_of(run))
    shares.push_back(fmt::format("{} {:.1f} %", name, 100 * share));
  if (!shares.empty()) text += fmt::format("the loss     {}\n", fmt::join(shares, ", "));
  return text + fmt::format("pipeline     {}\nreport       {}\ncurve        {}\ntime         {}\n",
                            shown(target / "pipeline"), shown(target / "report.html"),
                            shown(target / "curve.jsonl"), human_seconds(run.seconds));
}

}  // namespace lamina::cli
