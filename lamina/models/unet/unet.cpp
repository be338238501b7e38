#include "lamina/models/unet/unet.h"

#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/family/unet.h"
#include "lamina/nn/attention.h"
#include "lamina/nn/conv.h"
#include "lamina/nn/mixed_conv.h"
#include "lamina/nn/regional.h"

namespace lamina::unet {

namespace {

// Maps of one part as a pass asks for them: it may be told what each reads and gives.
class Watched {
 public:
  Watched(Tap& tap, Site site, const std::string& path)
      : tap_(tap), site_(site), path_(path), on_(tap.reads_maps(site)) {}
  template <class Map>
  Tensor operator()(const Map& map, std::string_view name, const Tensor& x) const {
    const Tensor y = map(x);
    if (on_) tap_.saw_map(site_, path_ + std::string(name), x, y);
    return y;
  }

 private:
  Tap& tap_;
  Site site_;
  const std::string& path_;
  bool on_;
};

// A convolution of a ResNet, of one kernel or of several.
struct Kernel {
  Conv plain = {};
  std::optional<MixedConv> mixed = {};

  Tensor operator()(const Tensor& x, const Tensor& time, const Watched& watched,
                    const std::string& name) const {
    return watched(
        [&](const Tensor& read) {
          if (!mixed) return plain(read);
          const Tensor routed = watched(mixed->router, name + ".router", mixed->features(read, time));
          return (*mixed)(read, mixed->gates(routed));
        },
        name, x);
  }
};

struct Resnet {
  GroupNorm norm1, norm2;
  Kernel conv1, conv2;
  Linear time;

  // What is added to the residual.
  Tensor operator()(const Tensor& x, const Tensor& time_embedding, const Watched& watched) const {
    const Tensor moved = watched(time, ".time_emb_proj", time_embedding);  // [batch, channels]
    const Tensor h =
        conv1(silu(norm1(x)), time_embedding, watched, ".conv1") + moved.unsqueeze(-1).unsqueeze(-1);
    return conv2(silu(norm2(h)), time_embedding, watched, ".conv2");
  }
};

struct Attention {
  Linear q, k, v, out;
  int64_t heads = 1;

  Tensor operator()(const Tensor& x, const Tensor& read, const Watched& watched,
                    std::string_view name) const {
    const int64_t width = q.weight.size(0) / heads;
    const std::string at(name);
    const Tensor mixed =
        attend(to_heads(watched(q, at + ".to_q", x), width), to_heads(watched(k, at + ".to_k", read), width),
               to_heads(watched(v, at + ".to_v", read), width), {.causal = false});
    return watched(out, at + ".to_out.0", from_heads(mixed));
  }
};

// Where the tokens of a transformer stand, and what they read.
struct Place {
  const Tensor& text;  // [batch, tokens, width]
  int64_t height, width;
  Tap& tap;
  Site site;
};

// Self-attention through windows and cells.
class Regionally : public MapAttention {
 public:
  explicit Regionally(RegionalOptions options) : options_(std::move(options)) {}
  Tensor operator()(const MapQuery& query) const override {
    return attend_regional(query.q(query.x), query.k(query.x), query.v(query.x), query.heads, query.height,
                           query.width, options_);
  }

 private:
  RegionalOptions options_;
};

struct Block {
  Norm norm1, norm2, norm3;
  Attention self, cross;
  Linear into, out_of;
  bool only_cross = false;
  std::optional<Regionally> regional = {};  // how the self-attention looks where the pass does not say

  // [batch, tokens, channels]: the residual behind it.
  Tensor operator()(Tensor x, const Place& place, const Watched& watched) const {
    const Tensor h = norm1(x);
    const MapAttention* other = only_cross ? nullptr : place.tap.map_attention(place.site);
    if (!other && regional) other = &*regional;
    if (other) {
      const Tensor mixed = (*other)({.x = h,
                                     .q = self.q,
                                     .k = self.k,
                                     .v = self.v,
                                     .heads = self.heads,
                                     .height = place.height,
                                     .width = place.width});
      x = x + watched(self.out, ".attn1.to_out.0", mixed);
    } else {
      x = x + self(h, only_cross ? place.text : h, watched, ".attn1");
    }
    x = x + cross(norm2(x), place.text, watched, ".attn2");
    const std::vector<Tensor> halves = watched(into, ".ff.net.0.proj", norm3(x)).chunk(2, -1);
    return x + watched(out_of, ".ff.net.2", halves[0] * gelu(halves[1]));  // GEGLU
  }
};

// Norm and projections around the blocks of a transformer. A convolution of 1x1 is a matrix on tokens.
struct Around {
  GroupNorm norm;
  Linear into, out_of;

