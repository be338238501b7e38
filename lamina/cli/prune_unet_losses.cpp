// Plans for a denoiser: what each saves, what it does to the output, and the covers they are chosen from.
#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/prune_unet_search.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

void UnetTask::tick(std::string phase, int64_t done, int64_t total, double best) const {
  watch.report({.phase = std::move(phase),
                .done = static_cast<double>(done),
                .total = static_cast<double>(total),
                .detail = std::isfinite(best) ? fmt::format("best {:.4g}", best) : ""});
}

std::string_view wiring(const std::string& layout) {
  return layout == "any" ? "any" : "stock";
}

std::unique_ptr<Model> wired_anew(const UnetTask& task, std::span<const Site> candidates,
                                  const std::vector<int>& removed, const std::string& layout) {
  const auto options = layout_from_name(layout);
  if (!options) return nullptr;
  const Opened& opened = task.subject.opened();
  const unet::Expressed expressed = unet::express(opened.checkpoint.config, opened.blueprint,
                                                  laptop::sites_of(candidates, removed), *options);
  if (!expressed.possible || expressed.exact) return nullptr;
  return build_model(declare(unet::compacted(opened.checkpoint, expressed)));
}

std::vector<double> UnetTask::times(const laptop::Calibration& samples) const {
  std::vector<double> times;
  for (const laptop::CalibrationBatch& batch : samples.batches)
    for (int64_t s = 0; s < batch.inputs.time.numel(); ++s)
      times.push_back(batch.inputs.time[s].item<double>());
  return times;
}

laptop::JointLoss& PlanLosses::joint(Samples samples) {
  const bool heldout = samples == Samples::heldout;
  std::optional<laptop::JointLoss>& joint = heldout ? heldout_ : scored_;
  if (!joint) {
    joint.emplace(task_.subject.model(), heldout ? task_.data.heldout : task_.data.scoring,
                  heldout ? 0 : task_.options.rerank_samples);
  }
  return *joint;
}

template <class Measure>
std::vector<double> PlanLosses::once(const std::string& key, const Measure& measure) {
  if (const Json* done = task_.journal.find(key)) {
    std::vector<double> losses;
    for (const Json& loss : *done) losses.push_back(loss.is_null() ? NAN : loss.get<double>());
    return losses;
  }
  if (task_.watch.stop.stop_requested()) throw Stopped{};
  std::vector<double> losses = measure();
  ++measured_;
  task_.journal.add(key, losses);
  return losses;
}

std::vector<double> PlanLosses::of(const std::vector<int>& removed, const std::string& layout,
                                   Samples samples) {
  const std::string key = fmt::format("losses {} {} {}", samples == Samples::heldout ? "heldout" : "scored",
                                      wiring(layout), fmt::join(removed, ","));
  return once(key, [&] {
    const std::unique_ptr<Model> other = wired_anew(task_, candidates_, removed, layout);
    laptop::JointLoss& loss = joint(samples);
    return other ? loss.of(*other) : loss.of(laptop::sites_of(candidates_, removed));
  });
}

laptop::Mean PlanLosses::mean(const std::vector<double>& losses, laptop::Criterion by,
                              Samples samples) const {
  std::vector<double> times =
      task_.times(samples == Samples::heldout ? task_.data.heldout : task_.data.scoring);
  times.resize(losses.size());
  return laptop::mean(laptop::weighed(by, losses, times, task_.subject.schedule));
}

double PlanLosses::scored(const std::vector<int>& removed, const std::string& layout, laptop::Criterion by) {
  return mean(of(removed, layout, Samples::scored), by, Samples::scored).value;
}

void PlanLosses::fill(PlanRow& row, const std::vector<double>& losses) const {
  const laptop::Mean output = mean(losses, laptop::Criterion::output, Samples::heldout);
  row.joint = output.value, row.error = output.error;
  row.clean = mean(losses, laptop::Criterion::clean, Samples::heldout).value;
}

void PlanLosses::measure(PlanRow& row) {
  fill(row, of(row.removed, row.layout, Samples::heldout));
}

void PlanLosses::measure(PlanRow& row, const Model& other, const std::string& key) {
  fill(row, once("losses heldout " + key, [&] { return joint(Samples::heldout).of(other); }));
}

PlanRow row_of(const UnetTask& task, const UnetFound& found, std::string name, std::vector<int> removed,
               const std::string& layout) {
  const std::vector<Site> sites = laptop::sites_of(found.candidates, removed);
  PlanRow row{.name = std::move(name), .removed = std::move(removed), .saved = found.prices.saved(sites)};
  row.layout = layout;
  row.sum = 0;
  for (int i : row.removed) row.sum += found.values[static_cast<size_t>(i)];
  row.superposed = laptop::superposed(found.scores, row.removed);
  const Json& config = task.subject.opened().checkpoint.config;
  const Blueprint& blueprint = task.subject.blueprint();
  const auto options = layout_from_name(layout);
  unet::Expressed expressed =
      unet::express(config, blueprint, sites, options.value_or(unet::LayoutOptions{}));
  if (options && expressed.possible) row.saved[0] = blueprint.parameters() - expressed.parameters;
  if (!expressed.possible)
    expressed = unet::express(config, blueprint, sites, {.wiring = unet::Wiring::stock});
  row.expressible = expressed.possible;
  row.said = !expressed.possible ? expressed.why : expressed.exact ? "as it computes" : "wired anew";
  return row;
}

laptop::Cover cover_for(const UnetTask& task, const UnetFound& found, const std::string& layout,
                        const std::vector<double>& values) {
  const std::vector<laptop::Bundle> bundles =
      layout_from_name(layout) ? layout_bundles(task.subject, layout, found.candidates, values, found.prices)
                               : laptop::free_bundles(task.subject.blueprint(), found.candidates, values);
  return laptop::cover_of(bundles, found.candidates, values, found.prices, found.least);
}

std::vector<int> indices_of(std::span<const Site> candidates, std::span<const Site> sites) {
  std::vector<int> indices;
  for (Site site : sites)
    indices.push_back(static_cast<int>(std::ranges::find(candidates, site) - candidates.begin()));
  return indices;
}

}  // namespace lamina::cli
