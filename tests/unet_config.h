// The config of a small U-Net, for tests of rooms that are free of torch too.
#pragma once

#include "lamina/family/unet.h"

namespace lamina::tests {

// As Stable Diffusion 1: four stages, transformers of one block, convolutions as projections.
inline Json four_stages() {
  Json config = unet::published_config("sd1.5");
  config["block_out_channels"] = {8, 16, 16, 16};
  config["attention_head_dim"] = 2;
  config["cross_attention_dim"] = 12;
  config["norm_num_groups"] = 4;
  return config;
}

}  // namespace lamina::tests
