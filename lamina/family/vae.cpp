#include "lamina/family/vae.h"

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::vae {

namespace {

constexpr size_t kMostStages = 16;
constexpr IntegerRange kWidth{1, 1 << 20}, kLayers{1, 64}, kBlocks{0, 64};

// What a config may say of a key of which only one value is known here.
void only(const Json& json, std::string_view key, std::initializer_list<std::string_view> known,
          std::string_view what) {
  const std::string value = json_string_or(json, key, *known.begin(), what);
  if (std::ranges::find(known, value) == known.end())
    fail("{}: \"{}\" is {}, of which only {} is known here", what, key, in_quotes(value, 40), *known.begin());
}

const Json& list_of(const Json& json, std::string_view key, const Json& otherwise, std::string_view what) {
  const Json& value = json_has(json, key) ? json.at(std::string(key)) : otherwise;
  if (!value.is_array() || value.empty() || value.size() > kMostStages)
    fail("{}: \"{}\" must be a list of 1 to {} entries", what, key, kMostStages);
  return value;
}

std::vector<int64_t> whole_numbers(const Json& json, std::string_view key, const Json& otherwise,
                                   IntegerRange range, std::string_view what) {
  std::vector<int64_t> values;
  for (const Json& entry : list_of(json, key, otherwise, what))
    values.push_back(json_integer({{std::string(key), entry}}, key, what, range));
  return values;
}

void stages_of(const Json& json, std::string_view key, std::string_view type, size_t stages,
               std::string_view what) {
  const Json& types = list_of(json, key, Json::array({type}), what);
  if (types.size() != stages)
    fail("{}: \"{}\" has {} entries where \"block_out_channels\" has {}", what, key, types.size(), stages);
  for (const Json& entry : types) {
    if (entry != type)
      fail("{}: \"{}\" holds {}; only {} is known here", what, key, in_quotes(entry.dump(), 40), type);
  }
}

double nonzero(const Json& json, std::string_view key, double otherwise, std::string_view what) {
  const double value = json_number_or(json, key, otherwise, what);
  if (!(value > 0) || !std::isfinite(value))
    fail("{}: \"{}\" is {} where a positive number was expected", what, key, value);
  return value;
}

// One number a latent channel; empty where the config has none.
std::vector<double> per_channel(const Json& json, std::string_view key, int64_t channels,
                                std::string_view what) {
  std::vector<double> values;
  if (!json_has(json, key)) return values;
  const Json& list = json.at(std::string(key));
  if (!list.is_array() || static_cast<int64_t>(list.size()) != channels)
    fail("{}: \"{}\" must have one number for each of the {} latent channels", what, key, channels);
  for (const Json& entry : list) values.push_back(json_number_or({{std::string(key), entry}}, key, 0, what));
  return values;
}

// Fills in the slots. An axis without a name is shared with no other slot that could be cut with it.
class Declaration {
 public:
  explicit Declaration(Blueprint& blueprint, const Checkpoint* checkpoint = nullptr)
      : b_(blueprint), checkpoint_(checkpoint) {}

  void conv(const std::string& path, int64_t out, int64_t in, int64_t kernel, bool bias = true) {
    add(path, {outer(out), outer(in), outer(kernel), outer(kernel)}, bias);
  }
  void norm(const std::string& path, int64_t width) { add(path, {outer(width)}, true); }

  void resnet(const std::string& path, int64_t in, int64_t out) {
    norm(path + ".norm1", in);
    conv(path + ".conv1", out, in, 3);
    norm(path + ".norm2", out);
    conv(path + ".conv2", out, out, 3);
    if (in != out) conv(path + ".conv_shortcut", out, in, 1);
  }
  void attention(std::string_view side, int64_t width) {
    const std::string path = fmt::format("{}.mid_block.attentions.0.", side);
    norm(path + "group_norm", width);
    const Spelling& spelling = checkpoint_ ? spelling_of(*checkpoint_, side) : kSpelling;
    for (std::string_view name : spelling) {
      const std::string map = path + std::string(name);
      const Stored* stored = checkpoint_ ? checkpoint_->find(map + ".weight") : nullptr;
      std::vector<Axis> axes = {outer(width), outer(width)};
      if (stored && stored->shape.size() == 4) axes.insert(axes.end(), 2, outer(1));
      add(map, std::move(axes), true);
    }
  }
  void middle(std::string_view side, const KlConfig& config) {
    const std::string path = fmt::format("{}.mid_block.resnets.", side);
    const int64_t width = config.channels.back();
    resnet(path + "0", width, width);
    if (config.attends) attention(side, width);
    resnet(path + "1", width, width);
  }
  void stages(const std::vector<Stage>& stages, std::string_view sampler) {
    for (const Stage& stage : stages) {
      for (int64_t i = 0; i < stage.resnets; ++i)
        resnet(fmt::format("{}.resnets.{}", stage.path, i), i == 0 ? stage.in : stage.out, stage.out);
      if (stage.samples) conv(fmt::format("{}.{}.0.conv", stage.path, sampler), stage.out, stage.out, 3);
    }
  }
  void layers(const std::vector<Layer>& layers) {
    for (const Layer& layer : layers) {
      if (layer.kind == Layer::Kind::conv) conv(layer.path, layer.out, layer.in, 3, layer.bias);
      if (layer.kind != Layer::Kind::block) continue;
      for (const char* name : {".conv.0", ".conv.2", ".conv.4"})
        conv(layer.path + name, layer.out, layer.in, 3);
    }
  }

 private:
  static Axis outer(int64_t size) { return {"", size}; }
  void add(const std::string& path, std::vector<Axis> axes, bool bias) {
    const Axis rows = axes.front();
    b_.slots.push_back({.name = path + ".weight", .axes = std::move(axes)});
    if (bias) b_.slots.push_back({.name = path + ".bias", .axes = {rows}});
  }

  Blueprint& b_;
  const Checkpoint* checkpoint_;
};

Blueprint kl_spelled(const Json& json, const Checkpoint* checkpoint, std::string_view what) {
  const KlConfig c = read_kl_config(json, what);
  Blueprint b;
  b.family = "vae";
  b.width = c.channels[0];
  Declaration declare(b, checkpoint);
  declare.conv("encoder.conv_in", c.channels.front(), c.in_channels, 3);
  declare.stages(encoder_stages(c), "downsamplers");
  declare.middle("encoder", c);
  declare.norm("encoder.conv_norm_out", c.channels.back());
  declare.conv("encoder.conv_out", 2 * c.latent_channels, c.channels.back(), 3);
  declare.conv("decoder.conv_in", c.channels.back(), c.latent_channels, 3);
  declare.middle("decoder", c);
  declare.stages(decoder_stages(c), "upsamplers");
  declare.norm("decoder.conv_norm_out", c.channels.front());
  declare.conv("decoder.conv_out", c.out_channels, c.channels.front(), 3);
  if (c.quant_conv) declare.conv("quant_conv", 2 * c.latent_channels, 2 * c.latent_channels, 1);
  if (c.post_quant_conv) declare.conv("post_quant_conv", c.latent_channels, c.latent_channels, 1);
  return b;
}

Blueprint kl_blueprint(const Json& json, std::string_view what) {
  return kl_spelled(json, nullptr, what);
}

Blueprint kl_blueprint_of(const Checkpoint& checkpoint) {
  return kl_spelled(checkpoint.config, &checkpoint, checkpoint.what());
}

Blueprint tiny_blueprint(const Json& json, std::string_view what) {
  const TinyConfig c = read_tiny_config(json, what);
  Blueprint b;
  b.family = "vae";
  b.width = c.encoder_width;
  Declaration declare(b);
  declare.layers(encoder_layers(c));
  declare.layers(decoder_layers(c));
  return b;
}

// Stages of one width: a step down or up keeps it, and no block changes it.
int64_t one_width(const Json& json, std::string_view key, size_t stages, std::string_view what) {
  const std::vector<int64_t> widths = whole_numbers(json, key, Json::array({64, 64, 64, 64}), kWidth, what);
  if (widths.size() != stages)
    fail("{}: \"{}\" has {} entries where the numbers of blocks have {}", what, key, widths.size(), stages);
  if (std::ranges::any_of(widths, [&](int64_t width) { return width != widths[0]; }))
    fail("{}: \"{}\" has different widths, between which nothing leads", what, key);
  return widths[0];
}

Json small_kl() {
  return {{"_class_name", "AutoencoderKL"},
          {"in_channels", 3},
          {"out_channels", 3},
          {"down_block_types", {"DownEncoderBlock2D", "DownEncoderBlock2D"}},
          {"up_block_types", {"UpDecoderBlock2D", "UpDecoderBlock2D"}},
          {"block_out_channels", {8, 16}},
          {"layers_per_block", 1},
          {"act_fn", "silu"},
          {"latent_channels", 4},
          {"norm_num_groups", 4},
          {"scaling_factor", 0.5},
          {"shift_factor", 0.25}};
}

Json small_tiny() {
  return {{"_class_name", "AutoencoderTiny"},
          {"encoder_block_out_channels", {8, 8}},
          {"decoder_block_out_channels", {8, 8}},
          {"num_encoder_blocks", {1, 2}},
          {"num_decoder_blocks", {2, 1}},
          {"act_fn", "relu"},
          {"latent_channels", 4},
          {"upsampling_scaling_factor", 2},
          {"scaling_factor", 1.0}};
}

}  // namespace

KlConfig read_kl_config(const Json& json, std::string_view what) {
  KlConfig c;
  c.in_channels = json_integer_or(json, "in_channels", 3, what, kWidth);
  c.out_channels = json_integer_or(json, "out_channels", 3, what, kWidth);
  c.latent_channels = json_integer_or(json, "latent_channels", 4, what, kWidth);
  c.channels = whole_numbers(json, "block_out_channels", Json::array({64}), kWidth, what);
  stages_of(json, "down_block_types", "DownEncoderBlock2D", c.channels.size(), what);
  stages_of(json, "up_block_types", "UpDecoderBlock2D", c.channels.size(), what);
  c.layers = json_integer_or(json, "layers_per_block", 1, what, kLayers);
  c.groups = json_integer_or(json, "norm_num_groups", 32, what, kWidth);
  for (int64_t width : c.channels) {
    if (width % c.groups != 0)
      fail("{}: {} groups (norm_num_groups) do not divide {} channels", what, c.groups, width);
  }
  only(json, "act_fn", {"silu", "swish"}, what);
  c.scaling_factor = nonzero(json, "scaling_factor", 0.18215, what);
  c.shift_factor = json_number_or(json, "shift_factor", 0, what);
  c.mean = per_channel(json, "latents_mean", c.latent_channels, what);
  c.deviation = per_channel(json, "latents_std", c.latent_channels, what);
  if (c.mean.empty() != c.deviation.empty())
    fail("{}: of \"latents_mean\" and \"latents_std\" only one is there", what);
  if (!c.mean.empty() && c.shift_factor != 0)
    fail("{}: \"latents_mean\" and \"shift_factor\" both move the latents; one is possible", what);
  if (std::ranges::any_of(c.deviation, [](double d) { return !(d > 0); }))
    fail("{}: \"latents_std\" holds a number that is not positive", what);
  c.quant_conv = json_bool_or(json, "use_quant_conv", true, what);
  c.post_quant_conv = json_bool_or(json, "use_post_quant_conv", true, what);
  c.attends = json_bool_or(json, "mid_block_add_attention", true, what);
  json_bool_or(json, "force_upcast", true, what);  // of half precision, which nothing is computed in here
  return c;
}

TinyConfig read_tiny_config(const Json& json, std::string_view what) {
  TinyConfig c;
  c.in_channels = json_integer_or(json, "in_channels", 3, what, kWidth);
  c.out_channels = json_integer_or(json, "out_channels", 3, what, kWidth);
  c.latent_channels = json_integer_or(json, "latent_channels", 4, what, kWidth);
  c.encoder_blocks = whole_numbers(json, "num_encoder_blocks", Json::array({1, 3, 3, 3}), kBlocks, what);
  c.decoder_blocks = whole_numbers(json, "num_decoder_blocks", Json::array({3, 3, 3, 1}), kBlocks, what);
  c.encoder_width = one_width(json, "encoder_block_out_channels", c.encoder_blocks.size(), what);
  c.decoder_width = one_width(json, "decoder_block_out_channels", c.decoder_blocks.size(), what);
  only(json, "act_fn", {"relu"}, what);
  only(json, "upsample_fn", {"nearest"}, what);
  c.upscale = json_integer_or(json, "upsampling_scaling_factor", 2, what, {1, 16});
  c.scaling_factor = nonzero(json, "scaling_factor", 1, what);
  c.shift_factor = json_number_or(json, "shift_factor", 0, what);
  return c;
}

std::vector<Stage> encoder_stages(const KlConfig& config) {
  std::vector<Stage> stages;
  int64_t width = config.channels.front();
  for (size_t i = 0; i < config.channels.size(); ++i) {
    stages.push_back({.path = fmt::format("encoder.down_blocks.{}", i),
                      .in = width,
                      .out = config.channels[i],
                      .resnets = config.layers,
                      .samples = i + 1 < config.channels.size()});
    width = config.channels[i];
  }
  return stages;
}

std::vector<Stage> decoder_stages(const KlConfig& config) {
  std::vector<Stage> stages;
  const size_t count = config.channels.size();
  int64_t width = config.channels.back();
  for (size_t i = 0; i < count; ++i) {
    const int64_t out = config.channels[count - 1 - i];
    stages.push_back({.path = fmt::format("decoder.up_blocks.{}", i),
                      .in = width,
                      .out = out,
                      .resnets = config.layers + 1,
                      .samples = i + 1 < count});
    width = out;
  }
  return stages;
}

const Spelling& spelling_of(const Checkpoint& checkpoint, std::string_view side) {
  const std::string old = fmt::format("{}.mid_block.attentions.0.{}.weight", side, kOldSpelling[0]);
  return checkpoint.find(old) ? kOldSpelling : kSpelling;
}

namespace {

// Numbers the layers as torch's Sequential does: every one counts, those without weights too.
class Numbering {
 public:
  explicit Numbering(std::string_view side) : side_(side) {}
  void add(Layer layer) {
    layer.path = fmt::format("{}.layers.{}", side_, layers.size());
    layers.push_back(std::move(layer));
  }
  std::vector<Layer> layers;

 private:
  std::string_view side_;
};

}  // namespace

std::vector<Layer> encoder_layers(const TinyConfig& config) {
  Numbering list("encoder");
  const int64_t width = config.encoder_width;
  for (size_t i = 0; i < config.encoder_blocks.size(); ++i) {
    if (i == 0)
      list.add({.in = config.in_channels, .out = width});
    else
      list.add({.in = width, .out = width, .stride = 2, .bias = false});
    for (int64_t k = 0; k < config.encoder_blocks[i]; ++k)
      list.add({.kind = Layer::Kind::block, .in = width, .out = width});
  }
  list.add({.in = width, .out = config.latent_channels});
  return list.layers;
}

std::vector<Layer> decoder_layers(const TinyConfig& config) {
  Numbering list("decoder");
  const int64_t width = config.decoder_width;
  list.add({.in = config.latent_channels, .out = width});
  list.add({.kind = Layer::Kind::relu});
  for (size_t i = 0; i < config.decoder_blocks.size(); ++i) {
    const bool last = i + 1 == config.decoder_blocks.size();
    for (int64_t k = 0; k < config.decoder_blocks[i]; ++k)
      list.add({.kind = Layer::Kind::block, .in = width, .out = width});
    if (!last) list.add({.kind = Layer::Kind::up});
    list.add({.in = width, .out = last ? config.out_channels : width, .bias = last});
  }
  return list.layers;
}

Architecture kl_declaration() {
  return {.name = "AutoencoderKL",
          .model_type = "autoencoder_kl",
          .blueprint = kl_blueprint,
          .tiny = small_kl,
          .dialects = {},
          .blueprint_of = kl_blueprint_of};
}

Architecture tiny_declaration() {
  return {.name = "AutoencoderTiny",
          .model_type = "autoencoder_tiny",
          .blueprint = tiny_blueprint,
          .tiny = small_tiny,
          .dialects = {}};
}

}  // namespace lamina::vae
