// Prompts to conditions, latents to pixels: the networks of a pipeline around its denoiser.
#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/diffusion/pipeline.h"
#include "lamina/models/registry.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

// json.dumps of Python writes an infinite number as such, which is no JSON; diffusers does so for one field.
std::string without_infinity(std::string text) {
  constexpr std::string_view key = "\"lambda_min_clipped\"", infinite = "-Infinity";
  const size_t at = text.find(key);
  if (at == std::string::npos) return text;
  const size_t value = text.find_first_not_of(" \t\r\n:", at + key.size());
  if (value != std::string::npos && std::string_view(text).substr(value).starts_with(infinite))
    text.replace(value, infinite.size(), "null");
  return text;
}

void check_has(const Pipeline& pipeline, std::string_view component) {
  if (!pipeline.has(component))
    fail(
        "{}: has no {}; pipelines of text-to-image U-Nets are known here, with unet, vae, scheduler, "
        "text_encoder and "
        "tokenizer",
        pipeline.path.string(), component);
}

Weights::Options weights_of(const Opened& opened, const Painter::Options& options) {
  Weights::Options out{.dtype = options.dtype};
  if (options.device.is_cpu()) return out;
  for (const Stored& stored : opened.checkpoint.tensors)
    out.trained.emplace(stored.name, load(stored, options.dtype).to(options.device));
  return out;
}

}  // namespace

Json scheduler_config(const Pipeline& pipeline) {
  check_has(pipeline, "scheduler");
  const fs::path path = pipeline.folder("scheduler") / "scheduler_config.json";
  Json config = parse_json(without_infinity(read_file(path, size_t{1} << 20)), path.string());
  if (!config.is_object()) fail("{}: is not a JSON object", path.string());
  return config;
}

Painter::Painter(const Pipeline& pipeline, Options options)
    : pipeline_(pipeline),
      options_(options),
      scheduler_config_(lamina::scheduler_config(pipeline)),
      schedule_(noise_schedule(scheduler_config_,
                               (pipeline.folder("scheduler") / "scheduler_config.json").string())) {
  for (const char* component : {"unet", "vae", "text_encoder", "tokenizer"}) check_has(pipeline, component);
  const auto opened = [&](std::string_view component) {
    return std::make_shared<Opened>(open(pipeline.folder(component)));
  };
  unet_opened_ = opened("unet");
  if (!options.without_denoiser) unet_ = build_model(*unet_opened_, weights_of(*unet_opened_, options));
  vae_opened_ = opened("vae");
  vae_ = vae::build_autoencoder(vae_opened_->checkpoint, vae_opened_->blueprint,
                                Weights(vae_opened_->checkpoint, weights_of(*vae_opened_, options)));
  for (const std::string number : {"", "_2"}) {
    if (!pipeline.has("text_encoder" + number)) continue;
    check_has(pipeline, "tokenizer" + number);
    Encoder encoder{.tokenizer = open_prompt_tokenizer(pipeline.folder("tokenizer" + number)),
                    .opened = opened("text_encoder" + number),
                    .model = nullptr};
    encoder.model =
        clip::build_text(encoder.opened->checkpoint, encoder.opened->blueprint,
                         Weights(encoder.opened->checkpoint, weights_of(*encoder.opened, options)));
    encoders_.push_back(std::move(encoder));
  }
}

const Model& Painter::denoiser() const {
  if (!unet_) fail("{}: was opened without its denoiser", pipeline_.path.string());
  return *unet_;
}

Tensor Painter::tokens(const std::vector<std::string>& prompts, int encoder) const {
  if (encoder < 1 || encoder > static_cast<int>(encoders_.size()))
    fail("{}: has {} text encoders, not {}", pipeline_.path.string(), encoders_.size(), encoder);
  const PromptTokenizer& tokenizer = encoders_[static_cast<size_t>(encoder) - 1].tokenizer;
  std::vector<int64_t> all;
  for (const std::string& prompt : prompts)
    for (const int32_t id : tokenizer.ids(prompt)) all.push_back(id);
  return at::tensor(all, at::TensorOptions(at::kLong))
      .reshape({static_cast<int64_t>(prompts.size()), tokenizer.length});
}

Conditions Painter::conditions(const std::vector<std::string>& prompts, int64_t height, int64_t width) const {
  if (prompts.empty()) fail("there is no prompt");
  const InferenceMode guard;
  std::vector<clip::TextEncoder::Encoded> encoded;
  for (size_t i = 0; i < encoders_.size(); ++i)
    encoded.push_back(
        encoders_[i].model->encode(tokens(prompts, static_cast<int>(i) + 1).to(options_.device)));
  if (encoded.size() == 1) return {.text = encoded[0].last};
  // Podell et al. (2023): the size that the picture was, from where it was cut, and the size it is to be.
  const auto tall = static_cast<double>(height), wide = static_cast<double>(width);
  const Tensor ids = at::tensor({tall, wide, 0.0, 0.0, tall, wide}, at::TensorOptions(options_.dtype));
  const auto count = static_cast<int64_t>(prompts.size());
  return {.text = at::cat({encoded[0].penultimate, encoded[1].penultimate}, -1),
          .added = {{"text_embeds", encoded[1].pooled},
                    {"time_ids", ids.to(options_.device).unsqueeze(0).repeat({count, 1})}}};
}

Conditions Painter::unconditional(int64_t count, int64_t height, int64_t width) const {
  Conditions empty = conditions(std::vector<std::string>(static_cast<size_t>(count), ""), height, width);
  // A pipeline of two encoders that does not say is one that asks for zeros.
  const bool zeros =
      encoders_.size() > 1 && json_bool_or(pipeline_.index, "force_zeros_for_empty_prompt", true,
                                           (pipeline_.path / "model_index.json").string());
  if (zeros) {
    empty.text = at::zeros_like(empty.text);
    empty.added["text_embeds"] = at::zeros_like(empty.added["text_embeds"]);
  }
  return empty;
}

Tensor Painter::decode(const Tensor& latents) const {
  const InferenceMode guard;
  return vae_->decode(latents.to(options_.device, options_.dtype));
}

}  // namespace lamina
