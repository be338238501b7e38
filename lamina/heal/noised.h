// Pictures as a denoiser learns from them: latents, noise, a time, and what the caption says to it. Which
// picture, noise, time, and whether the caption is dropped, are functions of the seed and the position.
#pragma once

#include <memory>

#include "lamina/diffusion/pipeline.h"
#include "lamina/heal/batches.h"
#include "lamina/heal/pictures.h"

namespace lamina {

struct NoisedOptions {
  uint64_t seed = 0;
  double dropped = 0.1;  // share of the captions that become the empty one
  enum class Order { shuffled, as_given } order = Order::shuffled;
  // Latents that are kept once they are made, in bytes; the others are made again.
  int64_t kept_bytes = int64_t{1} << 30;
};
// Everything but the denoiser is that of `painter`. Both outlive the batches.
std::unique_ptr<Batches> noised_pictures(const CaptionedPictures& pictures, const Painter& painter,
                                         const NoisedOptions& options);

}  // namespace lamina