  static Tensor on_tokens(const Linear& map, const Tensor& x) {
    return map.weight.dim() == 2 ? map(x) : Linear{.weight = map.weight.flatten(1), .bias = map.bias}(x);
  }
  Tensor enter(const Tensor& x, const Watched& watched) const {
    const Tensor tokens = norm(x).flatten(2).transpose(1, 2).contiguous();
    return watched([&](const Tensor& h) { return on_tokens(into, h); }, ".proj_in", tokens);
  }
  // What is added to the map that was entered with.
  Tensor leave(const Tensor& tokens, const Tensor& map, const Watched& watched) const {
    const Tensor h = watched([&](const Tensor& t) { return on_tokens(out_of, t); }, ".proj_out", tokens);
    return h.transpose(1, 2).reshape(map.sizes());
  }
};

// One step of the program, with the weights it needs; which of them there are, the kind says.
struct Step {
  Op op;
  bool present = true;
  std::optional<Resnet> resnet = {};
  std::optional<Conv> conv = {};  // the shortcut of a ResNet, or a sampler's
  std::optional<Around> around = {};
  std::optional<Block> block = {};
};

struct Embedding {
  Linear first, second;
  Tensor operator()(const Tensor& x) const { return second(silu(first(x))); }
};

class Unet : public Model {
 public:
  Unet(const Blueprint& blueprint, const Config& config, const Weights& weights)
      : Model(blueprint, weights.dtype()),
        config_(config),
        conv_in_(conv(weights, "conv_in", 1, (config.conv_in_kernel - 1) / 2)),
        conv_out_(conv(weights, "conv_out", 1, (config.conv_out_kernel - 1) / 2)),
        norm_out_(norm(weights, "conv_norm_out", config.norm_epsilon)),
        time_(embedding(weights, "time_embedding")) {
    if (config.added_time_width > 0) added_ = embedding(weights, "add_embedding");
    for (const Op& op : program(config)) {
      if (op.part >= 0) first_.push_back(steps_.size());
      steps_.push_back(built(op, weights));
    }
    first_.push_back(steps_.size());
  }

  Stream begin(const Inputs& inputs) const override {
    check(inputs);
    Stream stream{.x = inputs.sample.to(dtype()), .shared = {}, .padding = {}, .cache = {}};
    if (config_.centre_input) stream.x = 2 * stream.x - 1;
    Tensor time = time_(waves(inputs.time, config_.channels[0]));
    if (added_) {
      const Tensor &text = inputs.added.at("text_embeds"), &ids = inputs.added.at("time_ids");
      const Tensor six = waves(ids.flatten(), config_.added_time_width).reshape({text.size(0), -1});
      time = time + (*added_)(at::cat({text.to(dtype()), six}, 1));
    }
    stream.shared = {{"time", silu(time)}, {"text", inputs.text.to(dtype())}};
    stream.x = conv_in_(stream.x);
    Tap none;
    for (size_t i = 0; i < first_.front(); ++i) take(steps_[i], stream, none);
    return stream;
  }

  void step(Stream& stream, Site site, Tap& tap) const override {
    const auto part = static_cast<size_t>(site.index);
    for (size_t i = first_[part]; i < first_[part + 1]; ++i) take(steps_[i], stream, tap);
  }

  Tensor read_out(const Stream& stream, Tap& tap) const override {
    const Tensor normed = silu(norm_out_(stream.x));
    tap.saw_end(stream.x, normed);
    return normed;
  }

  Tensor finish(const Stream& stream, Tap& tap) const override {
    static const std::string path = "conv_out";
    return Watched(tap, {}, path)(conv_out_, "", read_out(stream, tap));
  }

