#include "lamina/models/gpt2/gpt2.h"

#include <cmath>

#include "lamina/base/error.h"
#include "lamina/family/gpt2.h"
#include "lamina/model/clamping.h"
#include "lamina/nn/attention.h"

namespace lamina::gpt2 {

namespace {

struct Attention {
  std::optional<Norm> norm;
  Linear qkv, o;
  int64_t head_dim = 0;
  double sharpness = 1;  // of the scores, beside 1 / sqrt(head_dim)
  bool causal = true;

  // q, k and v, [batch, tokens, width] each.
  std::vector<Tensor> read(const Tensor& x, const NormTaps& norms) const {
    if (!norms.any()) return at::chunk(qkv(norms(Reader::qk, x)), 3, -1);
    const int64_t width = x.size(-1);
    std::vector<Tensor> split = at::chunk(qkv.outputs(0, 2 * width)(norms(Reader::qk, x)), 2, -1);
    split.push_back(qkv.outputs(2 * width, width)(norms(Reader::v, x)));
    return split;
  }

  Tensor operator()(const Stream& stream, Cache::Entry* cached, Tap& tap, Site site) const {
    const std::vector<Tensor> split = read(stream.x, NormTaps(norm, tap, site));
    Tensor queries = to_heads(split[0], head_dim);
    if (sharpness != 1) queries = queries * sharpness;
    Tensor keys = to_heads(split[1], head_dim), values = to_heads(split[2], head_dim);
    if (cached) {
      if (cached->keys.defined()) {
        keys = at::cat({cached->keys, keys}, 2);
        values = at::cat({cached->values, values}, 2);
      }
      *cached = {keys, values};
    }
    const AttendOptions options{.causal = looks_left(causal, tap, site, cached), .padding = stream.padding};
    const Tensor mixed = attend(queries, keys, values, options);
    if (tap.reads_heads(site)) tap.saw_heads(site, {queries, keys, mixed, options, o});
    return o(from_heads(mixed));
  }
};

Tensor activated(Activation activation, const Tensor& x) {
  switch (activation) {
    case Activation::gelu_tanh:
      return at::gelu(x, "tanh");
    case Activation::gelu:
      return at::gelu(x);
    case Activation::relu:
      return at::relu(x);
  }
  return x;
}

struct Mlp {
  std::optional<Norm> norm;
  Linear up, down;
  Activation activation = Activation::gelu_tanh;

  Tensor operator()(const Stream& stream, const NeuronTaps& taps, const NormTaps& norms) const {
    const Tensor h = up(norms(Reader::mlp, stream.x));
    if (!taps.any()) return down(activated(activation, h));
    return down(taps(NeuronPlace::post, activated(activation, taps(NeuronPlace::linear, h))));
  }
};

// Depth is the number of blocks; an absent branch is an absent weight.
struct Block {
  std::optional<Attention> attention;
  std::optional<Mlp> mlp;
};

class Gpt2 : public Model {
 public:
  Gpt2(const Blueprint& blueprint, const Config& config, const Weights& weights, Clamping own)
      : Model(blueprint, weights.dtype()),
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
      if (attention.present) {
        block.attention =
            Attention{.norm = in_front(attention),
                      .qkv = weights.linear_in_out(path + "attn.c_attn"),
                      .o = weights.linear_in_out(path + "attn.c_proj"),
                      .head_dim = config.head_dim(),
                      .sharpness = config.scaled ? 1 : std::sqrt(static_cast<double>(config.head_dim())),
                      .causal = attention.causal};
      }
      const Part& mlp = blueprint.parts[static_cast<size_t>(2 * b + 1)];
      if (mlp.present) {
        block.mlp = Mlp{.norm = in_front(mlp),
                        .up = weights.linear_in_out(path + "mlp.c_fc"),
                        .down = weights.linear_in_out(path + "mlp.c_proj"),
                        .activation = config.activation};
      }
    }
    // The stack is "transformer.h" or "h"; the positions stand beside it.
    positions_ = weights.matrix(blueprint.stack.substr(0, blueprint.stack.size() - 1) + "wpe.weight");
    if (!blueprint.final_norm.empty()) norm_ = norm(blueprint.final_norm);
    head_ = blueprint.tied() ? Linear{.weight = embedding_} : weights.linear(blueprint.head_path());
  }

  Stream begin(const Inputs& inputs) const override {
    const int64_t tokens = inputs.ids.size(1), before = inputs.cache ? inputs.cache->tokens : 0;
    if (before + tokens > positions_.size(0))
      fail("the text has {} tokens, but the model has {} learned positions; shorten the text",
           before + tokens, positions_.size(0));
    // Padding takes up positions too, as in transformers.
    Stream stream{.x = at::embedding(embedding_, inputs.ids).to(dtype()) +
                       positions_.narrow(0, before, tokens).to(dtype()),
                  .shared = {},
                  .padding = inputs.padding,
                  .cache = inputs.cache};
    if (stream.cache) {
      stream.cache->entries.resize(blueprint().parts.size());
      stream.cache->tokens = before + tokens;
    }
    return stream;
  }

  void step(Stream& stream, Site site, Tap& tap) const override {
    const Block& block = blocks_[static_cast<size_t>(site.index / 2)];
    const bool attends = site.index % 2 == 0;
    if (tap.skips(site) || (attends ? !block.attention : !block.mlp)) return;
    if (const Tensor* other = tap.stands_in(site)) {
      stream.x = stream.x + *other;
      return;
    }
    Cache::Entry* cached = stream.cache ? &stream.cache->entries[static_cast<size_t>(site.index)] : nullptr;
    const Tensor after = stream.x + (attends ? (*block.attention)(stream, cached, tap, site)
                                             : (*block.mlp)(stream, NeuronTaps(own_, tap, site),
                                                            NormTaps(block.mlp->norm, tap, site)));
    tap.saw(site, stream.x, after);
    stream.x = after;
  }

  Tensor read_out(const Stream& stream, Tap& tap) const override {
    const Tensor normed = NormTaps(norm_, tap, {})(Reader::head, stream.x);
    tap.saw_end(stream.x, normed);
    return normed;
  }

 private:
  Clamping own_;      // that the checkpoint carries
  Tensor embedding_;  // [vocabulary, width]
  Tensor positions_;  // [positions, width]
  std::vector<Block> blocks_;
  std::optional<Norm> norm_;
};

}  // namespace

std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights) {
  return std::make_unique<Gpt2>(blueprint, read_config(checkpoint.config, checkpoint.what()), weights,
                                Clamping(checkpoint, blueprint));
}

}  // namespace lamina::gpt2
