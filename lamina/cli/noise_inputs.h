// Seeded normal numbers of the shapes that a U-Net reads: where two models are to answer alike, pictures say
// no more than noise does, and none are needed.
#pragma once

#include "lamina/family/unet.h"
#include "lamina/model/model.h"

namespace lamina::cli {

struct NoiseOptions {
  int64_t count = 2;
  int64_t batch = 1;    // samples of one pass
  int64_t side = 0;     // of the latents; 0: what the config says, and 64 where it does not
  int64_t tokens = 77;  // of the text
  uint64_t seed = 1;
};
// Times are spread over the thousand steps of training, each in the middle of its share.
std::vector<Inputs> noise_inputs(const unet::Config& config, const NoiseOptions& options);

}  // namespace lamina::cli
