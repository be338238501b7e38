#include "lamina/models/vae/vae.h"

#include "lamina/base/error.h"
#include "lamina/family/vae.h"
#include "lamina/nn/attention.h"
#include "lamina/nn/conv.h"

namespace lamina::vae {

namespace {

Conv conv(const Weights& weights, const std::string& path, int64_t stride = 1, int64_t padding = 1) {
  return {.weight = weights.matrix(path + ".weight"),
          .bias = weights.vector_or_none(path + ".bias"),
          .stride = stride,
          .padding = padding};
}

Tensor enlarged(const Tensor& x, int64_t by) {
  return at::upsample_nearest2d(x, {by * x.size(2), by * x.size(3)});
}

void check_map(const Tensor& x, int64_t channels, int64_t least, std::string_view what) {
  if (!x.defined() || x.dim() != 4 || x.size(0) == 0 || x.size(1) != channels)
    fail("{} must be [batch, {}, height, width]", what, channels);
  if (x.size(2) < least || x.size(3) < least)
    fail("{} are {}x{}; {}x{} is the least", what, x.size(2), x.size(3), least, least);
}

// z = (x - mean) * scale / deviation, channel by channel, and back.
struct Scaling {
  Tensor mean, factor;  // [1, channels, 1, 1], or [1, 1, 1, 1] for all of them

  Tensor into(const Tensor& x) const { return (x - mean.to(x.options())) * factor.to(x.options()); }
  Tensor back(const Tensor& z) const { return z / factor.to(z.options()) + mean.to(z.options()); }
};

Scaling scaling(double factor, double shift) {
  const auto one = [](double value) { return at::full({1, 1, 1, 1}, value, at::kDouble); };
  return {.mean = one(shift), .factor = one(factor)};
}

// ---- AutoencoderKL

struct Resnet {
  GroupNorm norm1, norm2;
  Conv conv1, conv2;
  std::optional<Conv> shortcut = {};

  Tensor operator()(const Tensor& x) const {
    const Tensor h = conv2(silu_of(norm2(conv1(silu_of(norm1(x))))));
    return (shortcut ? (*shortcut)(x) : x) + h;
  }
};

// One head as wide as the map, every place with every other.
struct Attention {
  GroupNorm norm;
  Linear q, k, v, o;

  // A convolution of 1x1 is a matrix on places.
  static Tensor on_places(const Linear& map, const Tensor& x) {
    return Linear{.weight = map.weight.flatten(1), .bias = map.bias}(x);
  }
  Tensor operator()(const Tensor& x) const {
    const Tensor h = norm(x).flatten(2).transpose(1, 2).contiguous();
    const auto head = [&](const Linear& map) { return on_places(map, h).unsqueeze(1); };
    const Tensor mixed = attend(head(q), head(k), head(v), {.causal = false}).squeeze(1);
    return x + on_places(o, mixed).transpose(1, 2).reshape(x.sizes());
  }
};

struct Middle {
  Resnet first, second;
  std::optional<Attention> attention = {};

  Tensor operator()(const Tensor& x) const {
    const Tensor h = first(x);
    return second(attention ? (*attention)(h) : h);
  }
};

struct Level {
  std::vector<Resnet> resnets;
  std::optional<Conv> sampler = {};

  Tensor operator()(Tensor x) const {
    for (const Resnet& resnet : resnets) x = resnet(x);
    return x;
  }
};

// The encoder or the decoder: the same things in another order.
struct Side {
  Conv in, out;
  std::vector<Level> levels;
  Middle middle;
  GroupNorm norm;

  Tensor last(const Tensor& x) const { return out(silu_of(norm(x))); }
};

// Reads weights as one config has them.
class Reader {
 public:
  Reader(const Checkpoint& checkpoint, const KlConfig& config, const Weights& weights)
      : checkpoint_(checkpoint), config_(config), weights_(weights) {}

  Side encoder() const {
    Side side = ends("encoder");
    for (const Stage& stage : encoder_stages(config_)) {
      side.levels.push_back(level(stage));
      if (stage.samples)
        side.levels.back().sampler = conv(weights_, stage.path + ".downsamplers.0.conv", 2, 0);
    }
    return side;
  }
  Side decoder() const {
    Side side = ends("decoder");
    for (const Stage& stage : decoder_stages(config_)) {
      side.levels.push_back(level(stage));
      if (stage.samples) side.levels.back().sampler = conv(weights_, stage.path + ".upsamplers.0.conv");
    }
    return side;
  }

