#include "lamina/methods/asdm/propose.h"

#include <algorithm>
#include <limits>
#include <map>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::asdm {

namespace {

// A plan that saves this much more than was asked for cuts too much: the sum was wrong, and is corrected.
constexpr double kNear = 0.05;

// How many stages lie between a part's and the nearer end of the walk.
int depth_of(const Blueprint& blueprint, const Part& part) {
  return std::min(part.block, static_cast<int>(blueprint.stages.size()) - 1 - part.block);
}

void carry_out(Blueprint& blueprint, const Choice& choice) {
  Part& part = blueprint.parts[static_cast<size_t>(choice.site.index)];
  if (choice.windows)
    part.windows = choice.windows;
  else
    part.present = false;
}

// What is chosen for each part; a cut takes the place of windows.
using Chosen = std::map<int, const Choice*>;

double cost_of(const Blueprint& blueprint, const Chosen& chosen,
               const std::function<double(const Blueprint&)>& cost) {
  Blueprint changed = blueprint;
  for (const auto& [part, choice] : chosen) carry_out(changed, *choice);
  return cost(changed);
}

// Takes back what the budget holds without, the greatest loss first.
void drop_superfluous(Chosen& chosen, const std::function<bool(const Chosen&)>& holds) {
  std::vector<int> order;
  for (const auto& [part, choice] : chosen) order.push_back(part);
  std::ranges::sort(order, [&](int a, int b) { return chosen.at(a)->loss > chosen.at(b)->loss; });
  for (int part : order) {
    Chosen without = chosen;
    without.erase(part);
    if (holds(without)) chosen = std::move(without);
  }
}

Plan plan_of(const Blueprint& blueprint, const Chosen& chosen, const ProposeOptions& options) {
  Plan plan;
  for (const auto& [part, choice] : chosen) {
    const std::string& path = blueprint.parts[static_cast<size_t>(part)].path;
    if (choice->windows)
      plan.edits.emplace_back(Regional{.site = path, .windows = *choice->windows});
    else
      plan.edits.emplace_back(Cut{path, choice->loss});
  }
  if (!options.inherit) return plan;
  for (Inherit& inherit : heirs(blueprint, plan, options.inheritance))
    plan.edits.emplace_back(std::move(inherit));
  return plan;
}

}  // namespace

std::vector<std::vector<double>> changes_by(const Model& model, std::span<const Regional> edits,
                                            std::span<const Inputs> samples, const Watch& watch) {
  if (samples.empty()) fail("windows are priced on samples, and there is none");
  std::vector<std::vector<double>> changes(edits.size());
  const InferenceMode evaluating;
  double done = 0;
  for (const Inputs& inputs : samples) {
    const Tensor answer = model.run(inputs);
    for (size_t i = 0; i < edits.size(); ++i) {
      if (watch.stop.stop_requested()) throw Stopped{};
      Preview preview(model.blueprint(), {.edits = {edits[i]}});
      const Tensor error = (model.run(inputs, preview) - answer).to(at::kDouble).square().flatten(1).mean(1);
      for (int64_t s = 0; s < error.size(0); ++s) changes[i].push_back(error[s].item<double>());
      watch.report({.phase = "windows",
                    .done = ++done,
                    .total = static_cast<double>(samples.size() * edits.size()),
                    .detail = edits[i].site});
    }
  }
  return changes;
}

