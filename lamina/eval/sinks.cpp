#include "lamina/eval/sinks.h"

#include <map>

#include "lamina/base/error.h"

namespace lamina {

namespace {

class Looking : public Over {
 public:
  Looking(Tap& base, const Blueprint& blueprint, double threshold)
      : Over(base), blueprint_(blueprint), threshold_(threshold) {}
  bool reads_heads(Site) const override { return true; }
  void saw_heads(Site site, const Heads& seen) override {
    Over::saw_heads(site, seen);
    const Tensor at_first =
        attention_weights(seen.queries, seen.keys, seen.options).select(3, 0).select(0, 0);
    looks_ += (at_first > threshold_).sum().item<int64_t>();
    queries_ += at_first.numel();
    sinks_ += (at_first.mean(1) > threshold_).sum().item<int64_t>();
    heads_ += at_first.size(0);
  }
  // A block's residual is what its first part meets.
  void saw(Site site, const Tensor& before, const Tensor& after) override {
    Over::saw(site, before, after);
    norms_.try_emplace(blueprint_.part(site).block, of(before));
  }
  struct Norms {
    double first, rest;
  };
  static Norms of(const Tensor& x) {  // [1, tokens, width]
    const Tensor norms = x.select(0, 0).to(at::kDouble).norm(2, 1);
    return {norms[0].item<double>(), norms.narrow(0, 1, norms.size(0) - 1).mean().item<double>()};
  }
  const std::map<int, Norms>& norms() const { return norms_; }
  double queries() const { return static_cast<double>(looks_) / static_cast<double>(queries_); }
  double heads() const { return static_cast<double>(sinks_) / static_cast<double>(heads_); }

 private:
  const Blueprint& blueprint_;
  double threshold_;
  int64_t looks_ = 0, queries_ = 0, sinks_ = 0, heads_ = 0;
  std::map<int, Norms> norms_;
};

}  // namespace

Sinks sinks(const Model& model, const Samples& samples, const SinkOptions& options, Tap& base,
            const Watch& watch) {
  check_samples(model, samples);
  const InferenceMode evaluating;
  std::map<int, Sinks::Row> rows;
  std::vector<double> queries, heads;
  Sinks result{.samples = std::ssize(samples)};
  const auto count = static_cast<double>(samples.size());
  for (const std::vector<int32_t>& sample : samples) {
    if (watch.stop.stop_requested()) throw Stopped{};
    Looking tap(base, model.blueprint(), options.threshold);
    Stream stream = model.begin({.ids = as_batch(sample)});
    walk_from(model, stream, 0, tap);
    for (const auto& [block, norms] : tap.norms()) {
      Sinks::Row& row = rows[block];
      row.block = block;
      row.first += norms.first / count;
      row.rest += norms.rest / count;
    }
    const Looking::Norms end = Looking::of(stream.x);
    result.first_at_end += end.first / count;
    result.rest_at_end += end.rest / count;
    queries.push_back(tap.queries());
    heads.push_back(tap.heads());
    watch.report({"sinks", static_cast<double>(queries.size()), count, ""});
  }
  for (const auto& [block, row] : rows) result.rows.push_back(row);
  result.queries = mean_of(queries, options.bootstrap);
  result.heads = mean_of(heads, options.bootstrap);
  return result;
}

}  // namespace lamina