 private:
  GroupNorm norm(const std::string& path) const {
    return {.gain = weights_.vector(path + ".weight"),
            .bias = weights_.vector(path + ".bias"),
            .groups = config_.groups,
            .epsilon = kNormEpsilon};
  }
  Resnet resnet(const std::string& path) const {
    Resnet made{.norm1 = norm(path + ".norm1"),
                .norm2 = norm(path + ".norm2"),
                .conv1 = conv(weights_, path + ".conv1"),
                .conv2 = conv(weights_, path + ".conv2")};
    if (checkpoint_.find(path + ".conv_shortcut.weight"))
      made.shortcut = conv(weights_, path + ".conv_shortcut", 1, 0);
    return made;
  }
  Level level(const Stage& stage) const {
    Level made;
    for (int64_t i = 0; i < stage.resnets; ++i)
      made.resnets.push_back(resnet(fmt::format("{}.resnets.{}", stage.path, i)));
    return made;
  }
  // All but the levels.
  Side ends(const std::string& name) const {
    const std::string middle = name + ".mid_block.";
    Side side{.in = conv(weights_, name + ".conv_in"),
              .out = conv(weights_, name + ".conv_out"),
              .levels = {},
              .middle = {.first = resnet(middle + "resnets.0"), .second = resnet(middle + "resnets.1")},
              .norm = norm(name + ".conv_norm_out")};
    if (config_.attends) {
      const std::string path = middle + "attentions.0.";
      const Spelling& spelling = spelling_of(checkpoint_, name);
      const auto map = [&](size_t which) { return weights_.linear(path + std::string(spelling[which])); };
      side.middle.attention =
          Attention{.norm = norm(path + "group_norm"), .q = map(0), .k = map(1), .v = map(2), .o = map(3)};
    }
    return side;
  }

  const Checkpoint& checkpoint_;
  const KlConfig& config_;
  const Weights& weights_;
};

Scaling scaling_of(const KlConfig& config) {
  Scaling made = scaling(config.scaling_factor, config.shift_factor);
  if (config.mean.empty()) return made;
  const auto row = [](const std::vector<double>& values) {
    return at::tensor(values, at::kDouble).view({1, -1, 1, 1});
  };
  return {.mean = row(config.mean), .factor = made.factor / row(config.deviation)};
}

class Kl : public Autoencoder {
 public:
  Kl(const Checkpoint& checkpoint, const Blueprint& blueprint, const KlConfig& config, const Weights& weights)
      : Autoencoder(blueprint, weights.dtype()), config_(config), scaling_(scaling_of(config)) {
    const Reader reader(checkpoint, config, weights);
    encoder_ = reader.encoder();
    decoder_ = reader.decoder();
    if (config.quant_conv) quant_ = conv(weights, "quant_conv", 1, 0);
    if (config.post_quant_conv) post_quant_ = conv(weights, "post_quant_conv", 1, 0);
  }

  int64_t factor() const override { return int64_t{1} << (config_.channels.size() - 1); }
  int64_t channels() const override { return config_.latent_channels; }

  Tensor encode(const Tensor& pixels) const override {
    check_map(pixels, config_.in_channels, factor(), "pixels");
    Tensor x = encoder_.in(pixels.to(dtype()));
    for (const Level& level : encoder_.levels) {
      x = level(x);
      // A row and a column of zeros, at the end alone.
      if (level.sampler) x = (*level.sampler)(at::constant_pad_nd(x, {0, 1, 0, 1}));
    }
    x = encoder_.last(encoder_.middle(x));
    if (quant_) x = (*quant_)(x);
    return scaling_.into(x.narrow(1, 0, config_.latent_channels));  // the mean; then the log-variance
  }

  Tensor decode(const Tensor& latents) const override {
    check_map(latents, config_.latent_channels, 1, "latents");
    Tensor x = scaling_.back(latents.to(dtype()));
    if (post_quant_) x = (*post_quant_)(x);
    x = decoder_.middle(decoder_.in(x));
    for (const Level& level : decoder_.levels) {
      x = level(x);
      if (level.sampler) x = (*level.sampler)(enlarged(x, 2));
    }
    return decoder_.last(x);
  }

