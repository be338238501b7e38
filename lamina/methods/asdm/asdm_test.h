// Small U-Nets that the tests of this room share.
#pragma once

#include "tests/laws/unets.h"

namespace lamina::asdm {

using tiny::answer;
using tiny::edited;
using tiny::four_stages;
using tiny::unet_architecture;

// Samples of 8x8.
inline Inputs inputs_for(const Json& config, int64_t batch, uint64_t seed) {
  return tiny::unet_inputs(config, seed, {.batch = batch});
}

}  // namespace lamina::asdm
