#include "lamina/models/llama/llama.h"

#include <cmath>
#include <numbers>

#include "lamina/base/error.h"
#include "lamina/family/llama.h"
#include "lamina/model/clamping.h"
#include "lamina/nn/attention.h"

namespace lamina::llama {

namespace {

struct Attention {
  std::optional<Norm> norm;
  Linear q, k, v, o;
  int64_t head_dim = 0;
  int64_t window = 0;
  bool causal = true;

  // The residual behind it.
  Tensor operator()(const Stream& stream, Cache::Entry* cached, Tap& tap, Site site) const {
    const NormTaps norms(norm, tap, site);
    const Tensor h = norms(Reader::qk, stream.x), read = norms.any() ? norms(Reader::v, stream.x) : h;
    const Rotary rotary{stream.shared.at("cosine"), stream.shared.at("sine")};
    const Tensor queries = rotate(to_heads(q(h), head_dim), rotary);
    Tensor keys = rotate(to_heads(k(h), head_dim), rotary), values = to_heads(v(read), head_dim);
    if (cached) {
      if (cached->keys.defined()) {
        keys = at::cat({cached->keys, keys}, 2);
        values = at::cat({cached->values, values}, 2);
      }
      *cached = {keys, values};
    }
    const AttendOptions options{
        .window = window, .causal = looks_left(causal, tap, site, cached), .padding = stream.padding};
    const Tensor mixed = attend(queries, keys, values, options);
    if (tap.reads_heads(site)) tap.saw_heads(site, {queries, keys, mixed, options, o});
    return o.onto(stream.x, from_heads(mixed));
  }
};

struct Mlp {
  std::optional<Norm> norm;
  Linear gate, up, down;

  // The residual behind it.
  Tensor operator()(const Stream& stream, const NeuronTaps& taps, const NormTaps& norms) const {
    const Tensor h = norms(Reader::mlp, stream.x);
    if (!taps.any()) return down.onto(stream.x, gated(gate, up, h));
    // By the same kernels, so that a tap that changes nothing changes nothing to the bit.
    const Tensor opened = taps(NeuronPlace::gate, gate(h)), read = taps(NeuronPlace::linear, up(h));
    return down.onto(stream.x, taps(NeuronPlace::post, gated(opened, read)));
  }
};

// Depth is the number of blocks; an absent branch is an absent weight.
struct Block {
  std::optional<Attention> attention;
  std::optional<Mlp> mlp;
};

// Inverse wavelengths of the rotary embedding, float64 [head_dim / 2].
Tensor frequencies(const Config& config) {
  const Tensor exponent =
      at::arange(0, config.head_dim, 2, at::kDouble) / static_cast<double>(config.head_dim);
  return at::pow(config.rope_theta, exponent).reciprocal() / at::tensor(rope_divisors(config), at::kDouble);
}

class Llama : public Model {
 public:
  Llama(const Blueprint& blueprint, const Config& config, const Weights& weights, Clamping own)
      : Model(blueprint, weights.dtype()),
        own_(std::move(own)),
        frequencies_(frequencies(config)),
        embedding_(weights.matrix(blueprint.embedding)) {
    const auto norm = [&](const std::string& path) {
      return Norm{.gain = weights.vector(path + ".weight"), .epsilon = config.norm_epsilon};
    };
    const auto in_front = [&](const Part& part) {
      return part.norm ? std::optional(norm(part.norm->path)) : std::nullopt;
    };
    for (int b = 0; b < blueprint.blocks; ++b) {
      const std::string path = fmt::format("{}.{}.", blueprint.stack, b);
      Block& block = blocks_.emplace_back();
      const Part& attention = blueprint.parts[static_cast<size_t>(2 * b)];
      if (attention.present) {
        block.attention = Attention{.norm = in_front(attention),
                                    .q = weights.linear(path + "self_attn.q_proj"),
                                    .k = weights.linear(path + "self_attn.k_proj"),
                                    .v = weights.linear(path + "self_attn.v_proj"),
                                    .o = weights.linear(path + "self_attn.o_proj"),
                                    .head_dim = config.head_dim,
                                    .window = config.windows[static_cast<size_t>(b)],
                                    .causal = attention.causal};
      }
      const Part& mlp = blueprint.parts[static_cast<size_t>(2 * b + 1)];
      if (mlp.present) {
        block.mlp = Mlp{.norm = in_front(mlp),
                        .gate = weights.linear(path + "mlp.gate_proj"),
                        .up = weights.linear(path + "mlp.up_proj"),
                        .down = weights.linear(path + "mlp.down_proj")};
      }
    }
    if (!blueprint.final_norm.empty()) norm_ = norm(blueprint.final_norm);
    head_ = blueprint.tied() ? Linear{.weight = embedding_} : weights.linear(blueprint.head_path());
  }

  Stream begin(const Inputs& inputs) const override {
    const int64_t tokens = inputs.ids.size(1), before = inputs.cache ? inputs.cache->tokens : 0;
    Stream stream{.x = at::embedding(embedding_, inputs.ids).to(dtype()),
                  .shared = {},
                  .padding = inputs.padding,
                  .cache = inputs.cache};
    const Tensor positions = at::arange(before, before + tokens, at::kDouble);
    // transformers computes the angles in float32; a float64 model is held against it in float64.
    const auto wide = dtype() == at::kDouble ? at::kDouble : at::kFloat;
    const Tensor angles = positions.to(wide).unsqueeze(1) * frequencies_.to(wide).unsqueeze(0);
    const Tensor both = at::cat({angles, angles}, 1);  // [tokens, head_dim]
    stream.shared = {{"cosine", both.cos().to(stream.x.options())},
                     {"sine", both.sin().to(stream.x.options())}};
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
    const Tensor after =
        attends ? (*block.attention)(stream, cached, tap, site)
                : (*block.mlp)(stream, NeuronTaps(own_, tap, site), NormTaps(block.mlp->norm, tap, site));
    tap.saw(site, stream.x, after);
    stream.x = after;
  }

  Tensor read_out(const Stream& stream, Tap& tap) const override {
    const Tensor normed = NormTaps(norm_, tap, {})(Reader::head, stream.x);
    tap.saw_end(stream.x, normed);
    return normed;
  }

 private:
  Clamping own_;        // that the checkpoint carries
  Tensor frequencies_;  // float64 [head_dim / 2]
  Tensor embedding_;    // [vocabulary, width]
  std::vector<Block> blocks_;
  std::optional<Norm> norm_;
};

}  // namespace

std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights) {
  return std::make_unique<Llama>(blueprint, read_config(checkpoint.config, checkpoint.what()), weights,
                                 Clamping(checkpoint, blueprint));
}

}  // namespace lamina::llama
