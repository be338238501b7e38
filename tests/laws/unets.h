// What the tests of rooms that work on U-Nets share: the architecture, a small config, inputs of any size.
#pragma once

#include <string>
#include <vector>

#include "tests/laws/tiny.h"
#include "tests/unet_config.h"

namespace lamina::tiny {

using tests::four_stages;

inline const Architecture& unet_architecture() {
  return architecture_of({{"_class_name", "UNet2DConditionModel"}}, "test");
}

struct UnetInputs {
  int64_t batch = 2, height = 8, width = 8;
  at::ScalarType dtype = at::kDouble;
};

// Normal numbers, each tensor from the next seed, at times 1, 322, 643 and so on. `inputs` of tiny.h gives a
// batch of two for an opened model of any kind.
inline Inputs unet_inputs(const Json& config, uint64_t seed, const UnetInputs& options = {}) {
  const unet::Config c = unet::read_config(config, "test");
  const int64_t batch = options.batch;
  const auto normal = [&](const std::vector<int64_t>& sizes) {
    return random_normal(sizes, seed++).to(options.dtype);
  };
  Inputs inputs{.sample = normal({batch, c.in_channels, options.height, options.width}),
                .time = at::arange(batch).to(at::kDouble) * 321 + 1,
                .text = normal({batch, 5, c.context[0]})};
  if (c.added_width > 0)
    inputs.added = {{"text_embeds", normal({batch, c.added_width - 6 * c.added_time_width})},
                    {"time_ids", at::ones({batch, 6}, options.dtype)}};
  return inputs;
}

// What is left of a model when a plan is done.
inline Opened edited(const Opened& opened, const Plan& plan) {
  return declare(apply(opened.checkpoint, opened.blueprint, plan));
}

inline Tensor answer(const Opened& opened, const Inputs& inputs) {
  const InferenceMode evaluating;
  return build_model(opened, {.dtype = at::kDouble})->run(inputs);
}

}  // namespace lamina::tiny
