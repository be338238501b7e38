#include "lamina/eval/pass.h"

#include "lamina/base/error.h"

namespace lamina {

namespace {

class EndReader : public Over {
 public:
  explicit EndReader(Tap& base) : Over(base) {}
  bool reads_norm(Site site) const override { return site == Site{} || Over::reads_norm(site); }
  Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
    const Tensor y = Over::norm(path, norm, x);
    if (path.site != Site{}) return y;
    norm_ = norm;
    if (Over::reads_norm(path.site)) {
      // Whatever the tap divides by: read off what came out.
      const Tensor top = (norm.centred ? x - x.mean(-1, true) : x) * norm.gain;
      const Tensor bare = norm.bias.defined() ? y - norm.bias : y;
      scale_ = top.square().sum(-1, true) / (top * bare).sum(-1, true);
    } else {
      scale_ = norm.scale(x);
    }
    return y;
  }
  std::optional<Norm> norm_;
  std::optional<Tensor> scale_;
};

}  // namespace

Tensor as_batch(const std::vector<int32_t>& ids) {
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0);
}

void check_samples(const Model& model, const Samples& samples) {
  if (samples.empty()) fail("there is no text to evaluate on; give at least one sample");
  const int64_t vocabulary = model.blueprint().vocabulary;
  for (size_t s = 0; s < samples.size(); ++s) {
    if (samples[s].size() < 2)
      fail("sample {} has {} tokens; an evaluation needs at least two", s, samples[s].size());
    for (int32_t id : samples[s]) {
      if (id < 0 || id >= vocabulary)
        fail(
            "sample {}: token {} is not in the vocabulary of {}; was the text made with this model's "
            "tokenizer?",
            s, id, vocabulary);
    }
  }
}

void walk_from(const Model& model, Stream& stream, int first, Tap& tap) {
  for (Site site : model.blueprint().present()) {
    if (site.index >= first) model.step(stream, site, tap);
  }
}

Tensor End::share(const Tensor& piece) const {
  if (!norm) return piece;
  const Tensor top = norm->centred ? piece - piece.mean(-1, true) : piece;
  return top / *scale * norm->gain;
}

End read_end(const Model& model, const Stream& stream, Tap& tap) {
  EndReader reader(tap);
  End end{.normed = model.read_out(stream, reader)};
  end.norm = reader.norm_;
  end.scale = reader.scale_;
  return end;
}

Tensor unembedding(const Linear& head, int64_t token) {
  const Linear row = head.outputs(token, 1);
  Tensor vector = (row.in_out ? row.weight.t() : row.weight).squeeze(0);
  if (row.low_rank) {
    vector = vector + at::matmul(row.low_rank->up, row.low_rank->down).squeeze(0) * row.low_rank->scale;
  }
  return vector;
}

}  // namespace lamina
