// Objectives beside those of denoise.h, for the first training of a small text-to-image model.
#pragma once

#include <memory>

#include "lamina/diffusion/schedule.h"
#include "lamina/heal/denoise.h"

namespace lamina {

struct NoisyLatents {
  double noise = 0.1;    // standard deviation of what is added to latents before they are decoded
  double square = 5e-4;  // weight of the mean square of latents: keeps their scale from running away
};
// Squared error of what an Autoencoder decodes from noisy latents: neighbouring latents then mean
// neighbouring pictures.
std::unique_ptr<Objective> noisy_reconstruction(const NoisyLatents& options);

// The squared error of a predicted noise, as if it were the error of the clean picture with the weight
// clamp(SNR, floor, cap) of its time: a cap (Hang et al., 2023, arXiv 2303.09556) spares what is seen anyway,
// a floor (Salimans and Ho, 2022, have 1) looks at where noise hides everything and the text alone says what
// stands where. The curve shows the error itself.
struct SnrWeights {
  double floor = 0, cap = 5;
};
std::unique_ptr<Objective> weighted_denoising(std::shared_ptr<const Conditioner> conditioner,
                                              NoiseSchedule schedule, const SnrWeights& weights);

}  // namespace lamina
