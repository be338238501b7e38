// The report of a cut denoiser: what each part's absence costs, the frontiers, the plans side by side.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/prune_unet.h"

namespace lamina::cli {

using report::Notation;

namespace {

constexpr int kBands = 4;

std::string label(const UnetRun& run, size_t candidate) {
  return run.subject.blueprint().part(run.found.candidates[candidate]).label();
}

double share_kept(const UnetRun& run, const std::vector<int64_t>& saved, size_t axis) {
  return 100 * (1 - static_cast<double>(saved[axis]) / static_cast<double>(run.found.prices.whole[axis]));
}

std::string samples_text(const UnetRun& run) {
  return fmt::format("{}; latents of {} x {}, one time each, spread evenly over the schedule",
                     run.data.scoring.source, run.subject.height, run.subject.width);
}

report::Verdict verdict_of(const UnetRun& run) {
  using Better = report::Figure::Better;
  const UnetFound& found = run.found;
  const std::vector<int64_t>&whole = found.prices.whole, &saved = found.chosen.saved;
  report::Verdict verdict;
  verdict.sentence = fmt::format(
      "{} of {} parts are gone: {:.1f} % of the parameters, {:.1f} % of the multiply-adds and {:.1f} % of "
      "the "
      "measured time stay, for a mean squared change of {:.4g} in what the denoiser says.",
      found.chosen.removed.size(), found.candidates.size(), share_kept(run, saved, 0),
      share_kept(run, saved, 1), share_kept(run, saved, 2), found.chosen.joint);
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
         fmt::format("before: measured; after: less what each part took, medians of {}; {} thread{}",
                     run.options.repeats, run.options.threads, run.options.threads == 1 ? "" : "s"));
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

report::Network network_of(const UnetRun& run) {
  const Blueprint& blueprint = run.subject.blueprint();
  report::Network network{.title = "The network, and what went",
                          .score_name = fmt::format("criterion {}, when it alone is skipped",
                                                    laptop::criterion_name(run.found.criterion)),
                          .format = {},
                          .scale = report::Scale::logarithmic};
  std::vector<double> value(blueprint.parts.size(), report::not_measured);
  std::vector<bool> gone(blueprint.parts.size(), false);
  for (size_t i = 0; i < run.found.candidates.size(); ++i)
    value[static_cast<size_t>(run.found.candidates[i].index)] = run.found.values[i];
  for (int i : run.found.chosen.removed)
    gone[static_cast<size_t>(run.found.candidates[static_cast<size_t>(i)].index)] = true;
  for (size_t i = 0; i < blueprint.parts.size(); ++i) {
    const Part& part = blueprint.parts[i];
    const std::string& stage = blueprint.stages[static_cast<size_t>(part.block)];
    if (i == 0 || blueprint.parts[i - 1].block != part.block) {
      using Side = report::Block::Side;
      const Side side = stage.starts_with("down") ? Side::down
                        : stage.starts_with("up") ? Side::up
                                                  : Side::middle;
      const std::string number = stage.substr(stage.rfind('.') + 1);  // "down_blocks.0"
      network.blocks.push_back({.name = side == Side::down ? "down " + number
                                        : side == Side::up ? "up " + number
                                                           : "middle",
                                .parts = {},
                                .side = side});
    }
    network.blocks.back().parts.push_back(
        {.label = part.label(),
         .state = gone[i] || !part.present ? report::Part::State::cut : report::Part::State::kept,
         .score = value[i],
         .note = part.present
                     ? fmt::format("{} parameters", thousands(blueprint.parameters({static_cast<int>(i)})))
                     : "gone before this run"});
  }
  return network;
}

// Every part's loss, with its standard error.
report::DotPlot losses_of(const UnetRun& run) {
  report::DotPlot plot{
      .title = "What the output loses when one part is skipped",
      .axis = {.name = "mean squared change of the output",
               .format = {},
               .scale = report::Scale::logarithmic},
      .groups = {"loss"},
      .rows = {},
      .note = fmt::format(
          "Mean and standard error over {} samples. Ranks of the means over the even and over the odd "
          "samples correlate at {:.4f}.",
          run.found.scores.samples(), laptop::split_half(run.found.scores.all.output))};
  const std::vector<laptop::Mean> means = laptop::means(run.found.scores.all.output);
  std::vector<bool> gone(means.size(), false);
  for (int i : run.found.chosen.removed) gone[static_cast<size_t>(i)] = true;
  for (size_t i = 0; i < means.size(); ++i) {
    const bool banded = std::isfinite(means[i].error) && means[i].error < means[i].value;
    plot.rows.push_back(
        {.name = label(run, i),
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
  for (size_t i = 0; i < run.found.candidates.size(); ++i) heat.columns.push_back(label(run, i));
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
  for (const PlanRow* plan : {&run.found.chosen})
    points.emplace_back(share_kept(run, plan->saved, axis), plan->joint);
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
                                  {.name = "last latents"},
                                  {.name = "stock config", .kind = Kind::prose}},
                      .rows = {},
                      .note = {}};
  const auto add = [&](const PlanRow& plan, std::string mark) {
    table.rows.push_back(
        {.cells = {plan.name, static_cast<double>(plan.removed.size()), share_kept(run, plan.saved, 0),
                   share_kept(run, plan.saved, 1), share_kept(run, plan.saved, 2), plan.sum, plan.superposed,
                   plan.joint, plan.error, plan.trajectory,
                   plan.expressible ? plan.said : "no: " + plan.said},
         .mark = std::move(mark)});
  };
  add(run.found.chosen, "chosen");
  for (const PlanRow& plan : run.found.others) add(plan, "");
  table.note = fmt::format(
      "% is what stays. Sum: of the criterion's single values. Superposed: |sum of the single changes of the "
      "output|^2. "
      "Measured: mean squared change of the output by all of the plan, on {} samples that were not scored "
      "on. Last "
      "latents: mean squared change after {} steps at equal seeds, {} picture{}. {} plans were measured.",
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
        {.cells = {label(run, i), static_cast<double>(saved[0]), static_cast<double>(saved[1]) / 1e6,
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

// Random plans, measured, against what is predicted of them; and the best plan of a few parts.
std::optional<report::Section> study_section(const UnetRun& run) {
  report::Section section{.title = "How far the sum can be trusted", .elements = {}};
  if (const auto& study = run.found.study) {
    const std::vector<double> ranks = study->correlations();
    report::Table table{
        .title =
            fmt::format("{} random plans of 2 to 14 parts, measured on held-out samples", study->rows.size()),
        .columns = {{.name = "predicted by the sum of", .kind = report::Column::Kind::label},
                    {.name = "rank correlation", .format = {Notation::fixed, 3}},
                    {.name = "measured / predicted, 2-5 parts", .format = {Notation::fixed, 2}},
                    {.name = "6-9", .format = {Notation::fixed, 2}},
                    {.name = "10-14", .format = {Notation::fixed, 2}}},
        .rows = {},
        .note =
            "The rank correlation is Spearman's; the ratios are medians, and say something only of what "
            "predicts the loss itself: output, (sum of norms)^2 and superposition."};
    for (size_t p = 0; p < study->predictors.size(); ++p)
      table.rows.push_back({.cells = {study->predictors[p], ranks[p], study->median_ratio(p, 2, 5),
                                      study->median_ratio(p, 6, 9), study->median_ratio(p, 10, 14)}});
    section.elements.push_back(std::move(table));
  }
  if (const auto& subsets = run.found.subsets) {
    report::Table table{
        .title = fmt::format("Every subset of some parts, {} plans measured", subsets->plans),
        .columns = {{.name = "parameters of these that must go", .format = {Notation::fixed, 0, "%"}},
                    {.name = "best plan", .kind = report::Column::Kind::code},
                    {.name = "its loss", .format = {Notation::significant, 3}},
                    {.name = "plan of least sum", .kind = report::Column::Kind::code},
                    {.name = "its loss ", .format = {Notation::significant, 3}}},
        .rows = {},
        .note = {}};
    const auto labels = [&](const std::vector<int>& removed) {
      std::string text;
      for (int i : removed)
        text += fmt::format("{}{}", text.empty() ? "" : " ", label(run, static_cast<size_t>(i)));
      return text;
    };
    for (const laptop::BruteForce::Row& row : subsets->rows)
      table.rows.push_back({.cells = {100 * row.budget, labels(row.best), row.best_truth, labels(row.chosen),
                                      row.chosen_truth}});
    section.elements.push_back(std::move(table));
  }
  return section.elements.empty() ? std::nullopt : std::optional(std::move(section));
}

report::Section limits_section(const UnetRun& run) {
  const PlanRow& chosen = run.found.chosen;
  std::vector<std::string> limits = {
      "The output's change on noised samples is not the quality of pictures: after many steps inputs drift, "
      "and a cut "
      "network wants to be healed before it is looked at.",
      fmt::format("The method follows what is public of LAPTOP-Diff (arXiv 2404.11098): the criterion and "
                  "the knapsack. "
                  "Its calibration set is not known; these are {}.",
                  run.data.scoring.source)};
  if (!run.subject.painter)
    limits.emplace_back(
        "This U-Net was judged on normal numbers in place of latents and texts; with its pipeline the "
        "ranking may be "
        "another.");
  if (chosen.sum > 0)
    limits.push_back(
        fmt::format("The measured loss of the chosen plan is {:.2f} times the sum of its single losses; "
                    "parts that go together interact.",
                    chosen.joint / chosen.sum));
  for (const PlanRow& plan : run.found.others) {
    bool holds = true;
    for (size_t a = 0; a < run.found.least.size(); ++a) holds &= plan.saved[a] >= run.found.least[a];
    if (holds && plan.joint < chosen.joint)
      limits.push_back(fmt::format("\"{}\" does better here within the same budgets ({:.4g} against {:.4g}).",
                                   plan.name, plan.joint, chosen.joint));
  }
  return {.title = "What does not hold",
          .elements = {report::Text{.text = fmt::format("{}", fmt::join(limits, "\n\n")),
                                    .form = report::Text::Form::list}}};
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
  report.sections.push_back({.title = "The network", .elements = {network_of(run)}});
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

}  // namespace lamina::cli
