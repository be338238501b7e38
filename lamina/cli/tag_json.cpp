// The JSON of `lamina tag train`: every run with its scores and its curve, means, differences, the choice and
// what it is worth. F1 and differences are shares from 0 to 1; what was not measured is null.
#include <algorithm>

#include "lamina/base/json_number.h"
#include "lamina/cli/tag_numbers.h"

namespace lamina::cli {

using namespace tagging;

namespace {

constexpr size_t kCurvePoints = 200;
constexpr label::Fault kFaults[] = {label::Fault::missed, label::Fault::invented, label::Fault::wrong_type,
                                    label::Fault::wrong_ends, label::Fault::wrong_both};

Json summary_json(const TagArm& arm, HeldOut set) {
  const SeedMean f1 = f1_of(arm, set, 1);
  if (f1.count == 0) return nullptr;
  return {{"mean", number_or_null(f1.mean)},
          {"low", number_or_null(f1.low)},
          {"high", number_or_null(f1.high)},
          {"sd", number_or_null(f1.deviation)},
          {"runs", f1.count}};
}

Json difference_json(const std::optional<Difference>& found) {
  if (!found) return nullptr;
  return {{"mean", number_or_null(found->mean)},
          {"low", number_or_null(found->low)},
          {"high", number_or_null(found->high)},
          {"p", found->has_interval() ? number_or_null(found->p) : Json(nullptr)},
          {"pairs", found->pairs}};
}

Json thinned_json(const std::vector<StepRecord>& curve) {
  Json list = Json::array();
  const size_t count = curve.size(), points = std::min(count, kCurvePoints);
  for (size_t i = 1; i <= points; ++i) {
    const StepRecord& record = curve[i * count / points - 1];
    list.push_back({record.step, number_or_null(record.loss)});
  }
  return list;
}

Json run_json(const unmask::RunResult& run) {
  Json epochs = Json::array();
  for (const unmask::EpochScore& epoch : run.epochs)
    epochs.push_back(
        {{"epoch", epoch.epoch}, {"step", epoch.step}, {"dev_f1", number_or_null(epoch.dev_f1)}});
  Json json = {{"seed", run.seed},
               {"dev", run.dev ? label::to_json(*run.dev) : Json(nullptr)},
               {"test", run.test ? label::to_json(*run.test) : Json(nullptr)},
               {"epochs", std::move(epochs)},
               {"seconds", number_or_null(run.seconds)},
               {"tokens", run.tokens},
               {"padded_tokens", run.padded_tokens},
               {"curve", thinned_json(run.trained.curve)},
               {"broke_at", broke(run) ? Json(run.trained.broke_at) : Json(nullptr)}};
  if (run.adapted) json["adaptation"] = thinned_json(run.adapted->curve);
  return json;
}

Json spans_json(const std::vector<unmask::Span>& spans) {
  Json list = Json::array();
  for (const unmask::Span& span : spans)
    list.push_back({{"block", span.block},
                    {"distance", number_or_null(span.distance)},
                    {"right", number_or_null(span.right)}});
  return list;
}

}  // namespace

Json tag_json(const TagOutcome& outcome) {
  const TagArm *chosen = chosen_of(outcome), *causal = causal_of(outcome);
  const auto set = told(outcome);
  Json arms = Json::array();
  for (const TagArm& arm : outcome.arms) {
    Json runs = Json::array();
    for (const unmask::RunResult& run : arm.runs) runs.push_back(run_json(run));
    Json json = {{"name", arm.name},
                 {"mask", arm.mask.name},
                 {"blocks", arm.mask.blocks},
                 {"repeat", arm.repeat},
                 {"probe", arm.probe},
                 {"compute", number_or_null(arm.compute)},
                 {"runs", std::move(runs)},
                 {"dev", summary_json(arm, HeldOut::development)},
                 {"test", summary_json(arm, HeldOut::test)},
                 {"less_causal", set ? difference_json(difference(&arm, causal, *set, 1)) : Json(nullptr)}};
    if (!arm.spans.empty()) json["spans"] = spans_json(arm.spans);
    arms.push_back(std::move(json));
  }
  Json json = {{"model", outcome.model}, {"arms", std::move(arms)}};
  if (chosen) {
    const unmask::RunResult* run = chosen_run_of(outcome);
    json["chosen"] = {
        {"arm", chosen->name},
        {"mask", chosen->mask.name},
        {"repeat", chosen->repeat},
        {"seed", run ? Json(run->seed) : Json(nullptr)},
        {"searched", outcome.searched},
        {"measured_on", set ? Json(*set == HeldOut::test ? "test" : "dev") : Json(nullptr)},
        {"less_causal", set ? difference_json(difference(chosen, causal, *set, 1)) : Json(nullptr)},
        {"verdict", headline(outcome)}};
    const TagArm* rival = rival_of(outcome);
    json["chosen"]["rival"] = rival ? Json(rival->name) : Json(nullptr);
    json["chosen"]["less_rival"] = set ? difference_json(difference(chosen, rival, *set, 1)) : Json(nullptr);
  } else {
    json["chosen"] = nullptr;
  }
  json["correction"] = nullptr;
  const HeldOut by = any_score(outcome, HeldOut::development) ? HeldOut::development : HeldOut::test;
  if (const auto found = correction_of(outcome, by, 1))
    json["correction"] = {{"set", by == HeldOut::test ? "test" : "dev"},
                          {"plans", found->plans},
                          {"runs", found->runs},
                          {"expected_maximum", number_or_null(found->factor)},
                          {"run_sd", number_or_null(found->run_deviation)},
                          {"sd", number_or_null(found->deviation)},
                          {"expected_gain", number_or_null(found->expected)},
                          {"mean", number_or_null(found->mean)},
                          {"best", number_or_null(found->best)}};
  json["claims"] = Json::array();
  if (set) {
    for (const Claim& claim : claims_of(outcome, *set)) {
      // The same difference as a share, as all others here.
      std::optional<Difference> found = claim.found;
      if (found) found->mean /= 100, found->low /= 100, found->high /= 100;
      std::string what = claim.what;
      std::erase(what, '`');
      json["claims"].push_back(
          {{"claim", what}, {"difference", difference_json(found)}, {"here", claim_verdict(claim.found)}});
    }
  }
  json["score"] = set ? label::to_json(outcome.score) : Json(nullptr);
  Json faults = Json::object();
  for (const label::Fault fault : kFaults)
    faults[std::string(label::fault_name(fault))] =
        std::ranges::count(outcome.mistakes, fault, &label::Mistake::fault);
  json["faults"] = std::move(faults);
  json["confusions"] = Json::array();
  for (const auto& [pair, count] : confusions_of(outcome))
    json["confusions"].push_back({{"expected", pair.first}, {"said", pair.second}, {"count", count}});
  json["spans"] = {{"before", spans_json(outcome.before)}, {"after", spans_json(outcome.after)}};
  json["mask_test"] = {{"looks_right", outcome.mask_test.looks_right},
                       {"first_block", outcome.mask_test.first_block},
                       {"reacting", outcome.mask_test.reacting}};
  Json settings = Json::object();
  for (const auto& [name, value] : outcome.settings) settings[name] = value;
  json["settings"] = std::move(settings);
  json["data"] = {{"train_sentences", outcome.train_sentences},
                  {"dev_sentences", outcome.dev_sentences},
                  {"test_sentences", outcome.test_sentences},
                  {"split_sentences", outcome.split_sentences},
                  {"labels", outcome.labels}};
  json["warnings"] = warnings_of(outcome);
  return json;
}

}  // namespace lamina::cli