 private:
  KlConfig config_;
  Scaling scaling_;
  Side encoder_, decoder_;
  std::optional<Conv> quant_, post_quant_;
};

// ---- AutoencoderTiny

struct TinyStep {
  Layer layer;
  std::vector<Conv> convs;  // one, or the three of a block

  Tensor operator()(const Tensor& x, int64_t upscale) const {
    switch (layer.kind) {
      case Layer::Kind::conv:
        return convs[0](x);
      case Layer::Kind::relu:
        return at::relu(x);
      case Layer::Kind::up:
        return enlarged(x, upscale);
      case Layer::Kind::block:
        return at::relu(convs[2](at::relu(convs[1](at::relu(convs[0](x))))) + x);
    }
    return x;
  }
};

class Tiny : public Autoencoder {
 public:
  Tiny(const Blueprint& blueprint, const TinyConfig& config, const Weights& weights)
      : Autoencoder(blueprint, weights.dtype()),
        config_(config),
        scaling_(scaling(config.scaling_factor, config.shift_factor)),
        encoder_(built(encoder_layers(config), weights)),
        decoder_(built(decoder_layers(config), weights)) {}

  // Of the decoder.
  int64_t factor() const override {
    int64_t factor = 1;
    for (size_t i = 1; i < config_.decoder_blocks.size(); ++i) factor *= config_.upscale;
    return factor;
  }
  int64_t channels() const override { return config_.latent_channels; }

  Tensor encode(const Tensor& pixels) const override {
    check_map(pixels, config_.in_channels, 1, "pixels");
    Tensor x = (pixels.to(dtype()) + 1) / 2;  // TAESD reads [0, 1]
    for (const TinyStep& step : encoder_) x = step(x, config_.upscale);
    return scaling_.into(x);
  }

  Tensor decode(const Tensor& latents) const override {
    check_map(latents, config_.latent_channels, 1, "latents");
    constexpr double kFar = 3;  // latents beyond are bent back
    Tensor x = at::tanh(scaling_.back(latents.to(dtype())) / kFar) * kFar;
    for (const TinyStep& step : decoder_) x = step(x, config_.upscale);
    return x * 2 - 1;
  }

 private:
  static std::vector<TinyStep> built(const std::vector<Layer>& layers, const Weights& weights) {
    std::vector<TinyStep> steps;
    for (const Layer& layer : layers) {
      TinyStep& step = steps.emplace_back(TinyStep{.layer = layer, .convs = {}});
      if (layer.kind == Layer::Kind::conv) step.convs = {conv(weights, layer.path, layer.stride)};
      if (layer.kind != Layer::Kind::block) continue;
      for (const char* name : {".conv.0", ".conv.2", ".conv.4"})
        step.convs.push_back(conv(weights, layer.path + name));
    }
    return steps;
  }

  TinyConfig config_;
  Scaling scaling_;
  std::vector<TinyStep> encoder_, decoder_;
};

}  // namespace

Stream Autoencoder::begin(const Inputs& inputs) const {
  return {.x = encode(inputs.sample), .shared = {}, .padding = {}, .cache = {}};
}

void Autoencoder::step(Stream&, Site, Tap&) const {}

Tensor Autoencoder::read_out(const Stream& stream, Tap&) const {
  return stream.x;
}

Tensor Autoencoder::finish(const Stream& stream, Tap&) const {
  return decode(stream.x);
}

std::unique_ptr<Autoencoder> build_autoencoder(const Checkpoint& checkpoint, const Blueprint& blueprint,
                                               const Weights& weights) {
  const std::string what = checkpoint.what();
  if (architecture_of(checkpoint.config, what).name == "AutoencoderTiny")
    return std::make_unique<Tiny>(blueprint, read_tiny_config(checkpoint.config, what), weights);
  return std::make_unique<Kl>(checkpoint, blueprint, read_kl_config(checkpoint.config, what), weights);
}

std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights) {
  return build_autoencoder(checkpoint, blueprint, weights);
}

}  // namespace lamina::vae
