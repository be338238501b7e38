// What the numbers of a search for a mask plan say, in sentences.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/text.h"
#include "lamina/cli/tag_numbers.h"

namespace lamina::cli::tagging {

namespace {

// Percentage points with as many digits as the interval gives a meaning to.
int digits_for(double value, double low, double high) {
  const double width = std::isfinite(high - low) ? (high - low) / 2 : std::abs(value);
  return std::min(std::abs(value), width) < 0.1 ? 2 : 1;
}

}  // namespace

std::string counted(int64_t number, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", number == 1 ? std::string("one") : thousands(number), number == 1 ? one : many);
}

std::string points(const Difference& d) {
  const int digits = digits_for(d.mean, d.low, d.high);
  return fmt::format("{:+.{}f} points", d.mean, digits);
}

std::string p_said(double p) {
  if (!std::isfinite(p)) return "–";
  return p < 0.001 ? "<\u00A00.001" : fmt::format("{:.{}f}", p, p < 0.1 ? 3 : 2);
}

std::string interval_said(const Difference& d) {
  const int digits = digits_for(d.mean, d.low, d.high);
  return fmt::format("95 % interval {:+.{}f} to {:+.{}f} over {} seeds", d.low, digits, d.high, digits,
                     d.pairs);
}

std::string signed_interval(const Difference& d) {
  return d.has_interval() ? fmt::format("{:+.2f}\u00A0[{:+.2f},\u00A0{:+.2f}]", d.mean, d.low, d.high)
                          : fmt::format("{:+.2f}", d.mean);
}

std::string percent(double value) {
  return std::isfinite(value) ? fmt::format("{:.1f} %", value) : "no";
}

std::string arm_code(const TagArm& arm) {
  return "`" + arm.name + "`";
}

std::string arm_said(const TagArm& arm) {
  if (arm.probe) return fmt::format("the probe {} (a classifier on the frozen model)", arm_code(arm));
  if (is_causal(arm)) return fmt::format("the causal mask {}", arm_code(arm));
  if (arm.mask.blocks.empty())
    return fmt::format("the causal mask with each sentence fed {} times ({})", arm.repeat + 1, arm_code(arm));
  if (arm.repeat > 0)
    return fmt::format("plan {} with each sentence fed {} times", arm_code(arm), arm.repeat + 1);
  return fmt::format("plan {}", arm_code(arm));
}

std::string capital(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

const char* set_name(HeldOut set) {
  return set == HeldOut::test ? "test set" : "development set";
}

namespace {

std::string compute_said(double compute) {
  if (!std::isfinite(compute)) return "at a compute that was not counted";
  return same_compute(compute) ? "at the same compute a sentence"
                               : fmt::format("at {:.1f} times the compute a sentence", compute);
}

std::string f1_said(const TagArm& arm, HeldOut set) {
  const SeedMean f1 = f1_of(arm, set);
  return f1.count == 0 ? fmt::format("no F1 on the {}: {}", set_name(set),
                                     arm.runs.empty() ? "it was not trained" : "no run of it came to an end")
                       : fmt::format("{} F1 on the {}", percent(f1.mean), set_name(set));
}

std::string against_causal(const TagOutcome& outcome, const TagArm& chosen, HeldOut set) {
  const TagArm* causal = causal_of(outcome);
  if (!causal)
    return ". The causal mask was not trained beside it, so what the plan itself gives is not known";
  if (causal == &chosen) return "";
  const auto gain = difference(&chosen, causal, set);
  if (!gain)
    return fmt::format(". No seed of it can be compared with {}, so what the plan itself gives is not known",
                       arm_said(*causal));
  if (!gain->has_interval())
    return fmt::format(", {} over {} {}, with {}: whether another seed would agree is not known",
                       points(*gain), arm_said(*causal), compute_said(chosen.compute),
                       counted(gain->pairs, "seed alone", "seeds"));
  const std::string said =
      fmt::format(", {} {} {} ({}), {}", points(*gain), gain->mean < 0 ? "against" : "over",
                  arm_said(*causal), interval_said(*gain), compute_said(chosen.compute));
  if (gain->holds_zero()) return said + ": the interval contains 0, so no difference was shown";
  return said + (gain->mean < 0 ? ": it is worse" : "");
}

std::string against_rival(const TagOutcome& outcome, const TagArm& chosen, HeldOut set) {
  const TagArm* rival = rival_of(outcome);
  const auto gain = difference(&chosen, rival, set);
  if (!gain) return "";
  std::string said =
      fmt::format(" {} reaches {} {}: ",
                  is_causal(chosen) ? "The next best, " + arm_said(*rival) + "," : capital(arm_said(*rival)),
                  percent(f1_of(*rival, set).mean), compute_said(rival->compute));
  const Difference other = gain->negated();
  if (!other.has_interval())
    return said + fmt::format("{} against the choice, with {}.", points(other),
                              counted(other.pairs, "seed alone", "seeds"));
  const std::string numbers = fmt::format("{} against the choice ({})", points(other), interval_said(other));
  return said + numbers + (other.holds_zero() ? ", so that the two cannot be told apart." : ".");
}

std::string cost_said(const TagOutcome& outcome) {
  const int64_t runs = runs_of(outcome);
  if (runs < 2) return "";
  return fmt::format(" {} {} runs, {} of training.",
                     outcome.searched ? "The search took" : "All in all it took", thousands(runs),
                     human_seconds(seconds_of(outcome)));
}

}  // namespace

std::string headline(const TagOutcome& outcome) {
  const TagArm* chosen = chosen_of(outcome);
  if (!chosen) return "Nothing was trained.";
  const auto set = told(outcome);
  const bool plans = std::ranges::all_of(outcome.arms, is_plan);
  if (!set) {
    const bool none = outcome.dev_sentences == 0 && outcome.test_sentences == 0;
    return fmt::format("{} was trained {}, so there is no F1 and nothing to choose a plan by.",
                       capital(arm_said(*chosen)),
                       none ? "without a development set or a test set" : "but no run of it was scored");
  }
  std::string said;
  if (outcome.searched && any_score(outcome, HeldOut::development))
    said = fmt::format("Of {} {} the development set chose {}: {}", outcome.arms.size(),
                       plans ? "plans" : "arms", arm_said(*chosen), f1_said(*chosen, *set));
  else
    said = fmt::format("{} has {}", capital(arm_said(*chosen)), f1_said(*chosen, *set));
  const SeedMean f1 = f1_of(*chosen, *set);
  if (f1.count == 0) return said + "." + cost_said(outcome);
  const TagArm* causal = causal_of(outcome);
  const bool compared = causal && causal != chosen && difference(chosen, causal, *set);
  // Without a difference to tell, the interval is that of the mean.
  if (!compared && f1.has_interval())
    said += fmt::format(" (95 % interval {:.1f} to {:.1f} over {} seeds)", f1.low, f1.high, f1.count);
  if (!compared && !f1.has_interval()) said += " with one seed alone";
  if (!compared && causal != chosen) said += ", " + compute_said(chosen->compute);
  said += against_causal(outcome, *chosen, *set) + ".";
  if (const auto gone = std::ranges::count_if(chosen->runs, broke); gone > 0)
    said += fmt::format(" {} of its {} runs broke and {} in no mean.", gone, chosen->runs.size(),
                        gone == 1 ? "is" : "are");
  const auto plan_but_causal = [](const TagArm& arm) { return is_plan(arm) && !is_causal(arm); };
  const TagArm* unmasked = best_of(outcome, plan_but_causal);
  if (causal == chosen && outcome.searched && unmasked &&
      difference(unmasked, chosen, HeldOut::development).value_or(Difference{}).mean <= 0)
    said += " No plan without some masks was better by the set that chose.";
  if (*set == HeldOut::development && outcome.searched)
    said += " That set chose the plan as well, and there is no test set: the number is too good.";
  return said + against_rival(outcome, *chosen, *set) + cost_said(outcome);
}

}  // namespace lamina::cli::tagging
