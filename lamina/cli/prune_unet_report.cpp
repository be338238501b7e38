// The report of a cut denoiser: what each part's absence costs, the frontiers, the plans side by side.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/prune_unet_report.h"

namespace lamina::cli {

using report::Notation;

std::string label_of(const UnetRun& run, size_t candidate) {
  return run.subject.blueprint().part(run.found.candidates[candidate]).label();
}

double share_kept(const UnetRun& run, const std::vector<int64_t>& saved, size_t axis) {
  return 100 * (1 - static_cast<double>(saved[axis]) / static_cast<double>(run.found.prices.whole[axis]));
}

namespace {

constexpr int kBands = 4;

std::string samples_text(const UnetRun& run) {
  return fmt::format("{}; latents of {} x {}, one time each, spread evenly over the schedule",
                     run.data.scoring.source, run.subject.height, run.subject.width);
}

// From where on pictures were seen to fail, on the one model that they were counted on (evidence/laptop).
constexpr double kFar = 0.25;

// Small losses of single calls may add up over the steps, and they do not tell whether they do.
std::string warning_of(const UnetRun& run) {
  if (!(run.found.chosen.trajectory > kFar) || run.found.criterion == laptop::Criterion::trajectory)
    return {};
  return fmt::format(
      " Its pictures end {:.0f} % of their variance away from the whole model's at equal seeds: look at some "
      "before healing it; --criterion trajectory judges by that.",
      100 * run.found.chosen.trajectory);
}

report::Verdict verdict_of(const UnetRun& run) {
  using Better = report::Figure::Better;
  const UnetFound& found = run.found;
  const std::vector<int64_t>&whole = found.prices.whole, &saved = found.chosen.saved;
  report::Verdict verdict;
  const std::string edits = edits_text(run);
  verdict.sentence = fmt::format(
      "{} of {} parts are gone{}: {:.1f} % of the parameters, {:.1f} % of the multiply-adds and {:.1f} % of "
      "the measured time stay, for a mean squared change of {:.4g} in what the denoiser says.",
      found.chosen.removed.size(), found.candidates.size(), edits.empty() ? "" : ", " + edits,
      share_kept(run, saved, 0), share_kept(run, saved, 1), share_kept(run, saved, 2), found.chosen.joint);
  if (found.pass && found.pass->missed > 0)
    verdict.sentence += fmt::format(" The budget of {} of the time is missed by {:.1f} points.",
                                    run.options.ms, 100 * found.pass->missed);
  verdict.sentence += warning_of(run);
  const auto figure = [&](std::string name, size_t axis, double unit, report::Format format,
                          std::string measured) {
    verdict.figures.push_back({.name = std::move(name),
                               .before = static_cast<double>(whole[axis]) / unit,
                               .after = static_cast<double>(whole[axis] - saved[axis]) / unit,
                               .format = std::move(format),
                               .better = Better::lower,
                               .measured = std::move(measured)});
  };
  figure("Parameters", 0, 1, {Notation::scaled, 4}, "counted from the declared shapes");
  figure("Multiply-adds", 1, 1, {Notation::scaled, 4},
         fmt::format("of one pass over a {} x {} latent, attention products counted", run.subject.height,
                     run.subject.width));
  figure("Milliseconds a pass", 2, 1e6, {Notation::significant, 4},
         fmt::format(
             "{}, medians of {}; {} thread{}",
             found.pass ? "both measured, by turns" : "before: measured; after: less what each part took",
             run.options.repeats, run.options.threads, run.options.threads == 1 ? "" : "s"));
  if (found.pass) {
    verdict.figures.back().before = found.pass->whole;
    verdict.figures.back().after = found.pass->written;
  }
  verdict.figures.push_back({.name = "Change of the output",
                             .before = report::not_measured,
                             .after = found.chosen.joint,
                             .format = {Notation::significant, 4},
                             .better = Better::lower,
                             .measured = fmt::format("mean squared, on {} samples that were not scored on",
                                                     run.data.heldout.samples()),
                             .uncertainty = found.chosen.error});
  if (run.weight_bytes > 0)
    verdict.figures.push_back({.name = "Weight file",
                               .before = static_cast<double>(run.subject.opened().checkpoint.file_bytes()),
                               .after = static_cast<double>(run.weight_bytes),
                               .format = {Notation::scaled, 3, "B"},
                               .better = Better::lower,
                               .measured = "of the denoiser"});
  return verdict;
}

// A part that does nothing loses nothing, which a logarithmic axis has no place for.
report::Scale scale_of(std::span<const double> values) {
  return std::ranges::all_of(values, [](double value) { return value > 0; }) ? report::Scale::logarithmic
                                                                             : report::Scale::linear;
}

// Every part's loss, with its standard error.
report::DotPlot losses_of(const UnetRun& run) {
  const std::vector<laptop::Mean> means = laptop::means(run.found.scores.all.output);
  std::vector<double> values;
  for (const laptop::Mean& mean : means) values.push_back(mean.value);
  report::DotPlot plot{
      .title = "What the output loses when one part is skipped",
      .axis = {.name = "mean squared change of the output", .format = {}, .scale = scale_of(values)},
      .groups = {"loss"},
      .rows = {},
      .note = fmt::format(
          "Mean and standard error over {} samples. Ranks of the means over the even and over the odd "
          "samples correlate at {:.4f}.",
          run.found.scores.samples(), laptop::split_half(run.found.scores.all.output))};
  std::vector<bool> gone(means.size(), false);
  for (int i : run.found.chosen.removed) gone[static_cast<size_t>(i)] = true;
  for (size_t i = 0; i < means.size(); ++i) {
    const bool banded = std::isfinite(means[i].error) && means[i].error < means[i].value;
    plot.rows.push_back(
        {.name = label_of(run, i),
         .values = {{.value = means[i].value,
                     .low = banded ? means[i].value - means[i].error : report::not_measured,
                     .high = banded ? means[i].value + means[i].error : report::not_measured}},
         .mark = gone[i] ? "cut" : ""});
  }
  return plot;
}

report::HeatMap bands_of(const UnetRun& run) {
  const auto bands =
      laptop::by_band(run.found.scores, run.found.scores.all.output, kBands, run.data.scoring.steps);
  report::HeatMap heat{.title = "By time, the least noise first",
                       .column_axis = "part",
                       .row_axis = "time",
                       .columns = {},
                       .rows = {},
                       .cells = {},
                       .value_name = "mean squared change of the output",
                       .format = {},
                       .scale = report::Scale::logarithmic,
                       .note = {}};
  std::vector<bool> gone(run.found.candidates.size(), false);
  for (int i : run.found.chosen.removed) gone[static_cast<size_t>(i)] = true;
  for (size_t i = 0; i < run.found.candidates.size(); ++i) heat.columns.push_back(label_of(run, i));
  for (size_t b = 0; b < bands.size(); ++b) {
    heat.rows.push_back(fmt::format("{}-{}", run.data.scoring.steps * static_cast<int64_t>(b) / kBands,
                                    run.data.scoring.steps * static_cast<int64_t>(b + 1) / kBands - 1));
    for (size_t i = 0; i < gone.size(); ++i) {
      using Sort = report::HeatCell::Sort;
      heat.cells.push_back({.value = bands[b][i],
                            .sort = std::isnan(bands[b][i]) ? Sort::absent : Sort::measured,
                            .chosen = gone[i]});
    }
  }
  std::string correlations;
  for (size_t b = 0; b + 1 < bands.size(); ++b)
    correlations += fmt::format("{}{:.3f}", b ? ", " : "", laptop::rank_correlation(bands[b], bands[b + 1]));
  heat.note =
      fmt::format("Rank correlation of neighbouring rows: {}. Parts that went are framed.", correlations);
  return heat;
}

std::string axis_name(const UnetRun& run, size_t axis) {
  const std::string& name = run.found.prices.axes[axis];
  return name == "params" ? "parameters" : name == "macs" ? "multiply-adds" : "milliseconds";
}

report::Series frontier_of(const UnetRun& run, size_t axis) {
  report::Series series{
      .title = fmt::format("Loss against {} kept", axis_name(run, axis)),
      .x = {.name = fmt::format("% of the {} kept", axis_name(run, axis)),
            .format = {Notation::fixed, 1, "%"}},
      .y = {.name = "sum of single losses", .format = {}, .scale = report::Scale::logarithmic},
      .curves = {},
      .chosen = {},
      .note = {}};
  bool exact = true;
  for (const UnetFound::Frontier& frontier : run.found.frontiers) {
    if (frontier.axis != axis) continue;
    exact &= frontier.exact;
    report::Curve curve{
        .name = frontier.name,
        .role = series.curves.empty() ? report::Curve::Role::method : report::Curve::Role::baseline,
        .x = {},
        .y = {}};
    for (auto point = frontier.points.rbegin(); point != frontier.points.rend(); ++point) {
      const double kept = share_kept(run, point->saved, axis);
      if (!(point->loss > 0) || (!curve.x.empty() && kept <= curve.x.back())) continue;
      curve.x.push_back(kept);
      curve.y.push_back(point->loss);
    }
    series.curves.push_back(std::move(curve));
  }
  report::Curve measured{.name = "measured, of the plans below", .x = {}, .y = {}};
  std::vector<std::pair<double, double>> points;
  if (run.found.chosen.joint > 0)
    points.emplace_back(share_kept(run, run.found.chosen.saved, axis), run.found.chosen.joint);
  for (const PlanRow& plan : run.found.others)
    if (plan.joint > 0) points.emplace_back(share_kept(run, plan.saved, axis), plan.joint);
  std::ranges::sort(points);
  for (const auto& [x, y] : points) {  // of plans that keep the same the best
    if (!measured.x.empty() && measured.x.back() == x) continue;
    measured.x.push_back(x), measured.y.push_back(y);
  }
  series.curves.push_back(std::move(measured));
  series.note = fmt::format(
      "One pass of dynamic programming gives every budget{}. The sum is a surrogate: the loss of each plan "
      "was "
      "measured besides.",
      exact ? "" : ", savings rounded down to buckets");
  return series;
}

report::Table plans_table(const UnetRun& run) {
  using Kind = report::Column::Kind;
  report::Table table{.title = "Plans side by side",
                      .columns = {{.name = "plan", .kind = Kind::label},
                                  {.name = "parts cut", .format = report::whole()},
                                  {.name = "% params", .format = {Notation::fixed, 1, ""}},
                                  {.name = "% macs", .format = {Notation::fixed, 1, ""}},
                                  {.name = "% ms", .format = {Notation::fixed, 1, ""}},
                                  {.name = "sum of losses"},
                                  {.name = "superposed"},
                                  {.name = "measured loss"},
                                  {.name = "plus or minus"},
                                  {.name = "clean picture"},
                                  {.name = "last latents"},
                                  {.name = "stock config", .kind = Kind::prose}},
                      .rows = {},
                      .note = {}};
  const auto add = [&](const PlanRow& plan, std::string mark) {
    table.rows.push_back(
        {.cells = {plan.name, static_cast<double>(plan.removed.size()), share_kept(run, plan.saved, 0),
                   share_kept(run, plan.saved, 1), share_kept(run, plan.saved, 2), plan.sum, plan.superposed,
                   plan.joint, plan.error, plan.clean, plan.trajectory,
                   plan.expressible ? plan.said : "no: " + plan.said},
         .mark = std::move(mark)});
  };
  add(run.found.chosen, "chosen");
  for (const PlanRow& plan : run.found.others) add(plan, "");
  table.note = fmt::format(
      "% is what stays. Sum: of the criterion's single values. Superposed: |sum of the single changes of the "
      "output|^2. "
      "Measured: mean squared change of the output by all of the plan, on {} samples that were not scored "
      "on. Clean picture: "
      "the same, each sample weighed by what it changes in the clean picture that follows. Last "
      "latents: mean squared change after {} steps at equal seeds, as a share of their variance, {} "
      "picture{}. {} plans were measured.",
      run.data.heldout.samples(), run.options.trajectory_steps, run.options.trajectory,
      run.options.trajectory == 1 ? "" : "s", run.found.true_losses);
  return table;
}

report::Table parts_table(const UnetRun& run) {
  using Kind = report::Column::Kind;
  const UnetFound& found = run.found;
  report::Table table{
      .title = "Part by part",
      .columns = {{.name = "part", .kind = Kind::label},
                  {.name = "parameters", .format = report::whole()},
                  {.name = "MMAC", .format = {Notation::fixed, 1, ""}},
                  {.name = "ms", .format = {Notation::fixed, 2, ""}},
                  {.name = "output loss"},
                  {.name = "standard error"},
                  {.name = "task loss rises by"},
                  {.name = "turns x by"},
                  {.name = std::string("criterion ") + std::string(laptop::criterion_name(found.criterion))}},
      .rows = {},
      .note = "Turns x by: 1 - cosine between the residual before and behind the part."};
  const std::vector<laptop::Mean> output = laptop::means(found.scores.all.output),
                                  task = laptop::means(found.scores.all.task),
                                  turned = laptop::means(found.scores.all.influence);
  for (size_t i = 0; i < found.candidates.size(); ++i) {
    const std::vector<int64_t> saved = found.prices.saved(std::span(&found.candidates[i], 1));
    const bool gone =
        std::ranges::find(found.chosen.removed, static_cast<int>(i)) != found.chosen.removed.end();
    table.rows.push_back(
        {.cells = {label_of(run, i), static_cast<double>(saved[0]), static_cast<double>(saved[1]) / 1e6,
                   found.times.saved[i], output[i].value, output[i].error,
                   task.empty() ? report::not_measured : task[i].value, turned[i].value, found.values[i]},
         .mark = gone ? "cut" : ""});
  }
  return table;
}

report::Section how_section(const UnetRun& run) {
  using Kind = report::Column::Kind;
  report::Table settings{
      .title = "Settings and provenance",
      .columns = {{.name = "what", .kind = Kind::label}, {.name = "value", .kind = Kind::prose}},
      .rows = {},
      .note = {}};
  const auto row = [&](std::string name, std::string value) {
    settings.rows.push_back({.cells = {std::move(name), std::move(value)}});
  };
  for (const auto& [key, value] : run.plan.provenance.at("method").items())
    row(key, value.is_string() ? value.get<std::string>() : value.dump());
  row("model", fmt::format("{} (sha256 {})", run.subject.name(),
                           run.plan.provenance.at("model").at("sha256").get<std::string>()));
  row("samples", samples_text(run));
  row("hardware", fmt::format("{}; {} thread{}", processor_name(), run.options.threads,
                              run.options.threads == 1 ? "" : "s"));
  if (!run.found.proven)
    row("solver", "the branch and bound ran out of nodes: its plan may not be the best of the sum");
  report::Table time{.title = "Time by phase",
                     .columns = {{.name = "phase", .kind = Kind::label},
                                 {.name = "seconds", .format = {Notation::fixed, 1, "s"}}},
                     .rows = {},
                     .note = {}};
  for (const auto& [phase, seconds] : run.found.seconds) time.rows.push_back({.cells = {phase, seconds}});
  return {.title = "How it was done", .elements = {settings, time}, .folded = true};
}

}  // namespace

report::Report report_of(const UnetRun& run) {
  report::Report report{
      .title = fmt::format("{}: {} of {} parts cut from {}",
                           run.options.method == "laptop" ? "After LAPTOP-Diff" : run.options.method,
                           run.found.chosen.removed.size(), run.found.candidates.size(), run.subject.name()),
      .date = today(),
      .version = std::string(version_of()),
      .command = run.command,
      .verdict = verdict_of(run),
      .sections = {}};
  report::Section network{.title = "The network", .elements = {network_of(run)}};
  for (report::Element& table : edit_tables(run)) network.elements.push_back(std::move(table));
  report.sections.push_back(std::move(network));
  report.sections.push_back(
      {.title = "What each part is worth", .elements = {losses_of(run), bands_of(run), parts_table(run)}});
  report::Section budgets{.title = "Quality against budget", .elements = {plans_table(run)}};
  for (size_t axis = 0; axis < run.found.prices.axes.size(); ++axis)
    budgets.elements.push_back(frontier_of(run, axis));
  report.sections.push_back(std::move(budgets));
  if (auto study = study_section(run)) report.sections.push_back(*std::move(study));
  report.sections.push_back(how_section(run));
  report.sections.push_back(limits_section(run));
  return report;
}

std::string scores_csv(const UnetRun& run) {
  const UnetFound& found = run.found;
  const auto& all = found.scores.all;
  std::vector<std::pair<std::string, std::vector<double>>> columns;
  const auto means = [&](std::string name, const laptop::BatchScores::PerSample& values) {
    if (values.empty()) return;
    std::vector<double> column;
    for (const laptop::Mean& mean : laptop::means(values)) column.push_back(mean.value);
    columns.emplace_back(std::move(name), std::move(column));
  };
  means("output", all.output);
  means("task", all.task);
  means("guided", all.guided);
  means("influence", all.influence);
  columns.emplace_back("clean",
                       laptop::values_of(found.scores, laptop::Criterion::clean, run.subject.schedule));
  columns.emplace_back(fmt::format("criterion_{}", laptop::criterion_name(found.criterion)), found.values);
  std::string csv = "part,parameters,macs,cut";
  for (const auto& [name, column] : columns) csv += "," + name;
  csv += "\n";
  for (size_t i = 0; i < found.candidates.size(); ++i) {
    const std::vector<int64_t> saved = found.prices.saved(std::span(&found.candidates[i], 1));
    const bool gone =
        std::ranges::find(found.chosen.removed, static_cast<int>(i)) != found.chosen.removed.end();
    csv += fmt::format("{},{},{},{}", run.subject.blueprint().part(found.candidates[i]).path, saved[0],
                       saved[1], gone ? 1 : 0);
    for (const auto& [name, column] : columns) csv += fmt::format(",{:.9g}", column[i]);
    csv += "\n";
  }
  return csv;
}

}  // namespace lamina::cli
