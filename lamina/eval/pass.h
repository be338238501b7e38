// What evaluations share: samples, a tap of their own in front of the caller's, the end of a walk.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lamina/model/model.h"

namespace lamina {

using Samples = std::vector<std::vector<int32_t>>;  // token ids, a text each

// A tap of an evaluation's own over the caller's, which decides and sees all that it would alone: what it
// freezes is frozen here too. Its answers must not depend on what it saw before.
class Over : public Tap {
 public:
  explicit Over(Tap& base) : base_(base) {}
  bool skips(Site site) const override { return base_.skips(site); }
  void saw(Site site, const Tensor& before, const Tensor& after) override { base_.saw(site, before, after); }
  bool reads_neurons(Site site) const override { return base_.reads_neurons(site); }
  Tensor neurons(Site site, NeuronPlace place, const Tensor& values) override {
    return base_.reads_neurons(site) ? base_.neurons(site, place, values) : values;
  }
  bool reads_norm(Site site) const override { return base_.reads_norm(site); }
  Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
    return base_.reads_norm(path.site) ? base_.norm(path, norm, x) : norm(x);
  }
  bool reads_heads(Site site) const override { return base_.reads_heads(site); }
  void saw_heads(Site site, const Heads& heads) override {
    if (base_.reads_heads(site)) base_.saw_heads(site, heads);
  }
  void saw_end(const Tensor& residual, const Tensor& normed) override { base_.saw_end(residual, normed); }

 private:
  Tap& base_;
};

// [1, tokens] int64.
Tensor as_batch(const std::vector<int32_t>& ids);
// Throws Error when there is no sample, one has fewer than two tokens, or a token is not in the vocabulary.
void check_samples(const Model& model, const Samples& samples);
// Carries the stream over the parts present from the index `first` on.
void walk_from(const Model& model, Stream& stream, int first, Tap& tap);

// The last norm as a pass meets it.
struct End {
  Tensor normed;                     // what the head reads
  std::optional<Norm> norm = {};     // nothing: the model has none
  std::optional<Tensor> scale = {};  // what each token was divided by, [..., 1], by whatever the tap did
  // What is added to `normed` by a piece of the residual when the division stays as it was.
  Tensor share(const Tensor& piece) const;
};
End read_end(const Model& model, const Stream& stream, Tap& tap);

// The last norm with its division held at `scale`.
class HeldEnd : public Over {
 public:
  HeldEnd(Tap& base, Tensor scale) : Over(base), scale_(std::move(scale)) {}
  bool reads_norm(Site site) const override { return site == Site{} || Over::reads_norm(site); }
  Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
    return path.site == Site{} ? norm.held(x, scale_) : Over::norm(path, norm, x);
  }

 private:
  Tensor scale_;
};

// Row `token` of the head, [width]: what it multiplies the normed residual with.
Tensor unembedding(const Linear& head, int64_t token);

}  // namespace lamina
