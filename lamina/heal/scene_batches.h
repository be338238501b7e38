// Generated scenes as training data: pictures alone, pictures with the answers of a scorer, or noisy latents
// with the tokens of their captions. Sample i is that of scene i, without end; what is random in it depends
// on seed and position alone.
#pragma once

#include <memory>

#include "lamina/diffusion/schedule.h"
#include "lamina/heal/batches.h"
#include "lamina/models/vae/vae.h"
#include "lamina/scene/scene.h"

namespace lamina {

// Pixels in [-1, 1] of scenes [first, first + count), [count, 3, side, side].
Tensor scene_pixels(const scene::Options& options, int64_t first, int64_t count);

// inputs.sample: pictures, some noisy, blurred, darker or paler; targets: labels [batch, heads]. Of the split
// train every fifth is taken from novel scenes of the same seed instead.
std::unique_ptr<Batches> scorer_batches(const scene::Options& options, uint64_t seed);

// inputs.sample: pictures; targets the same pictures.
std::unique_ptr<Batches> picture_batches(const scene::Options& options);

// Ids of captions in rows of `length`, the end padded.
class CaptionTokens {
 public:
  virtual ~CaptionTokens() = default;
  virtual Tensor operator()(const std::vector<std::string>& captions) const = 0;  // [batch, length] int64
  virtual std::string digest() const = 0;
};

struct DenoiserData {
  scene::Options scenes = {};
  uint64_t seed = 0;
  double dropped = 0.1;  // share of captions that become the empty one
};
// inputs.ids: captions; inputs.sample: x_t; inputs.time: t, spread evenly over the samples of a run (a Weyl
// sequence); targets: what the denoiser is to say. `autoencoder` and `tokens` outlive the batches.
std::unique_ptr<Batches> denoiser_batches(const DenoiserData& data, const vae::Autoencoder& autoencoder,
                                          const CaptionTokens& tokens, NoiseSchedule schedule);

}  // namespace lamina
