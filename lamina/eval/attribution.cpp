#include "lamina/eval/attribution.h"

#include <cmath>
#include <map>

namespace lamina {

namespace {

// What each head of each part writes at the last position, [heads, width].
class HeadWrites : public Over {
 public:
  explicit HeadWrites(Tap& base) : Over(base) {}
  bool reads_heads(Site) const override { return true; }
  void saw_heads(Site site, const Heads& seen) override {
    Over::saw_heads(site, seen);
    const Tensor last = seen.mixed.select(0, 0).select(1, seen.mixed.size(2) - 1);  // [heads, head_dim]
    const int64_t heads = last.size(0);
    // Row h: all heads zeroed but h.
    const Tensor alone = at::eye(heads, last.options()).unsqueeze(2) * last.unsqueeze(0);
    Linear out = seen.out;
    out.bias = Tensor();
    writes_[site] = out(alone.reshape({heads, heads * last.size(1)}));
  }
  const std::map<Site, Tensor>& writes() const { return writes_; }

 private:
  std::map<Site, Tensor> writes_;
};

double mean_error(const Attribution::Head& head) {
  double error = 0, effect = 0;
  for (size_t s = 0; s < head.direct.size(); ++s) {
    error += std::abs(head.attributed[s] - head.direct[s]);
    effect += std::abs(head.direct[s]);
  }
  return error / effect;
}

}  // namespace

std::string_view target_name(AttributionOptions::Target target) {
  return target == AttributionOptions::Target::next ? "next" : "last-input";
}

Attribution attribution(const Model& model, const Samples& samples, const AttributionOptions& options,
                        Tap& base, const Watch& watch) {
  check_samples(model, samples);
  const InferenceMode evaluating;
  Attribution result{.target = options.target, .samples = std::ssize(samples)};
  std::map<std::pair<Site, int64_t>, Attribution::Head> heads;
  double done = 0;
  for (const std::vector<int32_t>& sample : samples) {
    if (watch.stop.stop_requested()) throw Stopped{};
    std::vector<int32_t> read = sample;
    const int64_t target = read.back();
    if (options.target == AttributionOptions::Target::next) read.pop_back();
    HeadWrites tap(base);
    Stream stream = model.begin({.ids = as_batch(read)});
    walk_from(model, stream, 0, tap);
    stream.x = stream.x.narrow(1, stream.x.size(1) - 1, 1);  // [1, 1, width]
    const End end = read_end(model, stream, base);
    const Tensor w = unembedding(model.head(), target).to(at::kDouble);
    for (const auto& [site, writes] : tap.writes()) {
      const Tensor piece = writes.unsqueeze(1);  // [heads, 1, width]
      Stream without = stream;
      without.x = stream.x - piece;
      const Tensor direct =
          at::matmul((end.normed - model.read_out(without, base)).to(at::kDouble), w).squeeze(1);
      const Tensor attributed = at::matmul(end.share(piece).to(at::kDouble), w).squeeze(1);
      for (int64_t h = 0; h < direct.size(0); ++h) {
        Attribution::Head& head = heads[{site, h}];
        head.site = site;
        head.part = model.blueprint().part(site).path;
        head.block = model.blueprint().part(site).block;
        head.head = h;
        head.direct.push_back(direct[h].item<double>());
        head.attributed.push_back(attributed[h].item<double>());
      }
    }
    watch.report({"attribution", ++done, static_cast<double>(samples.size()), ""});
  }
  std::vector<double> errors, effects;
  double sum = 0, counted = 0;
  for (auto& [key, head] : heads) {
    head.error = mean_error(head);
    if (std::isfinite(head.error)) sum += head.error, ++counted;
    for (size_t s = 0; s < head.direct.size(); ++s) {
      errors.push_back(std::abs(head.attributed[s] - head.direct[s]));
      effects.push_back(std::abs(head.direct[s]));
    }
    result.heads.push_back(std::move(head));
  }
  result.head_mean = sum / counted;
  result.global = ratio_of_means(errors, effects, options.bootstrap);
  return result;
}

}  // namespace lamina
