// Where the results of denorm go: plan.json, report.html and report.json, a card in every folder, the
// terminal.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/denorm_run.h"
#include "lamina/report/chart.h"
#include "lamina/report/report.h"
#include "lamina/report/terminal.h"

namespace lamina::cli {

namespace fs = std::filesystem;
using report::Cell;
using report::Column;
using report::Notation;

namespace {

constexpr double kFar = 2;  // a live scale this many times the frozen one, or its inverse, is worth a word

std::string signed_interval(const Mean& interval) {
  if (std::isnan(interval.low)) return fmt::format("{:+.4f}", interval.mean);
  return fmt::format("{:+.4f} [{:+.4f}, {:+.4f}]", interval.mean, interval.low, interval.high);
}

std::string title_of(const DenormRun& run) {
  return fmt::format("{} without norms", model_name(run.base));
}

size_t norms_of(const denorm::Removals& removals) {
  std::set<Site> norms;
  for (const denorm::Removal& removal : removals) norms.insert(removal.path.site);
  return norms.size();
}

double mean_loss(const DenormArm& arm) {
  return arm.losses.empty() ? report::not_measured : mean_of_runs(arm.losses).mean;
}

// The arm that others are compared with: fine-tuned with its norms, else as it came.
const DenormArm& control_of(const DenormOutcome& outcome) {
  const DenormArm* vanilla = outcome.find("vanilla");
  return vanilla && !vanilla->losses.empty() ? *vanilla : *outcome.find("base");
}

std::optional<Mean> against(const DenormArm* arm, const DenormArm* other) {
  if (!arm || !other || arm->losses.empty() || other->losses.empty()) return std::nullopt;
  return mean_difference(arm->losses, other->losses);
}

int64_t first_removal(const DenormArm& arm) {
  return arm.gone.empty() ? 0 : std::ranges::min(arm.gone, {}, &denorm::Removal::step).step;
}

std::optional<denorm::Spike> spike_of(const DenormArm* arm, const DenormArm* control) {
  if (!arm || !control || !arm->trained || !control->trained) return std::nullopt;
  // Tapering begins to change things where others would take their first norm.
  const int64_t from = arm->name == "taper" ? 0 : first_removal(*arm);
  if (from >= std::ssize(arm->trained->curve)) return std::nullopt;
  return denorm::worst_spike(arm->trained->curve, control->trained->curve, from);
}

// ---- what the sheet of the method asks to be shown, one row each

struct Claim {
  std::string id, what, must, measured, verdict;
};

std::string met(bool holds) {
  return holds ? "met" : "not met";
}

std::vector<Claim> claims_of(const DenormRun& run, const DenormOutcome& outcome) {
  const DenormArm *vanilla = outcome.find("vanilla"), *chosen = outcome.find(run.mode),
                  *staged = outcome.find("staged"), *one_shot = outcome.find("one-shot"),
                  *taper = outcome.find("taper"), *base = outcome.find("base");
  const char* open = "not measured in this run";
  std::vector<Claim> claims;
  const DenormProof& proof = outcome.proof;
  claims.push_back({"A1", "largest difference of a logit, folded against frozen norms",
                    "at most 1e-9 in float64, 1e-4 in float32",
                    fmt::format("{:.1e} in float64, {:.1e} in float32 (logits up to {:.1f})", proof.float64,
                                proof.float32, proof.largest_logit),
                    std::isnan(proof.float64) ? open : met(proof.float64 <= 1e-9 && proof.float32 <= 1e-4)});
  claims.push_back({"A2", "norms left in the folded model", "none",
                    proof.norms_left.empty() ? "none in what was written, by its blueprint"
                                             : fmt::format("{}", fmt::join(proof.norms_left, ", ")),
                    std::isnan(proof.float64) ? open : met(proof.norms_left.empty())});
  const auto cost = against(chosen, vanilla);
  Claim a3{"A3", fmt::format("validation loss, {} less vanilla", run.mode),
           "at most +0.05 nats and 3 %, upper end at most +0.08", open, open};
  if (cost) {
    const double share = cost->mean / mean_loss(*vanilla);
    a3.measured = fmt::format("{} nats, {:+.2f} %", signed_interval(*cost), 100 * share);
    a3.verdict = met(cost->mean <= 0.05 && share <= 0.03 && !(cost->high > 0.08));
  }
  claims.push_back(a3);
  Claim a4{"A4", "validation loss, all norms frozen at once and not fine-tuned, less base",
           "at least +0.10 nats", open, open};
  if (const auto harm = against(outcome.find("frozen"), base)) {
    a4.measured = signed_interval(*harm) + " nats";
    a4.verdict = met(harm->mean >= 0.10);
  }
  claims.push_back(a4);
  Claim a5{"A5", "worst training loss of one step over vanilla's worst, staged", "at most half of one-shot's",
           open, open};
  const auto slow = spike_of(staged, vanilla), sudden = spike_of(one_shot, vanilla);
  if (slow && sudden) {
    a5.measured = fmt::format("{:+.3f} against {:+.3f}", slow->over_worst, sudden->over_worst);
    a5.verdict = met(slow->over_worst <= 0.5 * sudden->over_worst);
  }
  claims.push_back(a5);
  Claim a6{"A6", "validation loss, one-shot less staged", "none", open, open};
  if (const auto gain = against(one_shot, staged)) {
    a6.measured = signed_interval(*gain) + " nats";
    a6.verdict = "reported";
  }
  if (const auto gain = against(taper, staged))
    a6.measured += fmt::format("{}taper less staged {} nats", a6.verdict == "reported" ? "; " : "",
                               signed_interval(*gain)),
        a6.verdict = "reported";
  claims.push_back(a6);

  Claim a7{"A7", "error of direct logit attribution, mean over heads and over all",
           "at most 0.01 % without norms, at least 5 % with", open, open};
  Claim a8{"A8", "a neuron's effect with the last scale made again and with it kept", "equal to 1e-6", open,
           open};
  Claim a9{"A9", "largest loss of a token on strange text",
           "at most 10 times vanilla's, or said in the summary", open, open};
  Claim a10{"A10", "entropy and calibration error: base, control, norm-free", "reported", open, open};
  const DenormArm& control = control_of(outcome);
  if (chosen && chosen->analyses && control.analyses) {
    const Attribution &without = chosen->analyses->attribution, &with = control.analyses->attribution;
    a7.measured =
        fmt::format("{:.4f} % and {:.4f} % without, {:.1f} % and {:.1f} % with", 100 * without.head_mean,
                    100 * without.global.value, 100 * with.head_mean, 100 * with.global.value);
    a7.verdict = met(without.head_mean <= 1e-4 && without.global.value <= 1e-4 && with.head_mean >= 0.05);
    double apart = 0;
    for (const NeuronEffects::Neuron& neuron : chosen->analyses->neurons.neurons)
      apart = std::max(apart, std::abs(neuron.total.cross_entropy - neuron.frozen.cross_entropy));
    a8.measured =
        fmt::format("{:.1e} apart over {} neurons", apart, chosen->analyses->neurons.neurons.size());
    a8.verdict = met(apart <= 1e-6);
    std::vector<std::string> tails;
    bool far = false;
    const auto tail = [&](const char* name, const std::optional<LossTail>& own,
                          const std::optional<LossTail>& other) {
      if (!own || !other) return;
      tails.push_back(fmt::format("{}: {:.1f} against {:.1f}", name, own->most, other->most));
      far = far || !(own->most <= 10 * other->most);
    };
    tail("strange text", chosen->analyses->strange, control.analyses->strange);
    tail("unseen tokens", chosen->analyses->unseen, control.analyses->unseen);
    if (!tails.empty()) {
      a9.measured = fmt::format("{}", fmt::join(tails, "; "));
      a9.verdict = far ? "flagged in the summary" : "met";
    }
    const auto pair = [](const DenormArm& arm) {
      return arm.analyses ? fmt::format("{:.3f} / {:.4f}", arm.analyses->calibration.entropy,
                                        arm.analyses->calibration.error)
                          : std::string("-");
    };
    a10.measured = fmt::format("{}, {}, {}", pair(*base), pair(control), pair(*chosen));
    a10.verdict = "reported";
  }
  for (Claim* claim : {&a7, &a8, &a9, &a10}) claims.push_back(*claim);
  Claim a11{"A11", "speed, folded against with norms", "reported; claimed where the interval is above 1",
            open, open};
  if (!outcome.speeds.empty()) {
    std::vector<std::string> said;
    for (const Speed& speed : outcome.speeds)
      said.push_back(fmt::format("{}: {:.3f}x [{:.3f}, {:.3f}]", speed.what, std::exp(speed.log_ratio.mean),
                                 std::exp(speed.log_ratio.low), std::exp(speed.log_ratio.high)));
    a11.measured = fmt::format("{}", fmt::join(said, "; "));
    a11.verdict = "reported";
  }
  claims.push_back(a11);
  return claims;
}

report::Table claims_table(const DenormRun& run, const DenormOutcome& outcome) {
  report::Table table{.title = "Acceptance figures",
                      .columns = {{.name = "", .kind = Column::Kind::label},
                                  {.name = "figure", .kind = Column::Kind::prose},
                                  {.name = "accepted", .kind = Column::Kind::prose},
                                  {.name = "measured", .kind = Column::Kind::prose},
                                  {.name = "verdict", .kind = Column::Kind::label}}};
  for (const Claim& claim : claims_of(run, outcome)) {
    table.rows.push_back({.cells = {claim.id, claim.what, claim.must, claim.measured, claim.verdict},
                          .mark = claim.verdict == "not met" ? "not met" : ""});
  }
  table.note =
      "A1, A2, A7 and A8 are identities that must hold to rounding; the others are findings, and one seed "
      "says "
      "little about them. Intervals are 95 % over validation samples, all arms on the same ones.";
  return table;
}

report::Table arms_table(const DenormRun& run, const DenormOutcome& outcome) {
  const DenormArm& control = control_of(outcome);
  report::Table table{
      .title = "Validation loss, nats a token",
      .columns = {{.name = "arm", .kind = Column::Kind::label},
                  {.name = "what it is", .kind = Column::Kind::prose},
                  {.name = "loss", .kind = Column::Kind::number, .format = {Notation::fixed, 4, ""}},
                  {.name = "less " + control.name, .kind = Column::Kind::label},
                  {.name = "of it, %", .kind = Column::Kind::number, .format = {Notation::fixed, 2, ""}}}};
  for (const DenormArm& arm : outcome.arms) {
    const double loss = mean_loss(arm);
    report::TableRow row{.cells = {arm.name, arm.title, loss}};
    const auto apart = against(&arm, &control);
    if (arm.losses.empty())
      row.cells.insert(row.cells.end(), {arm.trained && arm.trained->broke_at
                                             ? fmt::format("broke at step {}", arm.trained->broke_at)
                                             : std::string("-"),
                                         Cell()});
    else if (&arm == &control)
      row.cells.insert(row.cells.end(), {Cell("0"), Cell(0.0)});
    else
      row.cells.insert(row.cells.end(),
                       {Cell(signed_interval(*apart)), Cell(100 * apart->mean / mean_loss(control))});
    if (arm.name == run.mode) row.mark = "written";
    table.rows.push_back(std::move(row));
  }
  table.note = fmt::format(
      "{} validation samples, the same for all arms; differences are taken sample by sample, with a 95 % "
      "interval over samples.{}",
      outcome.find("base")->losses.size(),
      outcome.find("vanilla") ? ""
                              : " Without --control the gain from fine-tuning and the cost of removal cannot "
                                "be told apart.");
  return table;
}

report::Table spikes_table(const DenormOutcome& outcome) {
  const DenormArm* control = outcome.find("vanilla");
  report::Table table{
      .title = "Spikes of the training loss",
      .columns = {
          {.name = "arm", .kind = Column::Kind::label},
          {.name = "worst step", .kind = Column::Kind::number, .format = report::whole()},
          {.name = "its loss", .kind = Column::Kind::number, .format = {Notation::fixed, 4, ""}},
          {.name = "over vanilla's worst", .kind = Column::Kind::number, .format = {Notation::fixed, 4, ""}},
          {.name = "most over the same step",
           .kind = Column::Kind::number,
           .format = {Notation::fixed, 4, ""}},
          {.name = "at", .kind = Column::Kind::number, .format = report::whole()}}};
  for (const DenormArm& arm : outcome.arms) {
    if (!arm.norm_free || !arm.trained) continue;
    if (const auto spike = spike_of(&arm, control ? control : &arm)) {
      const double none = report::not_measured;
      table.rows.push_back({.cells = {arm.name, static_cast<double>(spike->step), spike->loss,
                                      control ? spike->over_worst : none, control ? spike->over_same : none,
                                      control ? static_cast<double>(spike->over_same_step) : none}});
    }
  }
  table.note =
      "Steps before the first removal do not count. Both arms see the same data at the same step, so the "
      "excess "
      "over the same step is that of the removal alone.";
  return table;
}

// Removals of one arm as points on its loss.
report::Curve removal_marks(const DenormArm& arm) {
  report::Curve marks{.name = "a norm goes"};
  std::set<int64_t> steps;
  for (const denorm::Removal& removal : arm.gone) steps.insert(removal.step);
  for (int64_t step : steps) {
    if (step < 1 || step > std::ssize(arm.trained->curve)) continue;
    marks.x.push_back(static_cast<double>(step));
    marks.y.push_back(arm.trained->curve[static_cast<size_t>(step - 1)].loss);
  }
  return marks;
}

std::vector<Arm> trained_arms(const DenormOutcome& outcome) {
  std::vector<Arm> arms;
  for (const DenormArm& arm : outcome.arms) {
    if (arm.trained) arms.push_back({arm.name, *arm.trained});
  }
  return arms;
}

// Training losses of all arms with the removals of the written one, and validation losses.
std::pair<report::Series, report::Series> losses_of(const DenormRun& run, const DenormOutcome& outcome) {
  report::Series series = loss_series(trained_arms(outcome));
  report::Series validation{.title = "Validation loss against steps", .x = series.x, .y = series.y};
  series.title = "Training loss against steps";
  const auto is_validation = [](const report::Curve& curve) { return curve.name.ends_with("validation"); };
  for (report::Curve& curve : series.curves) {
    const std::string arm = curve.name.substr(0, curve.name.find(','));
    curve.role = arm == run.mode || outcome.find(arm) == nullptr ? report::Curve::Role::method
                                                                 : report::Curve::Role::baseline;
    if (is_validation(curve)) validation.curves.push_back(curve);
  }
  std::erase_if(series.curves, is_validation);
  if (run.mode != "taper") {
    if (report::Curve marks = removal_marks(*outcome.find(run.mode)); !marks.x.empty())
      series.curves.push_back(std::move(marks));
  }
  return {std::move(series), std::move(validation)};
}

// Of the written arm and its control: more would not be told apart in letters.
report::Series losses_for_terminal(const DenormRun& run, const DenormOutcome& outcome) {
  report::Series series = losses_of(run, outcome).first;
  std::erase_if(series.curves, [&](const report::Curve& curve) {
    return curve.name != run.mode && curve.name != "vanilla";
  });
  return series;
}

// Rows are norms, columns moments of the run.
std::optional<report::HeatMap> scales_map(const DenormRun& run, const DenormArm& arm) {
  const denorm::ScaleHistory& history = arm.history;
  if (history.steps.empty()) return std::nullopt;
  const Blueprint& blueprint = run.base.blueprint;
  const std::vector<NormPath> paths = blueprint.norm_paths();
  report::HeatMap map{.title = fmt::format("Scale of each norm over the run, {}", arm.name),
                      .column_axis = "step",
                      .row_axis = "norm",
                      .value_name = "running mean of what a token is divided by",
                      .format = {Notation::significant, 3, ""},
                      .scale = report::Scale::logarithmic};
  std::vector<size_t> moments;
  const size_t most = 30, count = history.steps.size();
  for (size_t i = 0; i < std::min(most, count); ++i)
    moments.push_back(count <= most ? i : i * (count - 1) / (most - 1));
  for (size_t m : moments) map.columns.push_back(std::to_string(history.steps[m]));
  for (size_t p = 0; p < paths.size(); ++p) {
    map.rows.push_back(blueprint.label(paths[p]));
    const auto removal = std::ranges::find(arm.gone, paths[p], &denorm::Removal::path);
    bool marked = false;
    for (size_t m : moments) {
      const bool frozen = removal != arm.gone.end() && history.steps[m] >= removal->step;
      map.cells.push_back({.value = history.live[m][p], .chosen = frozen && !marked});
      marked = marked || frozen;
    }
  }
  map.note =
      "Marked: the first moment shown at which the norm was gone. What follows is what it would divide by.";
  return map;
}

report::Table drift_table(const DenormRun& run, const DenormArm& arm) {
  const Blueprint& blueprint = run.base.blueprint;
  const std::vector<NormPath> paths = blueprint.norm_paths();
  report::Table table{
      .title = "Constants, and how far the scales have moved since",
      .columns = {
          {.name = "norm", .kind = Column::Kind::label},
          {.name = "gone after step", .kind = Column::Kind::number, .format = report::whole()},
          {.name = "divides by", .kind = Column::Kind::number},
          {.name = "live over frozen", .kind = Column::Kind::number, .format = {Notation::fixed, 3, ""}}}};
  for (size_t p = 0; p < paths.size(); ++p) {
    const auto removal = std::ranges::find(arm.gone, paths[p], &denorm::Removal::path);
    if (removal == arm.gone.end()) continue;
    double scale = report::not_measured;
    for (const Edit& edit : arm.edits) {
      const auto& freeze = std::get<FreezeNorm>(edit);
      if (freeze.site == blueprint.norm_site(paths[p]) && freeze.reader == paths[p].reader)
        scale = freeze.scale;
    }
    const double ratio = arm.drifts[p];
    table.rows.push_back(
        {.cells = {blueprint.label(paths[p]), static_cast<double>(removal->step), scale, ratio},
         .mark = ratio > kFar || ratio < 1 / kFar ? "far" : ""});
  }
  table.note = "Live: the running mean of the scale that the norm would divide by, at the end of the run.";
  return table;
}

std::vector<std::string> warnings_of(const DenormRun& run, const DenormOutcome& outcome) {
  std::vector<std::string> warnings;
  const std::vector<NormPath> paths = run.base.blueprint.norm_paths();
  for (const DenormArm& arm : outcome.arms) {
    for (size_t p = 0; p < arm.drifts.size(); ++p) {
      const double ratio = arm.drifts[p];
      if (ratio > 0 && (ratio > kFar || ratio < 1 / kFar))
        warnings.push_back(fmt::format("{}: the scale at {} is {:.2f} times the constant that took its place",
                                       arm.name, run.base.blueprint.label(paths[p]), ratio));
    }
    for (const denorm::Wait& wait : arm.waits)
      warnings.push_back(fmt::format("{}: the loss had jumped, so {} and all after it waited {} steps{}",
                                     arm.name, run.base.blueprint.label(wait.path), wait.steps,
                                     wait.given_up ? " and then went all the same, for want of time" : ""));
    if (arm.trained) {
      if (const std::string said = scale_loss_said(*arm.trained); !said.empty())
        warnings.push_back(arm.name + ": " + said);
    }
    if (arm.trained && arm.trained->broke_at)
      warnings.push_back(fmt::format("{}: {} was no number any more at step {}; the arm ended there",
                                     arm.name, arm.trained->broke_on, arm.trained->broke_at));
  }
  std::vector<lamina::Arm> analysed;
  const DenormArm &control = control_of(outcome), *chosen = outcome.find(run.mode);
  for (const DenormArm* arm : {&control, chosen}) {
    if (arm->analyses) analysed.push_back({arm->name, *arm->analyses});
  }
  if (analysed.size() == 2) {
    for (std::string& warning : analysis_warnings(analysed)) warnings.push_back(std::move(warning));
  }
  return warnings;
}

report::Verdict verdict_of(const DenormRun& run, const DenormOutcome& outcome) {
  const DenormArm &base = *outcome.find("base"), &chosen = *outcome.find(run.mode);
  using Better = report::Figure::Better;
  report::Verdict verdict;
  const auto cost = against(&chosen, outcome.find("vanilla"));
  verdict.sentence = fmt::format(
      "{} norms ({} readers) are gone{}: validation loss {:.4f} nats, {}.", norms_of(chosen.gone),
      chosen.gone.size(),
      outcome.proof.norms_left.empty() && !std::isnan(outcome.proof.float64) ? " and folded away" : "",
      mean_loss(chosen),
      cost ? fmt::format("{} over the same training with norms", signed_interval(*cost))
           : fmt::format("where the model as it came has {:.4f} (no control was trained)", mean_loss(base)));
  const std::string how = fmt::format("{} samples of {} tokens: {}", base.losses.size(), run.data.length,
                                      run.data.validation_said);
  verdict.figures.push_back({.name = "Validation loss",
                             .before = mean_loss(base),
                             .after = mean_loss(chosen),
                             .format = {Notation::fixed, 4, "nats"},
                             .better = Better::lower,
                             .measured = how});
  if (const DenormArm* vanilla = outcome.find("vanilla"); vanilla && !vanilla->losses.empty())
    verdict.figures.push_back({.name = "Against fine-tuning with norms",
                               .before = mean_loss(*vanilla),
                               .after = mean_loss(chosen),
                               .format = {Notation::fixed, 4, "nats"},
                               .better = Better::lower,
                               .measured = "same data, steps, order and seed",
                               .uncertainty = (cost->high - cost->low) / 2});
  verdict.figures.push_back({.name = "Norm readers",
                             .before = static_cast<double>(run.base.blueprint.norm_paths().size()),
                             .after = static_cast<double>(outcome.proof.norms_left.size()),
                             .format = report::whole(),
                             .better = Better::lower,
                             .measured = "by the blueprint of what was written"});
  verdict.figures.push_back({.name = "Parameters",
                             .before = static_cast<double>(outcome.parameters_before),
                             .after = static_cast<double>(outcome.parameters_after),
                             .format = {Notation::scaled, 4, ""},
                             .better = Better::neither,
                             .measured = "a tied head counts once; folded, it stands alone"});
  for (const Speed& speed : outcome.speeds)
    verdict.figures.push_back({.name = "Speed: " + speed.what,
                               .before = speed.before,
                               .after = speed.after,
                               .format = {Notation::significant, 3, "tokens/s"},
                               .better = Better::higher,
                               .measured = "both in turn, medians"});
  return verdict;
}

std::vector<std::string> limits_of(const DenormRun& run, const DenormOutcome& outcome) {
  std::vector<std::string> limits = {
      "One run is one seed: an interval over validation samples does not say what another seed would give.",
      "The published costs are of 124 M to 1.5 B parameters (+0.067, +0.025, +0.014 and +0.025 nats over "
      "fine-tuning with norms, arXiv 2507.02559); TaperNorm reports +0.7 to +1.8 % at 1 to 30 M.",
      "Tokens that the training text lacks can have a loss without bound once nothing normalises: read the "
      "tails, not the mean alone."};
  const DenormArm *staged = outcome.find("staged"), *one_shot = outcome.find("one-shot");
  if (const auto gain = against(one_shot, staged); gain && gain->mean <= 0)
    limits.emplace_back("Removing norms one by one ended no lower here than removing all at once.");
  if (!outcome.find("vanilla"))
    limits.emplace_back("There was no control, so what fine-tuning alone gives is not known.");
  for (std::string& warning : warnings_of(run, outcome)) limits.push_back(std::move(warning));
  return limits;
}

report::Section files_section(const std::vector<Written>& written) {
  report::Table table{
      .title = "Files written",
      .columns = {{.name = "form", .kind = Column::Kind::label},
                  {.name = "where", .kind = Column::Kind::code},
                  {.name = "weights", .kind = Column::Kind::number, .format = {Notation::scaled, 3, "B"}},
                  {.name = "opens in", .kind = Column::Kind::prose}}};
  for (const Written& entry : written)
    table.rows.push_back({.cells = {entry.request.text(), entry.path.string(),
                                    static_cast<double>(entry.weight_bytes), entry.opens_in}});
  return {.title = "Open it elsewhere", .elements = {table}};
}

report::Report report_of(const DenormRun& run, const DenormOutcome& outcome,
                         const std::vector<Written>& written) {
  const DenormArm& chosen = *outcome.find(run.mode);
  report::Report report{.title = title_of(run),
                        .date = today(),
                        .version = std::string(version_of()),
                        .command = run.command,
                        .verdict = verdict_of(run, outcome),
                        .sections = {}};
  report.sections.push_back({.title = "The arms", .elements = {arms_table(run, outcome)}});
  report::Section curves = curve_section(trained_arms(outcome), "The curves");
  auto [training, validation] = losses_of(run, outcome);
  curves.elements.front() = std::move(training);
  if (!validation.curves.empty()) curves.elements.insert(curves.elements.begin() + 1, std::move(validation));
  if (report::Table spikes = spikes_table(outcome); !spikes.rows.empty())
    curves.elements.insert(curves.elements.begin() + 1, std::move(spikes));
  report.sections.push_back(std::move(curves));
  report::Section scales{.title = "The norms", .elements = {}};
  for (const DenormArm& arm : outcome.arms) {
    if (const auto map = scales_map(run, arm)) scales.elements.push_back(*map);
  }
  scales.elements.push_back(drift_table(run, chosen));
  report.sections.push_back(std::move(scales));
  report.sections.push_back(
      {.title = "Figures that were to be met", .elements = {claims_table(run, outcome)}});
  std::vector<lamina::Arm> analysed;
  for (const DenormArm& arm : outcome.arms) {
    if (arm.analyses) analysed.push_back({arm.name, *arm.analyses});
  }
  if (!analysed.empty()) {
    for (report::Section& section : analysis_sections(analysed))
      report.sections.push_back(std::move(section));
  }
  if (!outcome.prompts.empty())
    report.sections.push_back({.title = "What to look at yourself",
                               .elements = {answers_table(outcome.prompts, outcome.before, outcome.after)}});
  Settings rows;
  for (const auto& [key, value] : run.plan.provenance.at("method").items())
    rows.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  for (auto& row : settings_of(run.training)) rows.push_back(std::move(row));
  rows.emplace_back("model", fmt::format("{} (sha256 {})", model_name(run.base), run.model_sha256));
  rows.emplace_back("training text", run.data.train_said);
  rows.emplace_back("validation text", run.data.validation_said);
  report.sections.push_back({.title = "How it was done", .elements = {settings_table(rows)}, .folded = true});
  report.sections.push_back(
      {.title = "What does not hold",
       .elements = {report::Text{.text = fmt::format("{}", fmt::join(limits_of(run, outcome), "\n\n")),
                                 .form = report::Text::Form::list}}});
  report.sections.push_back(files_section(written));
  return report;
}

}  // namespace

std::string scale_loss_said(const Trained& trained) {
  if (trained.curve.empty()) return "";
  const StepRecord& first = trained.curve.front();
  const auto scale = first.terms.find("scale");
  if (scale == first.terms.end() || !(scale->second > first.loss)) return "";
  return fmt::format(
      "at the first step the loss on the last residual's scale was {:.1f} times that on the text; a smaller "
      "--lambda would leave the text its say",
      scale->second / first.loss);
}

void write_denorm_results(const DenormRun& run, const DenormOutcome& outcome,
                          const std::vector<Written>& written, const Opened& healed, const fs::path& folder) {
  const std::string plan = to_json(run.plan).dump(2) + "\n";
  const report::Report report = report_of(run, outcome, written);
  const std::string html = report::to_html(report), json = report::to_json(report).dump(2) + "\n";
  if (run.mode != "taper")
    write_file(folder / "removals.json",
               denorm::to_json(outcome.find(run.mode)->gone, run.base.blueprint).dump(1) + "\n");
  write_file(folder / "arms.json", denorm_json(run, outcome, written, folder).at("arms").dump(1) + "\n");
  std::set<fs::path> folders = {folder};
  for (const Written& entry : written) {
    report::ModelCard card = card_of(healed, run.plan, entry, run.command);
    card.tags.emplace_back("denorm");
    card.summary = report.verdict.sentence;
    card.figures = report.verdict.figures;
    card.limits = limits_of(run, outcome);
    write_file(folder / entry.path / "README.md", report::to_markdown(card));
    folders.insert((folder / entry.path / "").parent_path());
  }
  for (const fs::path& each : folders) {
    write_file(each / "plan.json", plan);
    write_file(each / "report.html", html);
    write_file(each / "report.json", json);
  }
}

std::string denorm_summary(const DenormRun& run, const DenormOutcome& outcome,
                           const std::vector<Written>& written, const fs::path& target) {
  const report::Style style = style_of(STDOUT_FILENO);
  std::string text = title_of(run) + "\n\n" + report::terminal_verdict(verdict_of(run, outcome), style);
  text += "\n" + report::terminal_chart(losses_for_terminal(run, outcome), style);
  text += "\n" + report::terminal_table(arms_table(run, outcome), style);
  if (report::Table spikes = spikes_table(outcome); !spikes.rows.empty())
    text += "\n" + report::terminal_table(spikes, style);
  text += "\n";
  for (const Claim& claim : claims_of(run, outcome))
    text += fmt::format("{:<4} {:<9} {}: {}\n", claim.id,
                        claim.verdict.starts_with("not meas") ? "-"
                        : claim.verdict.starts_with("flag")   ? "flagged"
                                                              : claim.verdict,
                        claim.what, claim.measured);
  for (const std::string& warning : warnings_of(run, outcome)) text += fmt::format("\nwarning: {}", warning);
  text += "\n";
  for (const Written& entry : written) {
    text += fmt::format("{:<16} {:>8}  {}\n{:<27}opens in {}\n", entry.request.text(),
                        human_bytes(entry.weight_bytes), (target / entry.path).lexically_normal().string(),
                        "", entry.opens_in);
  }
  return text + fmt::format("report           {}\nplan             {}\n", (target / "report.html").string(),
                            (target / "plan.json").string());
}

Json denorm_json(const DenormRun& run, const DenormOutcome& outcome, const std::vector<Written>& written,
                 const fs::path& target) {
  const Blueprint& blueprint = run.base.blueprint;
  Json json = {{"mode", run.mode}, {"model_sha256", run.model_sha256}, {"arms", Json::array()}};
  for (const DenormArm& arm : outcome.arms) {
    Json entry = {{"arm", arm.name},
                  {"loss", arm.losses.empty() ? Json() : Json(mean_loss(arm))},
                  {"losses", arm.losses}};
    for (const DenormArm* other : {outcome.find("base"), outcome.find("vanilla"), outcome.find("staged")}) {
      const auto apart = other == &arm ? std::nullopt : against(&arm, other);
      if (apart)
        entry["less_" + other->name] = {{"mean", apart->mean}, {"low", apart->low}, {"high", apart->high}};
    }
    if (arm.norm_free && arm.trained) {
      entry["gone"] = denorm::to_json(arm.gone, blueprint)["removals"];
      entry["waits"] = Json::array();
      for (const denorm::Wait& wait : arm.waits)
        entry["waits"].push_back({{"step", wait.step},
                                  {"steps", wait.steps},
                                  {"norm", blueprint.label(wait.path)},
                                  {"given_up", wait.given_up}});
      entry["drift"] = Json::object();
      const std::vector<NormPath> paths = blueprint.norm_paths();
      for (size_t p = 0; p < arm.drifts.size(); ++p)
        entry["drift"][blueprint.label(paths[p])] = arm.drifts[p];
      if (const auto spike = spike_of(&arm, outcome.find("vanilla")))
        entry["spike"] = {{"step", spike->step},
                          {"loss", spike->loss},
                          {"over_worst", spike->over_worst},
                          {"over_same", spike->over_same},
                          {"over_same_step", spike->over_same_step}};
      entry["scales"] = {{"steps", arm.history.steps}, {"live", arm.history.live}};
    }
    if (arm.trained) entry["curve"] = curve_json(*arm.trained);
    if (arm.analyses) entry["analyses"] = lamina::to_json(*arm.analyses);
    json["arms"].push_back(std::move(entry));
  }
  json["claims"] = Json::array();
  for (const Claim& claim : claims_of(run, outcome))
    json["claims"].push_back({{"id", claim.id},
                              {"figure", claim.what},
                              {"accepted", claim.must},
                              {"measured", claim.measured},
                              {"verdict", claim.verdict}});
  json["proof"] = {{"float32", outcome.proof.float32},
                   {"float64", outcome.proof.float64},
                   {"largest_logit", outcome.proof.largest_logit},
                   {"tokens", outcome.proof.tokens},
                   {"norms_left", outcome.proof.norms_left}};
  json["speed"] = Json::array();
  for (const Speed& speed : outcome.speeds)
    json["speed"].push_back({{"what", speed.what},
                             {"before", speed.before},
                             {"after", speed.after},
                             {"ratio", std::exp(speed.log_ratio.mean)},
                             {"low", std::exp(speed.log_ratio.low)},
                             {"high", std::exp(speed.log_ratio.high)}});
  json["warnings"] = warnings_of(run, outcome);
  json["plan"] = to_json(run.plan);
  json["written"] = Json::array();
  for (const Written& entry : written)
    json["written"].push_back({{"form", entry.request.text()},
                               {"path", shown((target / entry.path).lexically_normal())},
                               {"weight_bytes", entry.weight_bytes}});
  return json;
}

}  // namespace lamina::cli
