#include "lamina/models/clip/clip.h"

#include "lamina/base/error.h"
#include "lamina/family/clip.h"
#include "lamina/model/clamping.h"
#include "lamina/nn/attention.h"
#include "lamina/nn/conv.h"

namespace lamina::clip {

namespace {

struct Attention {
  std::optional<Norm> norm;
  Linear q, k, v, o;
  int64_t head_dim = 0;
  bool causal = true;

  // The residual behind it.
  Tensor operator()(const Stream& stream, Tap& tap, Site site) const {
    const NormTaps norms(norm, tap, site);
    const Tensor h = norms(Reader::qk, stream.x), read = norms.any() ? norms(Reader::v, stream.x) : h;
    const Tensor queries = to_heads(q(h), head_dim), keys = to_heads(k(h), head_dim),
                 values = to_heads(v(read), head_dim);
    const AttendOptions options{.causal = looks_left(causal, tap, site, nullptr), .padding = stream.padding};
    const Tensor mixed = attend(queries, keys, values, options);
    if (tap.reads_heads(site)) tap.saw_heads(site, {queries, keys, mixed, options, o});
    return o.onto(stream.x, from_heads(mixed));
  }
};

struct Mlp {
  std::optional<Norm> norm;
  Linear up, down;
  Activation activation = Activation::quick_gelu;

  Tensor activated(const Tensor& x) const {
    return activation == Activation::gelu ? gelu_of(x) : quick_gelu_of(x);
  }
  // The residual behind it.
  Tensor operator()(const Stream& stream, const NeuronTaps& taps, const NormTaps& norms) const {
    const Tensor h = up(norms(Reader::mlp, stream.x));
    if (!taps.any()) return down.onto(stream.x, activated(h));
    return down.onto(stream.x, taps(NeuronPlace::post, activated(taps(NeuronPlace::linear, h))));
  }
};

// Depth is the number of blocks; an absent branch is an absent weight.
struct Block {
  std::optional<Attention> attention;
  std::optional<Mlp> mlp;
};

class Clip : public TextEncoder {
 public:
  Clip(const Blueprint& blueprint, const Config& config, const Weights& weights, Clamping own)
      : TextEncoder(blueprint, weights.dtype()),
        config_(config),
        own_(std::move(own)),
        embedding_(weights.matrix(blueprint.embedding)) {
    const auto norm = [&](const std::string& path) {
      return Norm{.gain = weights.vector(path + ".weight"),
                  .bias = weights.vector(path + ".bias"),
                  .epsilon = config.norm_epsilon,
                  .centred = true};
    };
    const auto in_front = [&](const Part& part) {
      return part.norm ? std::optional(norm(part.norm->path)) : std::nullopt;
    };
    for (int b = 0; b < blueprint.blocks; ++b) {
      const std::string path = fmt::format("{}.{}.", blueprint.stack, b);
      Block& block = blocks_.emplace_back();
      const Part& attention = blueprint.parts[static_cast<size_t>(2 * b)];
      if (attention.present)
        block.attention = Attention{.norm = in_front(attention),
                                    .q = weights.linear(path + "self_attn.q_proj"),
                                    .k = weights.linear(path + "self_attn.k_proj"),
                                    .v = weights.linear(path + "self_attn.v_proj"),
                                    .o = weights.linear(path + "self_attn.out_proj"),
                                    .head_dim = config.head_dim(),
                                    .causal = attention.causal};
      const Part& mlp = blueprint.parts[static_cast<size_t>(2 * b + 1)];
      if (mlp.present)
        block.mlp = Mlp{.norm = in_front(mlp),
                        .up = weights.linear(path + "mlp.fc1"),
                        .down = weights.linear(path + "mlp.fc2"),
                        .activation = config.activation};
    }
    // The stack is "text_model.encoder.layers" or the same without its root.
    const std::string root = blueprint.stack.substr(0, blueprint.stack.rfind("encoder."));
    positions_ = weights.matrix(root + "embeddings.position_embedding.weight");
    norm_ = norm(root + "final_layer_norm");
    if (config.projection > 0) projection_ = weights.linear("text_projection");
  }

