// The names of a U-Net's modules in the original spelling (CompVis, Stability): "input_blocks.4.1" for
// "down_blocks.1.attentions.0". Blocks are numbered through; a down or up sampler counts with them.
#pragma once

#include <string>
#include <string_view>

#include "lamina/family/unet.h"

namespace lamina::unet {

// Of a module, or of one of its tensors. Throws Error for a name that is not in such a U-Net.
std::string original_name(std::string_view name, const Config& config);

}  // namespace lamina::unet
