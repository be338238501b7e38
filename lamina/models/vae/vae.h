// Between pixels and latents: AutoencoderKL (Rombach et al., 2022) and AutoencoderTiny (TAESD).
#pragma once

#include <memory>

#include "lamina/model/model.h"

namespace lamina::vae {

// Pixels are in [-1, 1], [batch, 3, height, width]. As a Model, `run` on Inputs::sample gives the
// reconstruction; it has no parts.
class Autoencoder : public Model {
 public:
  using Model::Model;
  // As the denoiser reads them: scaled (and shifted) latents; of a distribution, its mean.
  virtual Tensor encode(const Tensor& pixels) const = 0;
  virtual Tensor decode(const Tensor& latents) const = 0;
  virtual int64_t factor() const = 0;    // pixels a latent in each direction
  virtual int64_t channels() const = 0;  // of the latents

  Stream begin(const Inputs& inputs) const override;
  void step(Stream& stream, Site site, Tap& tap) const override;
  Tensor read_out(const Stream& stream, Tap& tap) const override;  // the latents
  Tensor finish(const Stream& stream, Tap& tap) const override;
};

std::unique_ptr<Autoencoder> build_autoencoder(const Checkpoint& checkpoint, const Blueprint& blueprint,
                                               const Weights& weights);
std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights);

}  // namespace lamina::vae
