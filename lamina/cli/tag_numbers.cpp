#include "lamina/cli/tag_numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/eval/t_test.h"

namespace lamina::cli {

std::map<uint64_t, double> f1_by_seed(const TagArm& arm, HeldOut set) {
  std::map<uint64_t, double> found;
  for (const unmask::RunResult& run : arm.runs) {
    const std::optional<label::Score>& score = tagging::score_of(run, set);
    if (!score || tagging::broke(run)) continue;
    if (const double f1 = score->all.f1(); std::isfinite(f1)) found.try_emplace(run.seed, f1);
  }
  return found;
}

namespace tagging {

namespace {

SeedMean estimate(const std::vector<double>& values) {
  SeedMean found{.count = std::ssize(values)};
  if (values.size() == 1) found.mean = values[0];
  if (values.size() < 2) return found;
  const lamina::Mean mean = lamina::mean_of_runs(values);
  found.mean = mean.mean, found.deviation = mean.deviation;
  if (std::isfinite(mean.low) && std::isfinite(mean.high)) found.low = mean.low, found.high = mean.high;
  return found;
}

const TagArm* arm_of_mask(const TagOutcome& outcome, std::string_view mask) {
  const auto it = std::ranges::find_if(
      outcome.arms, [&](const TagArm& arm) { return is_plan(arm) && arm.mask.name == mask; });
  return it == outcome.arms.end() ? nullptr : &*it;
}

bool is_bits(const std::string& name) {
  return !name.empty() && name.find_first_not_of("01") == std::string::npos;
}

// The length of the bit strings that all plans are; 0 where one is something else. A plan that leaves every
// mask may have any name.
size_t groups_of(const TagOutcome& outcome) {
  size_t groups = 0;
  for (const TagArm& arm : outcome.arms) {
    if (!is_bits(arm.mask.name)) {
      if (!arm.mask.blocks.empty()) return 0;
      continue;
    }
    if (groups > 0 && arm.mask.name.size() != groups) return 0;
    groups = arm.mask.name.size();
  }
  return groups;
}

bool both_finite(double low, double high) {
  return std::isfinite(low) && std::isfinite(high);
}

}  // namespace

bool SeedMean::has_interval() const {
  return both_finite(low, high);
}

bool Difference::has_interval() const {
  return both_finite(low, high);
}

const TagArm* chosen_of(const TagOutcome& outcome) {
  return outcome.chosen < outcome.arms.size() ? &outcome.arms[outcome.chosen] : nullptr;
}

bool is_causal(const TagArm& arm) {
  return !arm.probe && arm.repeat == 0 && arm.mask.blocks.empty();
}

bool is_plan(const TagArm& arm) {
  return !arm.probe && arm.repeat == 0;
}

const TagArm* causal_of(const TagOutcome& outcome) {
  const auto it = std::ranges::find_if(outcome.arms, is_causal);
  return it == outcome.arms.end() ? nullptr : &*it;
}

bool broke(const unmask::RunResult& run) {
  return run.trained.broke_at > 0;
}

const std::optional<label::Score>& score_of(const unmask::RunResult& run, HeldOut set) {
  return set == HeldOut::test ? run.test : run.dev;
}

bool any_score(const TagOutcome& outcome, HeldOut set) {
  return std::ranges::any_of(outcome.arms, [&](const TagArm& arm) {
    return std::ranges::any_of(arm.runs,
                               [&](const unmask::RunResult& run) { return score_of(run, set).has_value(); });
  });
}

std::optional<HeldOut> told(const TagOutcome& outcome) {
  for (const HeldOut set : {HeldOut::test, HeldOut::development}) {
    if (any_score(outcome, set)) return set;
  }
  return std::nullopt;
}

const unmask::RunResult* chosen_run_of(const TagOutcome& outcome) {
  const TagArm* chosen = chosen_of(outcome);
  return chosen && outcome.chosen_run < chosen->runs.size() ? &chosen->runs[outcome.chosen_run] : nullptr;
}

const unmask::RunResult* control_run_of(const TagOutcome& outcome) {
  const TagArm* causal = causal_of(outcome);
  const unmask::RunResult* run = chosen_run_of(outcome);
  if (!causal || !run || causal == chosen_of(outcome)) return nullptr;
  for (const unmask::RunResult& other : causal->runs) {
    if (other.seed == run->seed) return &other;
  }
  return nullptr;
}

bool by_groups(const TagOutcome& outcome) {
  return groups_of(outcome) > 0;
}

std::vector<bool> pattern_of(const TagArm& arm, const TagOutcome& outcome) {
  const size_t groups = groups_of(outcome);
  std::vector<bool> pattern(groups > 0 ? groups : static_cast<size_t>(std::max(0, outcome.blocks)), false);
  if (groups > 0) {
    if (is_bits(arm.mask.name)) {
      for (size_t i = 0; i < groups; ++i) pattern[i] = arm.mask.name[i] == '1';
    }
    return pattern;
  }
  for (const int block : arm.mask.blocks) {
    if (block >= 0 && block < outcome.blocks) pattern[static_cast<size_t>(block)] = true;
  }
  return pattern;
}

SeedMean f1_of(const TagArm& arm, HeldOut set, double scale) {
  std::vector<double> values;
  for (const auto& [seed, f1] : f1_by_seed(arm, set)) values.push_back(scale * f1);
  return estimate(values);
}

std::optional<Difference> difference(const TagArm* a, const TagArm* b, HeldOut set, double scale) {
  if (!a || !b || a == b) return std::nullopt;
  const std::map<uint64_t, double> ours = f1_by_seed(*a, set), theirs = f1_by_seed(*b, set);
  std::vector<double> left, right;
  for (const auto& [seed, f1] : ours) {
    const auto it = theirs.find(seed);
    if (it != theirs.end()) left.push_back(scale * f1), right.push_back(scale * it->second);
  }
  if (left.empty()) return std::nullopt;
  Difference found{.pairs = std::ssize(left)};
  if (left.size() == 1) {
    found.mean = left[0] - right[0];
    return found;
  }
  const lamina::Paired paired = lamina::paired(left, right);
  found.mean = paired.difference, found.p = paired.p;
  if (std::isfinite(paired.low) && std::isfinite(paired.high))
    found.low = paired.low, found.high = paired.high;
  return found;
}

const TagArm* best_of(const TagOutcome& outcome, const std::function<bool(const TagArm&)>& admitted) {
  const bool by_development = any_score(outcome, HeldOut::development);
  const HeldOut set = by_development ? HeldOut::development : HeldOut::test;
  const TagArm* best = nullptr;
  for (const TagArm& arm : outcome.arms) {
    if (!admitted(arm)) continue;
    const double mean = f1_of(arm, set).mean;
    if (std::isfinite(mean) && (!best || mean > f1_of(*best, set).mean)) best = &arm;
  }
  return best;
}

const TagArm* rival_of(const TagOutcome& outcome) {
  const TagArm* chosen = chosen_of(outcome);
  if (!chosen) return nullptr;
  return best_of(outcome, [&](const TagArm& arm) {
    if (arm.probe || &arm == chosen) return false;
    if (is_causal(*chosen)) return true;
    if (is_causal(arm)) return false;
    return chosen->repeat > 0 ? arm.repeat == 0 : arm.repeat > 0 && arm.mask.blocks.empty();
  });
}

std::optional<Correction> correction_of(const TagOutcome& outcome, HeldOut set, double scale) {
  const TagArm* chosen = chosen_of(outcome);
  if (!outcome.searched || !chosen) return std::nullopt;
  Correction found;
  double squares = 0, sum = 0;
  int64_t freedom = 0;
  for (const TagArm& arm : outcome.arms) {
    if (!is_plan(arm) && (is_plan(*chosen) || arm.probe)) continue;
    const SeedMean f1 = f1_of(arm, set, scale);
    if (f1.count == 0) continue;
    ++found.plans;
    sum += f1.mean;
    found.runs = found.runs == 0 ? f1.count : std::min(found.runs, f1.count);
    if (f1.count > 1 && std::isfinite(f1.deviation)) {
      squares += f1.deviation * f1.deviation * static_cast<double>(f1.count - 1);
      freedom += f1.count - 1;
    }
  }
  if (found.plans < 2) return std::nullopt;
  found.factor = lamina::expected_maximum(found.plans);
  found.mean = sum / static_cast<double>(found.plans);
  found.best = f1_of(*chosen, set, scale).mean;
  if (freedom > 0) {
    found.run_deviation = std::sqrt(squares / static_cast<double>(freedom));
    found.deviation = found.run_deviation / std::sqrt(static_cast<double>(found.runs));
    found.expected = found.factor * found.deviation;
  }
  return found;
}

bool same_compute(double compute) {
  return std::abs(compute - 1) < 0.005;
}

int64_t runs_of(const TagOutcome& outcome) {
  int64_t count = 0;
  for (const TagArm& arm : outcome.arms) count += std::ssize(arm.runs);
  return count;
}

double seconds_of(const TagOutcome& outcome) {
  double seconds = 0;
  for (const TagArm& arm : outcome.arms) {
    for (const unmask::RunResult& run : arm.runs) seconds += std::isfinite(run.seconds) ? run.seconds : 0;
  }
  return seconds;
}

std::vector<Claim> claims_of(const TagOutcome& outcome, HeldOut set) {
  std::vector<Claim> claims;
  const TagArm *chosen = chosen_of(outcome), *causal = causal_of(outcome);
  if (!chosen) return claims;
  if (chosen != causal)
    claims.push_back({fmt::format("a change of the mask is better than none: {} is better than {}",
                                  arm_code(*chosen), causal ? arm_code(*causal) : "the causal mask"),
                      difference(chosen, causal, set)});
  // Groups near the output against as many near the input.
  if (by_groups(outcome)) {
    const size_t groups = groups_of(outcome);
    for (size_t k = 1; k < groups; ++k) {
      const std::string output = std::string(groups - k, '0') + std::string(k, '1'),
                        input = std::string(k, '1') + std::string(groups - k, '0');
      const TagArm *late = arm_of_mask(outcome, output), *early = arm_of_mask(outcome, input);
      if (late && early)
        claims.push_back({fmt::format("groups near the output help more than those near the input: `{}` is "
                                      "better than `{}`",
                                      output, input),
                          difference(late, early, set)});
    }
  }
  const auto all = std::ranges::find_if(outcome.arms, [&](const TagArm& arm) {
    return is_plan(arm) && outcome.blocks > 0 && std::ssize(arm.mask.blocks) == outcome.blocks;
  });
  if (all != outcome.arms.end() && &*all != chosen && is_plan(*chosen) && chosen != causal)
    claims.push_back(
        {fmt::format("taking the mask from some blocks is better than from all: {} is better than {}",
                     arm_code(*chosen), arm_code(*all)),
         difference(chosen, &*all, set)});
  const TagArm* repeated = best_of(
      outcome, [](const TagArm& arm) { return !arm.probe && arm.repeat > 0 && arm.mask.blocks.empty(); });
  if (repeated) {
    const TagArm* plan =
        chosen->repeat == 0 && !is_causal(*chosen) && !chosen->probe
            ? chosen
            : best_of(outcome, [](const TagArm& arm) { return is_plan(arm) && !is_causal(arm); });
    if (plan)
      claims.push_back({fmt::format("repetition is better than a change of the mask: {} is better than {}",
                                    arm_code(*repeated), arm_code(*plan)),
                        difference(repeated, plan, set)});
    if (causal)
      claims.push_back({fmt::format("repetition is better than the causal mask alone: {} is better than {}",
                                    arm_code(*repeated), arm_code(*causal)),
                        difference(repeated, causal, set)});
  }
  return claims;
}

std::string claim_verdict(const std::optional<Difference>& found) {
  if (!found) return "not measured";
  if (!found->has_interval()) return "one seed: not shown";
  if (found->holds_zero()) return "not shown";
  return found->mean > 0 ? "shown" : "the other way round";
}

std::map<std::pair<std::string, std::string>, int64_t> confusions_of(const TagOutcome& outcome) {
  std::map<std::pair<std::string, std::string>, int64_t> pairs;
  for (const label::Mistake& mistake : outcome.mistakes) {
    if (mistake.gold && mistake.predicted && mistake.gold->type != mistake.predicted->type)
      ++pairs[{mistake.gold->type, mistake.predicted->type}];
  }
  return pairs;
}

std::vector<std::string> warnings_of(const TagOutcome& outcome) {
  std::vector<std::string> warnings = outcome.warnings;
  for (const TagArm& arm : outcome.arms) {
    for (const unmask::RunResult& run : arm.runs) {
      if (broke(run))
        warnings.push_back(fmt::format(
            "{}, seed {}: {} was no number any more at step {}; the run is in no mean", arm.name, run.seed,
            run.trained.broke_on.empty() ? "the loss" : run.trained.broke_on, run.trained.broke_at));
    }
  }
  return warnings;
}

}  // namespace tagging
}  // namespace lamina::cli
