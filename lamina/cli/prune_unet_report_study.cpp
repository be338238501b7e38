// Of the report of a cut denoiser: how far the sum of single losses can be trusted, and what does not hold.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lamina/base/text.h"
#include "lamina/cli/prune_unet_report.h"

namespace lamina::cli {

using report::Notation;

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
        text += fmt::format("{}{}", text.empty() ? "" : " ", label_of(run, static_cast<size_t>(i)));
      return text;
    };
    for (const laptop::BruteForce::Row& row : subsets->rows)
      table.rows.push_back({.cells = {100 * row.budget, labels(row.best), row.best_truth, labels(row.chosen),
                                      row.chosen_truth}});
    section.elements.push_back(std::move(table));
  }
  return section.elements.empty() ? std::nullopt : std::optional(std::move(section));
}

constexpr double kSettled = 0.95;  // rank correlation of two halves of the samples

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
  if (const auto& pass = run.found.pass; pass && pass->missed > 0)
    limits.push_back(
        fmt::format("--ms {}: {} plans were proposed and timed, each with a stricter budget for the sum of "
                    "the parts; the "
                    "fastest takes {:.1f} % of the whole model's time, {:.1f} points too much.",
                    run.options.ms, pass->rounds.size(), 100 * pass->share, 100 * pass->missed));
  if (const double settled = laptop::split_half(run.found.scores.all.output); settled < kSettled)
    limits.push_back(
        fmt::format("The ranks are not settled: by the even and by the odd samples they correlate at {:.3f} "
                    "where {} is wanted; more --samples help.",
                    settled, kSettled));
  if (chosen.sum > 0 && run.found.beside.empty())
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

}  // namespace lamina::cli
