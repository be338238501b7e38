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
  WeightedDenoising(std::shared_ptr<const Conditioner> conditioner, NoiseSchedule schedule,
                    const SnrWeights& weights)
      : conditioner_(std::move(conditioner)), schedule_(std::move(schedule)), weights_(weights) {
    if (!(weights.floor >= 0 && weights.cap > weights.floor))
      fail(
          "signal-to-noise ratios are kept between {} and {}; a floor from 0 and a cap above it are expected",
          weights.floor, weights.cap);
    if (schedule_.prediction != Prediction::epsilon)
      fail("weights by signal-to-noise ratio are made for the prediction of noise alone");
  }

  Losses operator()(const Pass& pass) const override {
    Inputs inputs = pass.batch.inputs;
    if (conditioner_) inputs.text = conditioner_->text(inputs);
    const Tensor errors = (given(pass, inputs).to(at::kFloat) - pass.batch.targets).square();
    const Tensor bar = schedule_.alpha_bar_at(inputs.time, errors), snr = bar / (1 - bar);
    return {.sum = (errors * (snr.clamp(weights_.floor, weights_.cap) / snr)).sum(at::kDouble) * pass.weight,
            .measure = errors.detach().sum(at::kDouble).item<double>()};
  }
  std::vector<Parameter> parameters() const override {
    return conditioner_ ? conditioner_->parameters() : std::vector<Parameter>{};
  }
  std::string digest() const override {
    const std::string floor = weights_.floor > 0 ? fmt::format(", floor {}", weights_.floor) : "";
    return fmt::format("denoising, cap {}{}, {}", weights_.cap, floor,
                       conditioner_ ? conditioner_->digest() : "text as given");
  }

 private:
  std::shared_ptr<const Conditioner> conditioner_;
  NoiseSchedule schedule_;
  SnrWeights weights_;
};

}  // namespace

std::unique_ptr<Objective> noisy_reconstruction(const NoisyLatents& options) {
  return std::make_unique<NoisyReconstruction>(options);
}

std::unique_ptr<Objective> weighted_denoising(std::shared_ptr<const Conditioner> conditioner,
                                              NoiseSchedule schedule, const SnrWeights& weights) {
  return std::make_unique<WeightedDenoising>(std::move(conditioner), std::move(schedule), weights);
}

}  // namespace lamina
