// LoRA files of a U-Net, carried over to a cut one: keys of modules that have another place now are renamed,
// those of modules that are gone are left out, all else (text encoders) stays. Spellings: diffusers and peft
// ("unet.up_blocks.1....lora_A.weight", "...processor.to_q_lora.down.weight"), kohya
// ("lora_unet_up_blocks_1_....lora_down.weight"), kohya with the original names
// ("lora_unet_output_blocks_4_1_...").
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lamina/export/export.h"

namespace lamina {

struct LoraReport {
  std::vector<std::string> kept, renamed, dropped;  // modules of the U-Net, as the file spells them
  size_t beside = 0;                                // tensors that are not of the U-Net
};

// `lora`: a .safetensors file made for the model. Writes `out` for what `form` holds of the model after the
// plan. Throws Error when the form is not possible, when no key names a module of the model, or one names
// what the model never had.
LoraReport remap_lora(const std::filesystem::path& lora, const Opened& model, const Plan& plan, Form form,
                      const std::filesystem::path& out);

}  // namespace lamina