Proposal propose(const Blueprint& blueprint, std::span<const Choice> choices,
                 const std::function<double(const Blueprint&)>& cost, const ProposeOptions& options) {
  if (!(options.keep > 0) || options.keep >= 1)
    fail("the share of the cost that may stay is between 0 and 1, not {}", options.keep);
  Proposal proposal;
  proposal.whole = cost(blueprint);
  const double budget = options.keep * proposal.whole;
  struct Ranked {
    const Choice* choice;
    int depth;
    double ratio;  // cost saved for each unit of loss
  };
  std::vector<Ranked> ranked;
  for (const Choice& choice : choices) {
    const Part& part = blueprint.part(choice.site);
    if (!part.present || !(choice.windows ? options.regional : options.cut)) continue;
    const double saved = proposal.whole - cost_of(blueprint, {{choice.site.index, &choice}}, cost);
    if (saved <= 0) continue;
    const double ratio = choice.loss > 0 ? saved / choice.loss : std::numeric_limits<double>::infinity();
    ranked.push_back({&choice, std::max(depth_of(blueprint, part), options.outer - 1), ratio});
  }
  std::sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    return a.depth != b.depth   ? a.depth < b.depth
           : a.ratio != b.ratio ? a.ratio > b.ratio
                                : a.choice < b.choice;
  });
  const size_t all = blueprint.present().size();
  const auto holds = [&](const Chosen& chosen) { return cost_of(blueprint, chosen, cost) <= budget; };
  Chosen chosen;
  for (const Ranked& one : ranked) {
    if (holds(chosen)) break;
    const Choice*& now = chosen[one.choice->site.index];
    if (!now || !one.choice->windows) now = one.choice;
    const auto cuts = std::ranges::count_if(chosen, [](const auto& entry) { return !entry.second->windows; });
    if (static_cast<size_t>(cuts) == all) chosen.erase(one.choice->site.index);  // something must stay
  }
  proposal.reached = holds(chosen);
  if (proposal.reached) drop_superfluous(chosen, holds);
  proposal.cost = cost_of(blueprint, chosen, cost);
  for (const auto& [part, choice] : chosen) proposal.loss += choice->loss;
  proposal.plan = plan_of(blueprint, chosen, options);
  proposal.plan.provenance = {{"method", "asdm"}};
  return proposal;
}

namespace {

double summed(const Round& round) {
  return 1 - round.proposal.cost / round.proposal.whole;
}

// The budget for the sum by which the whole plan would take `keep`: between two plans of which one saves too
// much and one too little; else in proportion to what the last saves, no more than twice or half as much at a
// time, for one measurement may err.
double corrected(std::span<const Round> rounds, double keep) {
  const Round *less = nullptr, *more = nullptr;  // the nearest on both sides
  for (const Round& round : rounds) {
    if (round.share > keep && (!less || round.share < less->share)) less = &round;
    if (round.share <= keep && (!more || round.share > more->share)) more = &round;
  }
  if (less && more) {
    const double way = (less->share - keep) / (less->share - more->share);
    return 1 - (summed(*less) + way * (summed(*more) - summed(*less)));
  }
  const double saved = 1 - rounds.back().share;
  const double factor = saved > 0 ? std::clamp((1 - keep) / saved, 0.5, 2.0) : 2.0;
  return 1 - summed(rounds.back()) * factor;
}

}  // namespace

std::vector<Round> propose_measured(const Blueprint& blueprint, std::span<const Choice> choices,
                                    const std::function<double(const Blueprint&)>& cost,
                                    const std::function<double(const Plan&)>& measured,
                                    const ProposeOptions& options, int rounds) {
  std::vector<Round> done;
  ProposeOptions asked = options;
  while (static_cast<int>(done.size()) < rounds && asked.keep > 0 && asked.keep < 1) {
    Round round{.keep = asked.keep, .proposal = propose(blueprint, choices, cost, asked)};
    const bool known = std::ranges::any_of(
        done, [&](const Round& before) { return before.proposal.cost == round.proposal.cost; });
    if (known) break;
    round.share = measured(round.proposal.plan);
    done.push_back(std::move(round));
    const Round& last = done.back();
    if (last.share <= options.keep && last.share >= options.keep - kNear) break;
    if (last.share > options.keep && !last.proposal.reached) break;  // nothing more can go
    asked.keep = corrected(done, options.keep);
  }
  return done;
}

const Round& best_of(std::span<const Round> rounds, double keep) {
  if (rounds.empty()) fail("there is no round to choose from");
  return *std::ranges::min_element(rounds, [keep](const Round& a, const Round& b) {
    const bool one = a.share <= keep, other = b.share <= keep;
    if (one != other) return one;
    return one ? a.proposal.loss < b.proposal.loss : a.share < b.share;
  });
}

}  // namespace lamina::asdm
