// The numbers of `lamina tag train` and the words for them: which arm is what, means over seeds, differences
// paired by seed, what choosing among many plans gives by itself. The page and the JSON are made from these.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lamina/cli/tag_run.h"

namespace lamina::cli::tagging {

// ---- which arm is what

const TagArm* chosen_of(const TagOutcome& outcome);  // null where nothing was trained
bool is_causal(const TagArm& arm);                   // the model as it came: every mask, fed once
bool is_plan(const TagArm& arm);                     // fed once, and more than a probe
const TagArm* causal_of(const TagOutcome& outcome);
bool broke(const unmask::RunResult& run);
const std::optional<label::Score>& score_of(const unmask::RunResult& run, HeldOut set);
bool any_score(const TagOutcome& outcome, HeldOut set);
// What results are told of: the test set where there is one.
std::optional<HeldOut> told(const TagOutcome& outcome);
const unmask::RunResult* chosen_run_of(const TagOutcome& outcome);
// The causal arm's run of the same seed.
const unmask::RunResult* control_run_of(const TagOutcome& outcome);
// The best of the arms admitted, by the development set, else by what results are told of.
const TagArm* best_of(const TagOutcome& outcome, const std::function<bool(const TagArm&)>& admitted);
// What the choice has to be compared with beside the causal mask: causal repetition for an unmasked plan, a
// plan without repetition for one with it, the next best for the causal mask itself.
const TagArm* rival_of(const TagOutcome& outcome);
// All plans are bit strings of one length, one that leaves every mask apart.
bool by_groups(const TagOutcome& outcome);
// One a group where they are, else one a block: whether its mask is gone.
std::vector<bool> pattern_of(const TagArm& arm, const TagOutcome& outcome);
bool same_compute(double compute);  // as the causal mask without repetition, up to rounding
int64_t runs_of(const TagOutcome& outcome);
double seconds_of(const TagOutcome& outcome);
std::vector<std::string> warnings_of(const TagOutcome& outcome);  // and the runs that broke

// ---- numbers, NaN where there is none

// A mean over seeds; the interval is there from two runs on. `scale` 100: per cent.
struct SeedMean {
  double mean = report::not_measured, deviation = report::not_measured;
  double low = report::not_measured, high = report::not_measured;  // 95 %
  int64_t count = 0;
  bool has_interval() const;
  double half() const { return (high - low) / 2; }
};
SeedMean f1_of(const TagArm& arm, HeldOut set, double scale = 100);

// Over the seeds that both have.
struct Difference {
  double mean = report::not_measured, low = report::not_measured, high = report::not_measured;
  double p = report::not_measured;
  int64_t pairs = 0;
  bool has_interval() const;
  bool holds_zero() const { return low <= 0 && high >= 0; }
  Difference negated() const { return {-mean, -high, -low, p, pairs}; }
};
// a - b; nothing where an arm is missing, both are the same, or they share no seed.
std::optional<Difference> difference(const TagArm* a, const TagArm* b, HeldOut set, double scale = 100);

// How far the best of so many equal arms is expected to lie over their mean.
struct Correction {
  int64_t plans = 0, runs = 0;                  // runs of the arm with the fewest
  double factor = report::not_measured;         // expected maximum, in deviations of an arm
  double run_deviation = report::not_measured;  // of one run, pooled over the plans
  double deviation = report::not_measured;      // of an arm's mean
  double expected = report::not_measured;       // factor times that
  double mean = report::not_measured, best = report::not_measured;  // of all plans' means; the chosen one's
};
// Nothing where no plan was searched for.
std::optional<Correction> correction_of(const TagOutcome& outcome, HeldOut set, double scale = 100);

// What was published, as a difference in this run that would have to be above 0.
struct Claim {
  std::string what;
  std::optional<Difference> found = {};
};
std::vector<Claim> claims_of(const TagOutcome& outcome, HeldOut set);
std::string claim_verdict(const std::optional<Difference>& found);

// Expected type, type said, how often.
std::map<std::pair<std::string, std::string>, int64_t> confusions_of(const TagOutcome& outcome);

// ---- words

std::string counted(int64_t number, std::string_view one, std::string_view many);  // "one seed", "5 seeds"
std::string points(const Difference& difference);                                  // "+10.2 points"
std::string p_said(double p);
std::string interval_said(const Difference& difference);    // "95 % interval +9.1 to +11.3 over 5 seeds"
std::string signed_interval(const Difference& difference);  // "+10.21 [+9.10, +11.32]", never broken
std::string percent(double value);
std::string capital(std::string text);
std::string arm_code(const TagArm& arm);  // in backticks
std::string arm_said(const TagArm& arm);  // "the causal mask `0000`"
const char* set_name(HeldOut set);
// The sentence on top: which plan, by how much over the causal mask, at what cost, and what is not known.
std::string headline(const TagOutcome& outcome);

}  // namespace lamina::cli::tagging
