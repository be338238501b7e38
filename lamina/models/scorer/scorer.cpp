#include "lamina/models/scorer/scorer.h"

#include "lamina/base/error.h"
#include "lamina/nn/conv.h"

namespace lamina::scorer {

namespace {

// x + conv(silu(norm(conv(silu(norm(x)))))), then half the size.
struct Stage {
  GroupNorm norm1, norm2;
  Conv conv1, conv2;
  std::optional<Conv> down;

  Tensor operator()(const Tensor& x) const {
    const Tensor y = x + conv2(silu_of(norm2(conv1(silu_of(norm1(x))))));
    return down ? (*down)(y) : y;
  }
};

class Residual : public Scorer {
 public:
  Residual(const Blueprint& blueprint, Config config, const Weights& weights)
      : Scorer(blueprint, weights.dtype()),
        config_(std::move(config)),
        conv_in_(conv(weights, "conv_in", 1)),
        norm_out_(norm(weights, "norm_out")),
        squeeze_(conv(weights, "squeeze", 1, 0)),
        features_(weights.linear("features")) {
    for (size_t i = 0; i < config_.channels.size(); ++i) {
      const std::string path = fmt::format("stages.{}", i);
      Stage& stage = stages_.emplace_back(Stage{.norm1 = norm(weights, path + ".norm1"),
                                                .norm2 = norm(weights, path + ".norm2"),
                                                .conv1 = conv(weights, path + ".conv1", 1),
                                                .conv2 = conv(weights, path + ".conv2", 1),
                                                .down = {}});
      if (i + 1 < config_.channels.size()) stage.down = conv(weights, path + ".down", 2);
    }
    head_ = weights.linear("head");
  }

  const Config& config() const override { return config_; }

  Stream begin(const Inputs& inputs) const override {
    if (!inputs.sample.defined() || inputs.sample.dim() != 4 || inputs.sample.size(1) != 3)
      fail("a scorer reads pictures [batch, 3, height, width]");
    return {.x = conv_in_(inputs.sample.to(dtype())), .shared = {}, .padding = {}, .cache = {}};
  }

  void step(Stream&, Site, Tap&) const override {}

  Tensor read_out(const Stream& stream, Tap& tap) const override {
    Tensor x = stream.x;
    for (const Stage& stage : stages_) x = stage(x);
    const int64_t side = config_.last_side();
    // Nothing changes at the size it was made for.
    if (x.size(2) != side || x.size(3) != side) x = at::adaptive_avg_pool2d(x, {side, side});
    const Tensor features = silu_of(features_(squeeze_(silu_of(norm_out_(x))).flatten(1)));
    tap.saw_end(x, features);
    return features;
  }

 private:
  static Conv conv(const Weights& weights, const std::string& path, int64_t stride, int64_t padding = 1) {
    return {.weight = weights.matrix(path + ".weight"),
            .bias = weights.vector(path + ".bias"),
            .stride = stride,
            .padding = padding};
  }
  GroupNorm norm(const Weights& weights, const std::string& path) const {
    return {.gain = weights.vector(path + ".weight"),
            .bias = weights.vector(path + ".bias"),
            .groups = config_.groups};
  }

  Config config_;
  Conv conv_in_;
  GroupNorm norm_out_;
  Conv squeeze_;
  Linear features_;
  std::vector<Stage> stages_;
};

}  // namespace

std::unique_ptr<Scorer> build_scorer(const Checkpoint& checkpoint, const Blueprint& blueprint,
                                     const Weights& weights) {
  return std::make_unique<Residual>(blueprint, read_config(checkpoint.config, checkpoint.what()), weights);
}

std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights) {
  return build_scorer(checkpoint, blueprint, weights);
}

}  // namespace lamina::scorer
