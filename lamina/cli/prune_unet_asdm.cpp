// lamina prune --method asdm: the compute-first cut of the outer stages, windows for attention over large
// maps, kernels inherited from ResNets that go. Whatever the budget is in, the plan is timed as it will be
// written, beside the whole model.
#include <algorithm>
#include <cmath>
#include <map>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/variants.h"
#include "lamina/cli/prune_unet_search.h"
#include "lamina/eval/step_times.h"
#include "lamina/methods/asdm/regional.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

namespace {

constexpr size_t kBatches = 8;  // that windows are priced on
constexpr int kRounds = 3;      // of proposals, where a budget of milliseconds is missed

// A plan's name in the journal.
std::string name_of(const Plan& plan) {
  return "edits " + sha256_hex(to_json(Plan{.edits = plan.edits}).at("edits").dump());
}

Opened carried_out(const Subject& subject, const Plan& plan) {
  return declare(apply(subject.opened().checkpoint, subject.blueprint(), plan));
}

// What windows at each place change, by the criterion that cuts are judged by.
std::vector<double> losses_of(const UnetTask& task, laptop::Criterion criterion,
                              std::span<const Regional> edits, std::span<const Inputs> samples,
                              std::vector<asdm::Preview>& previews) {
  std::vector<double> losses;
  if (criterion == laptop::Criterion::trajectory) {
    Trajectories trajectories(task, {}, Trajectories::Prompts::tried);
    for (size_t i = 0; i < edits.size(); ++i)
      losses.push_back(trajectories.of(previews[i], "windows at " + edits[i].site));
    return losses;
  }
  constexpr const char* kChanges = "windows";
  if (!task.journal.find(kChanges))
    task.journal.add(kChanges, asdm::changes_by(task.subject.model(), edits, samples, task.watch));
  const std::vector<double> times = task.times(task.data.scoring);
  for (const Json& of_samples : *task.journal.find(kChanges)) {
    const auto values = of_samples.get<std::vector<double>>();
    losses.push_back(laptop::mean(laptop::weighed(criterion, values, std::span(times).first(values.size()),
                                                  task.subject.schedule))
                         .value);
  }
  return losses;
}

// Windows at every large map: what they do to the answer, and the milliseconds that they save.
std::vector<asdm::Choice> priced_windows(const UnetTask& task, laptop::Criterion criterion) {
  const Model& model = task.subject.model();
  std::vector<Inputs> samples;
  for (const laptop::CalibrationBatch& batch : task.data.scoring.batches) {
    if (samples.size() < kBatches) samples.push_back(batch.inputs);
  }
  const std::vector<Regional> edits =
      asdm::regional_at(model, samples.front(), windows_of(task.options), task.options.regional_side);
  if (edits.empty()) return {};
  constexpr const char* kSaved = "milliseconds of windows";
  std::vector<asdm::Preview> previews;
  for (const Regional& edit : edits) previews.emplace_back(model.blueprint(), Plan{.edits = {edit}});
  if (!task.journal.find(kSaved)) {
    std::vector<StepChange> steps;
    for (size_t i = 0; i < edits.size(); ++i)
      steps.push_back({.site = model.blueprint().site(edits[i].site), .tap = &previews[i]});
    task.journal.add(kSaved, milliseconds_saved(model, steps, samples.front(),
                                                static_cast<int>(task.options.repeats), kSaved, task.watch));
  }
  const Json& saved = *task.journal.find(kSaved);
  const std::vector<double> losses = losses_of(task, criterion, edits, samples, previews);
  std::vector<asdm::Choice> choices;
  for (size_t i = 0; i < edits.size(); ++i)
    choices.push_back({.site = task.subject.blueprint().site(edits[i].site),
                       .windows = edits[i].windows,
                       .loss = losses[i],
                       .milliseconds = saved.at(i).get<double>()});
  return choices;
}

// Milliseconds of a pass as the sum of the parts says.
std::function<double(const Blueprint&)> summed_milliseconds(const UnetFound& found) {
  std::map<int, double> parts, windows;
  for (size_t i = 0; i < found.candidates.size(); ++i)
    parts[found.candidates[i].index] = found.times.saved[i];
  for (const asdm::Choice& choice : found.windows) windows[choice.site.index] = choice.milliseconds;
  return [whole = found.times.whole, parts = std::move(parts),
          windows = std::move(windows)](const Blueprint& blueprint) {
    double milliseconds = whole;
    for (const auto& [part, saved] : parts)
      if (!blueprint.part({part}).present) milliseconds -= saved;
    for (const auto& [part, saved] : windows)
      if (blueprint.part({part}).present && blueprint.part({part}).windows) milliseconds -= saved;
    return milliseconds;
  };
}

// The whole model, the plan as it will be written, and that without inherited kernels, by turns.
Json measured_pass(const UnetTask& task, const Plan& plan) {
  Plan bare = plan;
  std::erase_if(bare.edits, [](const Edit& edit) { return std::holds_alternative<Inherit>(edit); });
  const bool heirs = bare.edits.size() < plan.edits.size();
  const std::unique_ptr<Model> written = build_model(carried_out(task.subject, plan));
  const std::unique_ptr<Model> without = heirs ? build_model(carried_out(task.subject, bare)) : nullptr;
  std::vector<const Model*> models = {&task.subject.model(), written.get()};
  if (heirs) models.push_back(without.get());
  const PassTurns turns = passes_by_turns(models, task.data.scoring.batches[0].inputs,
                                          static_cast<int>(task.options.repeats), task.watch);
  Json json = {{"whole", turns.milliseconds[0]},
               {"written", turns.milliseconds[1]},
               {"share", turns.shares[1]},
               {"heirs", nullptr}};
  if (heirs) json["heirs"] = (turns.shares[1] - turns.shares[2]) * turns.milliseconds[0];
  return json;
}

UnetPass pass_of(const UnetTask& task, const Plan& plan) {
  const std::string key = "pass of " + name_of(plan);
  if (!task.journal.find(key)) task.journal.add(key, measured_pass(task, plan));
  const Json& done = *task.journal.find(key);
  return {.whole = done.at("whole").get<double>(),
          .written = done.at("written").get<double>(),
          .share = done.at("share").get<double>(),
          .heirs = done.at("heirs").is_null() ? report::not_measured : done.at("heirs").get<double>()};
}

std::vector<asdm::Choice> choices_of(const UnetTask& task, const UnetFound& found) {
  std::vector<asdm::Choice> choices;
  if (task.options.cuts) {
    for (size_t i = 0; i < found.candidates.size(); ++i)
      choices.push_back(
          {.site = found.candidates[i], .loss = found.values[i], .milliseconds = found.times.saved[i]});
  }
  choices.insert(choices.end(), found.windows.begin(), found.windows.end());
  return choices;
}

std::vector<asdm::Round> rounds_of(const UnetTask& task, const UnetFound& found) {
  const size_t axis = found.least[2] > 0 ? 2 : 1;
  const auto whole = static_cast<double>(found.prices.whole[axis]);
  const asdm::ProposeOptions options{.keep = 1 - static_cast<double>(found.least[axis]) / whole,
                                     .outer = static_cast<int>(task.options.outer),
                                     .cut = task.options.cuts,
                                     .regional = task.options.regional,
                                     .inherit = task.options.experts,
                                     .inheritance = inheritance_of(task.options)};
  const std::vector<asdm::Choice> choices = choices_of(task, found);
  const auto macs = [&](const Blueprint& blueprint) {
    return unet::macs(task.subject.config, blueprint, task.shape()).total();
  };
  std::vector<asdm::Round> rounds;
  if (axis == 2) {
    rounds = asdm::propose_measured(
        task.subject.blueprint(), choices, summed_milliseconds(found),
        [&](const Plan& plan) { return pass_of(task, plan).share; }, options, kRounds);
  } else {
    rounds.push_back(
        {.keep = options.keep, .proposal = asdm::propose(task.subject.blueprint(), choices, macs, options)});
  }
  if (const asdm::Proposal& first = rounds.front().proposal; axis == 1 && !first.reached)
    fail("--macs: what --method asdm may do here leaves {:.1f} % of the multiply-adds",
         100 * first.cost / first.whole);
  return rounds;
}

UnetPass pass_of(const UnetTask& task, const UnetFound& found, std::span<const asdm::Round> rounds,
                 const Plan& plan) {
  UnetPass pass = pass_of(task, plan);
  if (found.least[2] <= 0) return pass;
  const double keep = rounds[0].keep;
  for (const asdm::Round& round : rounds)
    pass.rounds.push_back(
        {.keep = round.keep, .predicted = round.proposal.cost / round.proposal.whole, .share = round.share});
  pass.missed = std::max(0.0, pass.share - keep);
  return pass;
}

}  // namespace