  Stream begin(const Inputs& inputs) const override {
    if (!inputs.ids.defined() || inputs.ids.dim() != 2 || inputs.ids.numel() == 0)
      fail("a text encoder reads ids, [batch, tokens] and at least one");
    if (inputs.cache) fail("a text encoder reads a text whole, and keeps no cache of it");
    const int64_t tokens = inputs.ids.size(1), rows = embedding_.size(0);
    if (tokens > positions_.size(0))
      fail("the text has {} tokens, but the model has {} learned positions; shorten the text", tokens,
           positions_.size(0));
    const int64_t least = inputs.ids.min().item<int64_t>(), most = inputs.ids.max().item<int64_t>();
    if (least < 0 || most >= rows)
      fail("the text has the id {}, but the embedding has rows for 0 to {}; is this its tokenizer?",
           least < 0 ? least : most, rows - 1);
    return {
        .x = at::embedding(embedding_, inputs.ids).to(dtype()) + positions_.narrow(0, 0, tokens).to(dtype()),
        .shared = {},
        .padding = inputs.padding,
        .cache = {}};
  }

  void step(Stream& stream, Site site, Tap& tap) const override {
    const Block& block = blocks_[static_cast<size_t>(site.index / 2)];
    const bool attends = site.index % 2 == 0;
    if (tap.skips(site) || (attends ? !block.attention : !block.mlp)) return;
    const Tensor* other = tap.stands_in(site);
    const Tensor after =
        other     ? stream.x + *other
        : attends ? (*block.attention)(stream, tap, site)
                  : (*block.mlp)(stream, NeuronTaps(own_, tap, site), NormTaps(block.mlp->norm, tap, site));
    if (!other) tap.saw(site, stream.x, after);
    stream.x = after;
  }

  Tensor read_out(const Stream& stream, Tap& tap) const override {
    const Tensor normed = NormTaps(norm_, tap, {})(Reader::head, stream.x);
    tap.saw_end(stream.x, normed);
    return normed;
  }

  Tensor finish(const Stream& stream, Tap& tap) const override { return read_out(stream, tap); }

  Encoded encode(const Tensor& ids) const override {
    Tap none;
    Stream stream = begin({.ids = ids});
    Encoded encoded;
    const int parts = static_cast<int>(blueprint().parts.size());
    for (int i = 0; i < parts; ++i) {
      if (i == parts - 2) encoded.penultimate = stream.x;
      step(stream, {i}, none);
    }
    encoded.last = finish(stream, none);
    // Where several are equal, the first.
    const Tensor end =
        at::argmax(config_.end_is_largest ? ids.to(at::kInt) : ids.eq(config_.end_of_text).to(at::kInt), 1);
    const Tensor rows = at::arange(ids.size(0), end.options());
    encoded.pooled = encoded.last.index({rows, end});
    if (projection_) encoded.pooled = (*projection_)(encoded.pooled);
    return encoded;
  }

 private:
  Config config_;
  Clamping own_;      // that the checkpoint carries
  Tensor embedding_;  // [vocabulary, width]
  Tensor positions_;  // [positions, width]
  std::vector<Block> blocks_;
  std::optional<Norm> norm_;
  std::optional<Linear> projection_;
};

}  // namespace

std::unique_ptr<TextEncoder> build_text(const Checkpoint& checkpoint, const Blueprint& blueprint,
                                        const Weights& weights) {
  return std::make_unique<Clip>(blueprint, read_config(checkpoint.config, checkpoint.what()), weights,
                                Clamping(checkpoint, blueprint));
}

std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights) {
  return build_text(checkpoint, blueprint, weights);
}

}  // namespace lamina::clip
