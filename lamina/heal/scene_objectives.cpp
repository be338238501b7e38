#include "lamina/heal/scene_objectives.h"

#include "lamina/base/error.h"
#include "lamina/models/vae/vae.h"

namespace lamina {

namespace {

class NoisyReconstruction : public Objective {
 public:
  explicit NoisyReconstruction(const NoisyLatents& options) : options_(options) {}

  Losses operator()(const Pass& pass) const override {
    const auto* model = dynamic_cast<const vae::Autoencoder*>(&pass.model);
    if (!model) fail("{} is no autoencoder", pass.model.blueprint().family);
    const Tensor latents = model->encode(pass.batch.inputs.sample);
    const Tensor noise =
        random_normal(latents.sizes(), static_cast<uint64_t>(pass.batch.first) + 1).to(latents.options());
    const Tensor decoded = model->decode(latents + options_.noise * noise);
    const Tensor error = (decoded - pass.batch.targets).square().sum(at::kDouble);
    // As large a share of the whole as if each number of the picture had it.
    const Tensor square = latents.square().mean(at::kDouble) * static_cast<double>(decoded.numel());
    return {.sum = (error + options_.square * square) * pass.weight,
            .measure = error.item<double>(),
            .terms = {{"latent square", square.item<double>()}}};
  }
  std::string digest() const override {
    return fmt::format("noisy reconstruction {} {}", options_.noise, options_.square);
  }

 private:
  NoisyLatents options_;
};

class WeightedDenoising : public Objective {
 public:
  WeightedDenoising(std::shared_ptr<const Conditioner> conditioner, NoiseSchedule schedule, double cap)
      : conditioner_(std::move(conditioner)), schedule_(std::move(schedule)), cap_(cap) {
    if (!(cap > 0)) fail("the signal-to-noise ratio is capped at {}; a number above 0 is expected", cap);
    if (schedule_.prediction != Prediction::epsilon)
      fail("weights by signal-to-noise ratio are made for the prediction of noise alone");
  }

  Losses operator()(const Pass& pass) const override {
    Inputs inputs = pass.batch.inputs;
    if (conditioner_) inputs.text = conditioner_->text(inputs);
    const Tensor errors = (given(pass, inputs).to(at::kFloat) - pass.batch.targets).square();
    const Tensor bar = schedule_.alpha_bar_at(inputs.time, errors), snr = bar / (1 - bar);
    return {.sum = (errors * (snr.clamp_max(cap_) / snr)).sum(at::kDouble) * pass.weight,
            .measure = errors.detach().sum(at::kDouble).item<double>()};
  }
  std::vector<Parameter> parameters() const override {
    return conditioner_ ? conditioner_->parameters() : std::vector<Parameter>{};
  }
  std::string digest() const override {
    return fmt::format("denoising, cap {}, {}", cap_,
                       conditioner_ ? conditioner_->digest() : "text as given");
  }

 private:
  std::shared_ptr<const Conditioner> conditioner_;
  NoiseSchedule schedule_;
  double cap_;
};

}  // namespace

std::unique_ptr<Objective> noisy_reconstruction(const NoisyLatents& options) {
  return std::make_unique<NoisyReconstruction>(options);
}

std::unique_ptr<Objective> weighted_denoising(std::shared_ptr<const Conditioner> conditioner,
                                              NoiseSchedule schedule, double snr_cap) {
  return std::make_unique<WeightedDenoising>(std::move(conditioner), std::move(schedule), snr_cap);
}

}  // namespace lamina
