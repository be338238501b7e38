// Plans by the pictures that they lead to: small errors of single calls may add up over the steps, or not.
#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/prune_unet_search.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

Trajectories::Trajectories(const UnetTask& task, std::vector<Site> candidates, Prompts prompts)
    : task_(task), candidates_(std::move(candidates)), prompts_(prompts) {}

double Trajectories::of(const std::vector<int>& removed, const std::string& layout) {
  const Model& model = task_.subject.model();
  const std::unique_ptr<Model> other = wired_anew(task_, candidates_, removed, layout);
  Skip skip = without(model, laptop::sites_of(candidates_, removed));
  Tapped skipping(model, skip);
  const std::unique_ptr<Denoiser> wired = other ? plain(*other) : nullptr;
  return changed_by(wired ? *wired : skipping, fmt::format("{} {}", wiring(layout), fmt::join(removed, ",")));
}

double Trajectories::of(Tap& tap, const std::string& key) {
  Tapped tapped(task_.subject.model(), tap);
  return changed_by(tapped, key);
}

double Trajectories::changed_by(Denoiser& denoiser, const std::string& name) {
  const std::string key =
      fmt::format("trajectory {} {}", prompts_ == Prompts::tried ? "tried" : "shown", name);
  if (const Json* known = task_.journal.find(key)) return known->get<double>();
  if (task_.watch.stop.stop_requested()) throw Stopped{};
  if (!whole_) whole_ = last_latents(*plain(task_.subject.model()));
  const Tensor change = (last_latents(denoiser) - *whole_).square().mean();
  const double share = (change / whole_->var()).item<double>();
  task_.journal.add(key, share);
  return share;
}

Tensor Trajectories::last_latents(Denoiser& denoiser) const {
  const InferenceMode evaluating;
  const Subject& subject = task_.subject;
  Watch quiet = task_.watch;
  quiet.tick = {};
  const UnetData::Prompts& prompts = prompts_ == Prompts::tried ? task_.data.tried : task_.data.shown;
  const auto seed = static_cast<uint64_t>(task_.options.seed) + (prompts_ == Prompts::tried ? 6000 : 5000);
  return sample(denoiser, subject.scheduler, prompts.told, prompts.untold,
                {.steps = task_.options.trajectory_steps,
                 .guidance = task_.options.cfg,
                 .noise = starting_noise(prompts.told.text.size(0),
                                         {subject.config.in_channels, subject.height, subject.width}, seed),
                 .seed = seed,
                 .watch = quiet});
}

}  // namespace lamina::cli
