// Small U-Nets that the tests of this room share.
#pragma once

#include "lamina/family/unet.h"
#include "tests/laws/tiny.h"

namespace lamina::asdm {

inline const Architecture& unet_architecture() {
  return architecture_of(
      {{"architectures", {"UNet2DConditionModel"}}, {"_class_name", "UNet2DConditionModel"}}, "test");
}

// As Stable Diffusion 1: four stages, transformers of one block, convolutions as projections.
inline Json four_stages() {
  Json config = unet::published_config("sd1.5");
  config["block_out_channels"] = {8, 16, 16, 16};
  config["attention_head_dim"] = 2;
  config["cross_attention_dim"] = 12;
  config["norm_num_groups"] = 4;
  return config;
}

inline Inputs inputs_for(const Json& config, int64_t batch, uint64_t seed, int64_t height = 8,
                         int64_t width = 8) {
  const unet::Config c = unet::read_config(config, "test");
  const auto normal = [&](std::vector<int64_t> sizes) {
    return random_normal(sizes, seed++).to(at::kDouble);
  };
  Inputs inputs{.sample = normal({batch, c.in_channels, height, width}),
                .time = at::arange(batch).to(at::kDouble) * 321 + 1,
                .text = normal({batch, 5, c.context[0]})};
  if (c.added_width > 0)
    inputs.added = {{"text_embeds", normal({batch, c.added_width - 6 * c.added_time_width})},
                    {"time_ids", at::ones({batch, 6}, at::kDouble)}};
  return inputs;
}

inline Tensor answer(const Opened& opened, const Inputs& inputs) {
  const InferenceMode evaluating;
  return build_model(opened, {.dtype = at::kDouble})->run(inputs);
}

inline Opened edited(const Opened& opened, const Plan& plan) {
  return declare(apply(opened.checkpoint, opened.blueprint, plan));
}

}  // namespace lamina::asdm
