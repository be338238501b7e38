#include "lamina/heal/denoise.h"

#include <cmath>
#include <numeric>

#include "lamina/base/error.h"

namespace lamina {

namespace {

void check_shape(const Tensor& given, const Batch& batch) {
  if (given.sizes() != batch.targets.sizes())
    fail("the network gives {} where the batch asks for {}", given.sizes().vec(),
         batch.targets.sizes().vec());
}

class Learning : public Conditioner {
 public:
  explicit Learning(std::shared_ptr<Student> encoder) : encoder_(std::move(encoder)) {}
  Tensor text(const Inputs& inputs) const override { return encoder_->model().run({.ids = inputs.ids}); }
  std::vector<Parameter> parameters() const override {
    std::vector<Parameter> all = encoder_->parameters();
    for (Parameter& parameter : all) parameter.name = "text_encoder." + parameter.name;
    return all;
  }
  std::string digest() const override { return "a text encoder that learns"; }

 private:
  std::shared_ptr<Student> encoder_;
};

class Denoising : public Objective {
 public:
  explicit Denoising(std::shared_ptr<const Conditioner> conditioner) : conditioner_(std::move(conditioner)) {}

  Losses operator()(const Pass& pass) const override {
    const Tensor said = saying(pass);
    check_shape(said, pass.batch);
    const Tensor sum = at::mse_loss(said, pass.batch.targets.to(said.scalar_type()), at::Reduction::Sum);
    return {.sum = sum * pass.weight, .measure = sum.item<double>()};
  }
  std::vector<Parameter> parameters() const override {
    return conditioner_ ? conditioner_->parameters() : std::vector<Parameter>{};
  }
  std::string digest() const override {
    return conditioner_ ? "denoising with " + conditioner_->digest() : "denoising";
  }

 private:
  Tensor saying(const Pass& pass) const {
    if (!conditioner_) return given(pass);
    Inputs inputs = pass.batch.inputs;
    inputs.text = conditioner_->text(inputs);
    return given(pass, inputs);
  }
  std::shared_ptr<const Conditioner> conditioner_;
};

// Sum over the numbers of the map, so that all of it can be divided by their number: neighbours are fewer.
Tensor edge_error(const Tensor& difference) {
  const Tensor across = difference.diff(1, -1).square().mean(), down = difference.diff(1, -2).square().mean();
  return (across + down) * static_cast<double>(difference.numel());
}

class Reconstruction : public Objective {
 public:
  explicit Reconstruction(const ReconstructionOptions& options) : options_(options) {
    for (const double weight : {options.square, options.absolute, options.edges}) {
      if (!(weight >= 0) || !std::isfinite(weight))
        fail("a weight of a reconstruction is {}; it takes 0 or more", weight);
    }
    if (options.square + options.absolute + options.edges == 0)
      fail("every weight of the reconstruction is 0; nothing would be learnt");
  }

  Losses operator()(const Pass& pass) const override {
    const Tensor made = given(pass);
    check_shape(made, pass.batch);
    const Tensor difference = made - pass.batch.targets.to(made.scalar_type());
    const Tensor square = difference.square().sum();
    Losses losses{.sum = square * options_.square, .measure = square.item<double>()};
    const auto add = [&](const char* name, double weight, const Tensor& term) {
      losses.terms[name] = term.item<double>();
      losses.sum = losses.sum + term * weight;
    };
    if (options_.absolute > 0) add("absolute", options_.absolute, difference.abs().sum());
    if (options_.edges > 0) add("edges", options_.edges, edge_error(difference));
    losses.sum = losses.sum * pass.weight;
    return losses;
  }
  std::string digest() const override {
    return fmt::format("reconstruction, square {}, absolute {}, edges {}", options_.square, options_.absolute,
                       options_.edges);
  }

 private:
  ReconstructionOptions options_;
};

class Classification : public Objective {
 public:
  explicit Classification(std::vector<int64_t> classes) : classes_(std::move(classes)) {
    for (const int64_t count : classes_) {
      if (count < 2) fail("a question has {} possible answers; it takes two or more", count);
    }
    if (classes_.empty()) fail("a scorer answers one question or more");
  }

  Losses operator()(const Pass& pass) const override {
    const Tensor logits = given(pass), &asked = pass.batch.targets;
    const int64_t all = std::accumulate(classes_.begin(), classes_.end(), int64_t{0});
    if (logits.dim() != 2 || logits.size(1) != all)
      fail("the network gives {} where questions of {} answers were expected", logits.sizes().vec(), all);
    if (asked.dim() != 2 || asked.size(1) != std::ssize(classes_))
      fail("the answers are {} and the questions {}", asked.sizes().vec(), classes_.size());
    Tensor sum = at::zeros({}, logits.options().dtype(at::kFloat));
    int64_t first = 0;
    for (size_t i = 0; i < classes_.size(); ++i) {
      const Tensor answers = logits.narrow(1, first, classes_[i]);
      const auto wide = answers.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      sum = sum + at::cross_entropy_loss(answers.to(wide), asked.select(1, static_cast<int64_t>(i)), {},
                                         at::Reduction::Sum, kNotLearnt);
      first += classes_[i];
    }
    return {.sum = sum * pass.weight, .measure = sum.item<double>()};
  }
  std::string digest() const override { return fmt::format("answers of {}", fmt::join(classes_, ", ")); }

 private:
  std::vector<int64_t> classes_;
};

}  // namespace

Tensor given(const Pass& pass) {
  const Stream end = walk(pass);
  return pass.model.finish(end, pass.tap);
}

Tensor given(const Pass& pass, const Inputs& inputs) {
  const Batch batch{.inputs = inputs, .targets = pass.batch.targets, .first = pass.batch.first};
  return given({.model = pass.model,
                .batch = batch,
                .tap = pass.tap,
                .gradient_checkpointing = pass.gradient_checkpointing,
                .recomputing = pass.recomputing,
                .weight = pass.weight});
}

std::unique_ptr<Conditioner> learning(std::shared_ptr<Student> text_encoder) {
  return std::make_unique<Learning>(std::move(text_encoder));
}

std::unique_ptr<Objective> denoising(std::shared_ptr<const Conditioner> conditioner) {
  return std::make_unique<Denoising>(std::move(conditioner));
}

std::unique_ptr<Objective> reconstruction(const ReconstructionOptions& options) {
  return std::make_unique<Reconstruction>(options);
}

std::unique_ptr<Objective> classification(std::vector<int64_t> classes) {
  return std::make_unique<Classification>(std::move(classes));
}

}  // namespace lamina