 private:
  static Conv conv(const Weights& weights, const std::string& path, int64_t stride, int64_t padding) {
    return {.weight = weights.matrix(path + ".weight"),
            .bias = weights.vector(path + ".bias"),
            .stride = stride,
            .padding = padding};
  }
  GroupNorm norm(const Weights& weights, const std::string& path, double epsilon) const {
    return {.gain = weights.vector(path + ".weight"),
            .bias = weights.vector(path + ".bias"),
            .groups = config_.groups,
            .epsilon = epsilon};
  }
  static Embedding embedding(const Weights& weights, const std::string& path) {
    return {weights.linear(path + ".linear_1"), weights.linear(path + ".linear_2")};
  }

  Step built(const Op& op, const Weights& weights) const {
    constexpr double kTransformerEpsilon = 1e-6;  // whatever the config says
    Step step{.op = op, .present = present(op, blueprint())};
    const auto around = [&] {
      return Around{.norm = norm(weights, op.path + ".norm", kTransformerEpsilon),
                    .into = weights.linear(op.path + ".proj_in"),
                    .out_of = weights.linear(op.path + ".proj_out")};
    };
    switch (op.kind) {
      case Op::Kind::resnet:
        if (op.in != op.out) step.conv = conv(weights, op.path + ".conv_shortcut", 1, 0);
        if (!step.present) break;
        step.resnet = Resnet{.norm1 = norm(weights, op.path + ".norm1", config_.norm_epsilon),
                             .norm2 = norm(weights, op.path + ".norm2", config_.norm_epsilon),
                             .conv1 = kernel(op, ".conv1", weights),
                             .conv2 = kernel(op, ".conv2", weights),
                             .time = weights.linear(op.path + ".time_emb_proj")};
        break;
      case Op::Kind::transformer:
        if (!step.present) break;
        step.around = around();
        if (op.depth == 1) step.block = block(op, op.path + ".transformer_blocks.0", weights);
        break;
      case Op::Kind::enter:
      case Op::Kind::leave:
        if (step.present) step.around = around();
        break;
      case Op::Kind::block:
        if (step.present) step.block = block(op, op.path, weights);
        break;
      case Op::Kind::down:
        step.conv = conv(weights, op.path, 2, config_.downsample_padding);
        break;
      case Op::Kind::up:
        step.conv = conv(weights, op.path, 1, 1);
        break;
      case Op::Kind::keep:
      case Op::Kind::take:
      case Op::Kind::stage_end:
        break;
    }
    return step;
  }

  Kernel kernel(const Op& op, const std::string& name, const Weights& weights) const {
    const std::string path = op.path + name;
    Kernel kernel{.plain = conv(weights, path, 1, 1)};
    for (const Experts& experts : blueprint().parts[static_cast<size_t>(op.part)].experts) {
      if (experts.conv != path) continue;
      MixedConv mixed{.kept = kernel.plain,
                      .router = weights.linear(path + ".router"),
                      .gate = static_cast<MixedConv::Gate>(experts.gate),
                      .reads = static_cast<MixedConv::Reads>(experts.reads)};
      for (size_t e = 0; e < experts.donors.size(); ++e)
        mixed.others.push_back(conv(weights, fmt::format("{}.experts.{}", path, e), 1, 1));
      kernel.mixed = std::move(mixed);
    }
    return kernel;
  }

  std::optional<Regionally> regional(const Op& op, const std::string& path, const Weights& weights) const {
    const std::optional<Windows>& windows = blueprint().parts[static_cast<size_t>(op.part)].windows;
    if (!windows) return std::nullopt;
    return Regionally({.window = windows->window,
                       .pool = windows->pool,
                       .log_count = windows->log_count,
                       .mask_own = windows->mask_own,
                       .cells_look = windows->mix == Windows::Mix::pooled,
                       .gate = windows->mix == Windows::Mix::gate
                                   ? weights.vector(path + ".attn1.regional_gate")
                                   : Tensor()});
  }

