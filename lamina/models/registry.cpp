#include "lamina/models/registry.h"

#include "lamina/base/error.h"
#include "lamina/models/clip/clip.h"
#include "lamina/models/gpt2/gpt2.h"
#include "lamina/models/llama/llama.h"
#include "lamina/models/scorer/scorer.h"
#include "lamina/models/unet/unet.h"
#include "lamina/models/vae/vae.h"

namespace lamina {

namespace {

struct Entry {
  std::string_view architecture;
  std::unique_ptr<Model> (*build)(const Checkpoint&, const Blueprint&, const Weights&);
};

constexpr Entry kModels[] = {
    {"LlamaForCausalLM", llama::build},   {"MistralForCausalLM", llama::build},
    {"Qwen2ForCausalLM", llama::build},   {"GPT2LMHeadModel", gpt2::build},
    {"LaminaSceneScorer", scorer::build}, {"UNet2DConditionModel", unet::build},
    {"CLIPTextModel", clip::build},       {"CLIPTextModelWithProjection", clip::build},
    {"AutoencoderKL", vae::build},        {"AutoencoderTiny", vae::build},
};

}  // namespace

std::unique_ptr<Model> build_model(const Opened& opened, Weights::Options options) {
  for (const Entry& entry : kModels) {
    if (entry.architecture == opened.architecture->name) {
      return entry.build(opened.checkpoint, opened.blueprint, Weights(opened.checkpoint, std::move(options)));
    }
  }
  fail("{} can be opened and edited here, but not run", opened.architecture->name);
}

}  // namespace lamina
