// diffusers' UNet2DConditionModel: the denoiser of Stable Diffusion 1, 2 and XL and of what was cut from
// them. Inputs: sample, time, text, and of SDXL `added`.
#pragma once

#include <memory>

#include "lamina/model/model.h"

namespace lamina::unet {

std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights);

}  // namespace lamina::unet