  Block block(const Op& op, const std::string& path, const Weights& weights) const {
    const auto layer_norm = [&](const std::string& name) {
      return Norm{.gain = weights.vector(path + name + ".weight"),
                  .bias = weights.vector(path + name + ".bias"),
                  .epsilon = 1e-5,
                  .centred = true};
    };
    const auto attention = [&](const std::string& name) {
      return Attention{.q = weights.linear(path + name + ".to_q"),
                       .k = weights.linear(path + name + ".to_k"),
                       .v = weights.linear(path + name + ".to_v"),
                       .out = weights.linear(path + name + ".to_out.0"),
                       .heads = op.heads};
    };
    return {.norm1 = layer_norm(".norm1"),
            .norm2 = layer_norm(".norm2"),
            .norm3 = layer_norm(".norm3"),
            .self = attention(".attn1"),
            .cross = attention(".attn2"),
            .into = weights.linear(path + ".ff.net.0.proj"),
            .out_of = weights.linear(path + ".ff.net.2"),
            .only_cross = op.only_cross,
            .regional = regional(op, path, weights)};
  }

  void check(const Inputs& inputs) const {
    const auto is = [](const Tensor& tensor, int64_t rank) {
      return tensor.defined() && tensor.dim() == rank;
    };
    if (!is(inputs.sample, 4) || !is(inputs.time, 1) || !is(inputs.text, 3))
      fail(
          "a U-Net reads a sample [batch, channels, height, width], a time [batch] and a text [batch, "
          "tokens, width]");
    const int64_t batch = inputs.sample.size(0);
    if (inputs.sample.size(1) != config_.in_channels)
      fail("the sample has {} channels where the U-Net reads {}", inputs.sample.size(1), config_.in_channels);
    if (inputs.text.size(0) != batch || inputs.time.size(0) != batch)
      fail("the sample is a batch of {}, the text one of {}, the time one of {}", batch, inputs.text.size(0),
           inputs.time.size(0));
    for (const Step& step : steps_) {
      if (step.block && step.op.context != inputs.text.size(2))
        fail("{} reads a text of width {}, not of {}", step.op.path, step.op.context, inputs.text.size(2));
    }
    if (!added_) return;
    const auto text = inputs.added.find("text_embeds"), ids = inputs.added.find("time_ids");
    if (text == inputs.added.end() || ids == inputs.added.end() || ids->second.dim() != 2 ||
        ids->second.size(0) != batch || text->second.dim() != 2 || text->second.size(0) != batch)
      fail("this U-Net also reads text_embeds [batch, width] and time_ids [batch, numbers]");
    const int64_t width = text->second.size(1) + ids->second.size(1) * config_.added_time_width;
    if (width != config_.added_width)
      fail("text_embeds and time_ids make {} numbers where the U-Net reads {}", width, config_.added_width);
  }

  // The sinusoids of numbers [n]: [n, width], in float32 as diffusers makes them, in float64 for a model that
  // is.
  Tensor waves(const Tensor& numbers, int64_t width) const {
    const auto wide = dtype() == at::kDouble ? at::kDouble : at::kFloat;
    const int64_t half = width / 2;
    const Tensor exponent = at::arange(half, numbers.options().dtype(wide)) * -std::log(10000.0) /
                            (static_cast<double>(half) - config_.frequency_shift);
    const Tensor angles = numbers.to(wide).unsqueeze(1) * exponent.exp().unsqueeze(0);
    const Tensor sine = angles.sin(), cosine = angles.cos();
    Tensor both = config_.cosine_first ? at::cat({cosine, sine}, 1) : at::cat({sine, cosine}, 1);
    if (width % 2 != 0) both = at::constant_pad_nd(both, {0, 1});
    return both.to(dtype());
  }

  // Whether nothing of the wrapper runs in this pass.
  bool all_gone(const Op& op, Tap& tap) const {
    return std::ranges::all_of(blueprint().wrappers[static_cast<size_t>(op.wrapper)].parts, [&](int part) {
      return !blueprint().parts[static_cast<size_t>(part)].present || tap.skips({part});
    });
  }