Windows windows_of(const UnetOptions& options) {
  const Windows windows{.window = options.window,
                        .pool = options.cell,
                        .mix = mix_from_name(options.mix, "--mix"),
                        .log_count = options.log_count,
                        .mask_own = options.mask_own};
  check_windows(windows, fmt::format("--window {} --cell {}", windows.window, windows.pool));
  return windows;
}

asdm::InheritOptions inheritance_of(const UnetOptions& options) {
  return {.gate = gate_from_name(options.gate, "--gate"),
          .reads = reads_from_name(options.router, "--router"),
          .most = options.donors,
          .channels = options.widest};
}

UnetFound choose_asdm(const UnetTask& task, UnetFound found, PlanLosses& losses) {
  if (task.options.regional) found.windows = priced_windows(task, found.criterion);
  const std::vector<asdm::Round> rounds = rounds_of(task, found);
  const Plan& plan = asdm::best_of(rounds, rounds[0].keep).proposal.plan;
  found.pass = pass_of(task, found, rounds, plan);
  std::vector<Site> gone;
  for (const Edit& edit : plan.edits) {
    if (const auto* cut = std::get_if<Cut>(&edit))
      gone.push_back(task.subject.blueprint().site(cut->site));
    else
      found.beside.push_back(edit);
  }
  std::vector<int> removed = indices_of(found.candidates, gone);
  std::ranges::sort(removed);
  found.chosen = row_of(task, found, "chosen", std::move(removed), "any");
  // Windows save multiply-adds, inherited kernels are parameters again, and time was measured.
  const Opened written = carried_out(task.subject, plan);
  const std::vector<int64_t>& whole = found.prices.whole;
  const double macs = unet::macs(task.subject.config, written.blueprint, task.shape()).total();
  found.chosen.saved = {whole[0] - written.blueprint.parameters(),
                        whole[1] - static_cast<int64_t>(macs + 0.5),
                        std::llround(static_cast<double>(whole[2]) * (1 - found.pass->share))};
  losses.measure(found.chosen, *build_model(written), name_of(plan));
  return found;
}

}  // namespace lamina::cli
