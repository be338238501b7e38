// A text-to-image pipeline in action: prompts to conditions, noise to latents, latents to pixels.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/checkpoint/pipeline.h"
#include "lamina/data/prompt_tokenizer.h"
#include "lamina/diffusion/schedule.h"
#include "lamina/family/family.h"
#include "lamina/image/image.h"
#include "lamina/models/clip/clip.h"
#include "lamina/models/vae/vae.h"

namespace lamina {

// What a denoiser is told beside sample and time, row for row.
struct Conditions {
  Tensor text;                               // [batch, tokens, width]
  std::map<std::string, Tensor> added = {};  // see Inputs::added
};

// One after another along the batch.
Conditions stacked(const std::vector<Conditions>& conditions);

// The scheduler's config of a pipeline; an infinite lambda_min_clipped, as Python writes it, becomes null.
Json scheduler_config(const Pipeline& pipeline);

// Of Stable Diffusion 1, 2 (one text encoder, its last hidden state) and XL (two, the penultimate ones side
// by side, with the second's pooled vector and the sizes).
class Painter {
 public:
  struct Options {
    at::ScalarType dtype = at::kFloat;
    at::Device device = at::kCPU;
    bool without_denoiser = false;  // the caller has one of its own
  };
  Painter(const Pipeline& pipeline, Options options);

  const Pipeline& pipeline() const { return pipeline_; }
  const Opened& denoiser_opened() const { return *unet_opened_; }
  const Model& denoiser() const;  // throws Error when it was left away
  const vae::Autoencoder& autoencoder() const { return *vae_; }
  const NoiseSchedule& schedule() const { return schedule_; }
  const Json& scheduler_config() const { return scheduler_config_; }

  // Token ids of each prompt, padded as the tokenizer says, for text encoder 1 or 2.
  Tensor tokens(const std::vector<std::string>& prompts, int encoder = 1) const;
  // `height`, `width` in pixels: SDXL is told them.
  Conditions conditions(const std::vector<std::string>& prompts, int64_t height, int64_t width) const;
  // What guidance goes away from: the empty prompt, or zeros where the pipeline asks for them.
  Conditions unconditional(int64_t count, int64_t height, int64_t width) const;
  Tensor decode(const Tensor& latents) const;  // pixels in [-1, 1]

 private:
  Pipeline pipeline_;
  Options options_;
  Json scheduler_config_;
  NoiseSchedule schedule_;
  std::shared_ptr<Opened> unet_opened_, vae_opened_;
  std::unique_ptr<Model> unet_;
  std::unique_ptr<vae::Autoencoder> vae_;
  struct Encoder {
    PromptTokenizer tokenizer;
    std::shared_ptr<Opened> opened;
    std::unique_ptr<clip::TextEncoder> model;
  };
  std::vector<Encoder> encoders_;
};

struct SampleOptions {
  int64_t steps = 25;
  double guidance = 7.5;    // e_u + guidance (e_c - e_u); 1 or less: one pass a step
  std::string solver = {};  // empty: the pipeline's own
  Tensor noise = {};        // [batch, channels, height, width], standard normal
  Tensor start = {};        // latents of a picture to begin from, with `strength` of the way to go
  double strength = 0.8;
  uint64_t seed = 0;  // of the solver's own noise
  Watch watch = {};
  // After each call: what the picture would be by now (x_0), for previews. Null: not made.
  std::function<void(int64_t /*call*/, int64_t /*calls*/, const Tensor& /*clean latents*/)> preview = {};
};

// What runs at each call of the denoiser: the plain model, or one that keeps features between calls. `call`
// is 0, 1, ...; rows of the batch are [unconditional ; conditional] under guidance.
class Denoiser {
 public:
  virtual ~Denoiser() = default;
  virtual Tensor operator()(const Inputs& inputs, int64_t call, int64_t calls) = 0;
};
std::unique_ptr<Denoiser> plain(const Model& model);

// Latents of clean pictures.
Tensor sample(Denoiser& denoiser, const Json& scheduler_config, const Conditions& conditional,
              const Conditions& unconditional, const SampleOptions& options);

// The noise that a seed stands for: row i that of seed + i, whatever the batch.
Tensor starting_noise(int64_t count, at::IntArrayRef sizes, uint64_t seed);

Tensor pixels_of(const Picture& picture);                // [1, 3, height, width] in [-1, 1]
std::vector<Picture> pictures_of(const Tensor& pixels);  // of [batch, 3, height, width]

}  // namespace lamina