  void take(const Step& step, Stream& stream, Tap& tap) const {
    const Op& op = step.op;
    Tensor& x = stream.x;
    switch (op.kind) {
      case Op::Kind::keep:
        stream.stack.push_back(x);
        break;
      case Op::Kind::take:
        x = at::cat({x, stream.stack.back()}, 1);
        stream.stack.pop_back();
        break;
      case Op::Kind::resnet:
      case Op::Kind::transformer:
      case Op::Kind::block:
        part(step, stream, tap);
        break;
      case Op::Kind::enter:
        stream.stack.push_back(x);
        if (step.present && !all_gone(op, tap)) x = step.around->enter(x, Watched(tap, {}, op.path));
        break;
      case Op::Kind::leave: {
        const Tensor map = stream.stack.back();
        stream.stack.pop_back();
        // A pass that began with other parts than it ends with may have entered all the same.
        x = all_gone(op, tap) ? map : map + step.around->leave(x, map, Watched(tap, {}, op.path));
        tap.saw_between(op.path, x);
        break;
      }
      case Op::Kind::down:
        if (config_.downsample_padding == 0) x = at::constant_pad_nd(x, {0, 1, 0, 1});
        x = Watched(tap, {}, op.path)(*step.conv, "", x);
        tap.saw_between(op.path, x);
        break;
      case Op::Kind::up: {
        const Tensor& skip = stream.stack.back();
        x = Watched(tap, {}, op.path)(*step.conv, "",
                                      at::upsample_nearest2d(x, {skip.size(2), skip.size(3)}));
        tap.saw_between(op.path, x);
        break;
      }
      case Op::Kind::stage_end:
        tap.saw_stage(op.stage, x);
        break;
    }
  }

  void part(const Step& step, Stream& stream, Tap& tap) const {
    const Op& op = step.op;
    const Site site{op.part};
    const Watched watched(tap, site, op.path);
    if (op.kind == Op::Kind::resnet && step.conv) {
      const Tensor through = watched(*step.conv, ".conv_shortcut", stream.x);
      if (!runs(step, tap)) {
        stream.x = through;
        return;
      }
      settle(stream, tap, site, through,
             [&] { return (*step.resnet)(stream.x, stream.shared.at("time"), watched); });
      return;
    }
    if (!runs(step, tap)) return;
    const Tensor before = stream.x;
    if (op.kind == Op::Kind::resnet) {
      settle(stream, tap, site, before,
             [&] { return (*step.resnet)(before, stream.shared.at("time"), watched); });
    } else if (op.kind == Op::Kind::transformer) {
      settle(stream, tap, site, before, [&] {
        Tensor tokens = step.around->enter(before, watched);
        const Place place{stream.shared.at("text"), before.size(2), before.size(3), tap, site};
        const std::string inside = op.path + ".transformer_blocks.0";
        if (step.block) tokens = (*step.block)(tokens, place, Watched(tap, site, inside));
        return step.around->leave(tokens, before, watched);
      });
    } else if (const Tensor* other = tap.stands_in(site)) {
      stream.x = before + *other;
    } else {
      const Tensor& map = stream.stack.back();
      stream.x =
          (*step.block)(before, {stream.shared.at("text"), map.size(2), map.size(3), tap, site}, watched);
      tap.saw(site, before, stream.x);
    }
  }

  bool runs(const Step& step, Tap& tap) const { return step.present && !tap.skips({step.op.part}); }

  // The residual behind a part: with what it adds, or with what stands in for that.
  template <class Branch>
  static void settle(Stream& stream, Tap& tap, Site site, const Tensor& before, const Branch& branch) {
    if (const Tensor* other = tap.stands_in(site)) {
      stream.x = before + *other;
      return;
    }
    stream.x = before + branch();
    tap.saw(site, before, stream.x);
  }

  Config config_;
  Conv conv_in_, conv_out_;
  GroupNorm norm_out_;
  Embedding time_;
  std::optional<Embedding> added_;
  std::vector<Step> steps_;
  std::vector<size_t> first_;  // of each part, index into steps_; one more: the end
};

}  // namespace

std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights) {
  return std::make_unique<Unet>(blueprint, read_config(checkpoint.config, checkpoint.what()), weights);
}

}  // namespace lamina::unet
