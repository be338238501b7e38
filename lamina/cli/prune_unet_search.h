// The pieces of a search for what a denoiser can do without: what its parts are worth and cost, which go,
// what stands beside them. Each takes what was found before it and gives it back with more in it. What is
// measured stands in the journal before it is used, so a run that was stopped measures nothing twice.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lamina/cli/prune_unet.h"

namespace lamina::cli {

struct UnetTask {
  const Subject& subject;
  const UnetData& data;
  const UnetOptions& options;
  UnetJournal& journal;
  const Watch& watch;

  // That the denoiser is judged and priced at.
  unet::Shape2d shape() const {
    return {.height = subject.height,
            .width = subject.width,
            .text_tokens = data.scoring.batches[0].inputs.text.size(1)};
  }
  // Of each sample, batch after batch.
  std::vector<double> times(const laptop::Calibration& samples) const;
  // `best`: the least loss so far, where there is one.
  void tick(std::string phase, int64_t done, int64_t total, double best) const;
};

// A denoiser with a tap in every pass.
class Tapped : public Denoiser {
 public:
  Tapped(const Model& model, Tap& tap) : model_(model), tap_(tap) {}
  Tensor operator()(const Inputs& inputs, int64_t, int64_t) override { return model_.run(inputs, tap_); }

 private:
  const Model& model_;
  Tap& tap_;
};

inline Skip without(const Model& model, std::span<const Site> removed) {
  Skip skip(model.blueprint());
  for (Site site : removed) skip.add(site);
  return skip;
}

// ---- prune_unet_scores.cpp

// "50%": at most that share is kept; so much has to go. Throws Error for another text.
int64_t least_of(const std::string& text, std::string_view flag, int64_t whole);
// The candidates and their scores, with the time that took over all runs.
UnetFound scored(const UnetTask& task);
laptop::Times times_of(const UnetTask& task, const UnetFound& found);
laptop::Prices prices_of(const UnetTask& task, const UnetFound& found);
std::vector<double> values_by(const UnetTask& task, const UnetFound& found, laptop::Criterion criterion);

// ---- prune_unet_losses.cpp

// What plans do to the output, as they would be written; each is measured once.
class PlanLosses {
 public:
  PlanLosses(const UnetTask& task, std::vector<Site> candidates)
      : task_(task), candidates_(std::move(candidates)) {}
  // On samples that were scored on, by one of laptop::loss_of_plans: the parts skipped, or what a stock
  // config makes of what is left.
  double scored(const std::vector<int>& removed, const std::string& layout, laptop::Criterion by);
  // Fills in the row's losses on held-out samples.
  void measure(PlanRow& row);
  // The same by a model that is the plan carried out; `key` names the plan.
  void measure(PlanRow& row, const Model& other, const std::string& key);
  int64_t measured() const { return measured_; }

 private:
  enum class Samples { scored, heldout };
  std::vector<double> of(const std::vector<int>& removed, const std::string& layout, Samples samples);
  laptop::JointLoss& joint(Samples samples);
  template <class Measure>
  std::vector<double> once(const std::string& key, const Measure& measure);
  laptop::Mean mean(const std::vector<double>& losses, laptop::Criterion by, Samples samples) const;
  void fill(PlanRow& row, const std::vector<double>& losses) const;

  const UnetTask& task_;
  std::vector<Site> candidates_;
  std::optional<laptop::JointLoss> scored_ = {}, heldout_ = {};
  int64_t measured_ = 0;
};

// ---- prune_unet_trajectory.cpp

// What plans do to pictures: mean squared change of the last latents from the whole model's at equal seeds,
// as a share of their variance.
class Trajectories {
 public:
  enum class Prompts { tried, shown };
  Trajectories(const UnetTask& task, std::vector<Site> candidates, Prompts prompts);
  double of(const std::vector<int>& removed, const std::string& layout);
  // Of the model with that tap; `key` names it.
  double of(Tap& tap, const std::string& key);

 private:
  double changed_by(Denoiser& denoiser, const std::string& key);
  Tensor last_latents(Denoiser& denoiser) const;

  const UnetTask& task_;
  std::vector<Site> candidates_;
  Prompts prompts_;
  std::optional<Tensor> whole_ = {};
};

// ---- prune_unet_losses.cpp

std::string_view wiring(const std::string& layout);  // "any" or "stock"
// What a stock config makes of what is left, where that is another function than skipping the parts.
std::unique_ptr<Model> wired_anew(const UnetTask& task, std::span<const Site> candidates,
                                  const std::vector<int>& removed, const std::string& layout);
// The plan in a layout, or with its parts skipped ("any"); its losses are yet to be measured.
PlanRow row_of(const UnetTask& task, const UnetFound& found, std::string name, std::vector<int> removed,
               const std::string& layout);
laptop::Cover cover_for(const UnetTask& task, const UnetFound& found, const std::string& layout,
                        const std::vector<double>& values);
std::vector<int> indices_of(std::span<const Site> candidates, std::span<const Site> sites);

// ---- prune_unet_choose.cpp, prune_unet_asdm.cpp

// The chosen plan with its losses, and plans on the way to it. Throws Error where the budgets cannot be held.
UnetFound choose(const UnetTask& task, UnetFound found, const laptop::Cover& cover, PlanLosses& losses);
// A-SDM-style: cuts, windows and inherited kernels within one budget, multiply-adds or measured milliseconds.
UnetFound choose_asdm(const UnetTask& task, UnetFound found, PlanLosses& losses);

// ---- prune_unet_compare.cpp

UnetFound with_other_plans(const UnetTask& task, UnetFound found, const laptop::Cover& cover,
                           PlanLosses& losses);
UnetFound with_frontiers(const UnetTask& task, UnetFound found);
UnetFound with_trajectories(const UnetTask& task, UnetFound found);
UnetFound with_study(const UnetTask& task, UnetFound found, PlanLosses& losses);

}  // namespace lamina::cli
