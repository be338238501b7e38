#include "lamina/heal/from_config.h"

#include "lamina/tensor/store.h"

namespace lamina {

Opened from_config(const Json& config, const std::string& name, const FirstNumbers& options) {
  Checkpoint checkpoint;
  checkpoint.path = name;
  checkpoint.config = config;
  checkpoint.config_text = config.dump(2) + "\n";
  const bool diffusers = json_has(config, "_class_name");
  checkpoint.shards.push_back(
      {.name = diffusers ? "diffusion_pytorch_model.safetensors" : "model.safetensors",
       .metadata = {{"format", "pt"}},
       .metadata_present = true});
  const std::string what = checkpoint.what();
  const Blueprint blueprint = architecture_of(config, what).blueprint(config, what);
  for (const Slot& slot : blueprint.slots) {
    const Tensor numbers = first_numbers(slot, blueprint, options).contiguous();
    Stored stored{.name = slot.name, .shape = {numbers.sizes().begin(), numbers.sizes().end()}};
    store(stored, numbers);
    checkpoint.tensors.push_back(std::move(stored));
  }
  return declare(std::move(checkpoint));
}

}  // namespace lamina
