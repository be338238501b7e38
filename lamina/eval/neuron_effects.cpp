#include "lamina/eval/neuron_effects.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/eval/token_scores.h"

namespace lamina {

namespace {

// Rows of a matrix handled at a time.
constexpr int64_t kTile = 1024;

// In place of what the neurons gave.
class Given : public Tap {
 public:
  explicit Given(Tensor values) : values_(std::move(values)) {}
  bool reads_neurons(Site) const override { return true; }
  Tensor neurons(Site, NeuronPlace place, const Tensor& values) override {
    return place == NeuronPlace::post ? values_ : values;
  }

 private:
  Tensor values_;  // [1, tokens, neurons]
};

// Sees the neurons of one part, and holds some of them.
class Holding : public Over {
 public:
  Holding(Tap& base, Site site) : Over(base), site_(site) {}
  void hold(std::vector<int64_t> neurons, const Tensor& at) {
    held_ = std::move(neurons);
    at_ = at;
  }
  bool reads_neurons(Site site) const override { return site == site_ || Over::reads_neurons(site); }
  Tensor neurons(Site site, NeuronPlace place, const Tensor& values) override {
    Tensor given = Over::neurons(site, place, values);
    if (site != site_ || place != NeuronPlace::post) return given;
    seen_ = given;
    if (held_.empty()) return given;
    given = given.clone();
    for (int64_t neuron : held_) given.select(2, neuron).copy_(at_[neuron].expand(given.sizes().slice(0, 2)));
    return given;
  }
  const Tensor& seen() const { return seen_; }  // [batch, tokens, neurons]

 private:
  Site site_;
  std::vector<int64_t> held_;
  Tensor at_;  // [neurons]
  Tensor seen_;
};

// The head's rows as the residual meets them, [rows, width], unit length: with the last norm's gain, without
// what its centring takes away.
Tensor directions(const Linear& head, const std::optional<Norm>& norm, int64_t first, int64_t count,
                  at::ScalarType type) {
  const Linear part = head.outputs(first, count);
  Tensor rows = (part.in_out ? part.weight.t() : part.weight).to(type);
  if (part.low_rank)
    rows = rows + at::matmul(part.low_rank->up, part.low_rank->down).to(type) * part.low_rank->scale;
  if (norm) {
    rows = rows * norm->gain.to(type);
    if (norm->centred) rows = rows - rows.mean(1, true);
  }
  return rows / rows.norm(2, 1, true).clamp_min(1e-30);
}

// Variance over the vocabulary of the cosine with each row of `written`, float64.
Tensor logit_variance(const Model& model, const std::optional<Norm>& norm, const Tensor& written) {
  const Tensor unit = (written / written.norm(2, 1, true).clamp_min(1e-30)).t();
  const int64_t vocabulary = model.blueprint().vocabulary;
  Tensor sum = at::zeros({written.size(0)}, at::kDouble), squares = at::zeros_like(sum);
  for (int64_t first = 0; first < vocabulary; first += kTile) {
    const int64_t count = std::min(kTile, vocabulary - first);
    const Tensor cosines =
        at::matmul(directions(model.head(), norm, first, count, written.scalar_type()), unit);
    sum = sum + cosines.sum(0, false, at::kDouble);
    squares = squares + cosines.square().sum(0, false, at::kDouble);
  }
  const auto n = static_cast<double>(vocabulary);
  return ((squares - sum.square() / n) / (n - 1)).clamp_min(0);
}

// Sums of what changes; means in the end.
struct Sum {
  NeuronEffects::Change change;
  void add(const std::vector<TokenScore>& before, const std::vector<TokenScore>& after) {
    for (size_t t = 0; t < before.size(); ++t) {
      const double moved = after[t].loss - before[t].loss;
      change.cross_entropy += moved;
      change.moved += std::abs(moved);
      change.entropy += after[t].entropy - before[t].entropy;
    }
  }
  NeuronEffects::Change over(int64_t tokens) const {
    const auto n = static_cast<double>(tokens);
    return {change.cross_entropy / n, change.entropy / n, change.moved / n};
  }
};

}  // namespace

Tensor written_by_neurons(const Model& model, Site site) {
  const InferenceMode evaluating;
  const Part& part = model.blueprint().part(site);
  if (!part.neurons) fail("{} has no neurons", part.path);
  const int64_t count = part.neurons->count, width = model.blueprint().width;
  const auto options = at::TensorOptions(model.dtype()).device(model.head().weight.device());
  const auto through = [&](const Tensor& values) {  // [tokens, neurons]
    Given tap(values.unsqueeze(0));
    Stream stream{
        .x = at::zeros({1, values.size(0), width}, options), .shared = {}, .padding = {}, .cache = {}};
    model.step(stream, site, tap);
    return stream.x.squeeze(0);
  };
  const Tensor bias = through(at::zeros({1, count}, options));
  std::vector<Tensor> rows;
  for (int64_t first = 0; first < count; first += kTile) {
    const int64_t some = std::min(kTile, count - first);
    const Tensor ones = at::zeros({some, count}, options);
    ones.narrow(1, first, some).fill_diagonal_(1);
    rows.push_back(through(ones) - bias);
  }
  return at::cat(rows, 0);
}

NeuronEffects neuron_effects(const Model& model, const Samples& samples, const NeuronEffectOptions& options,
                             Tap& base, const Watch& watch) {
  check_samples(model, samples);
  if (options.top < 1) fail("{} neurons asked for; at least one is needed", options.top);
  const InferenceMode evaluating;
  NeuronEffects result;
  for (Site site : model.blueprint().with_neurons()) {
    if (!base.skips(site)) result.site = site;
  }
  if (result.site == Site{}) return result;
  result.part = model.blueprint().part(result.site).path;

  // Once over the texts: the stream in front of the feed-forward, the means of its neurons.
  Holding tap(base, result.site);
  std::vector<Stream> before;
  Tensor sum;
  std::optional<Norm> norm;
  double positions = 0;
  for (const std::vector<int32_t>& sample : samples) {
    if (watch.stop.stop_requested()) throw Stopped{};
    Stream stream = model.begin({.ids = as_batch(sample)});
    for (Site site : model.blueprint().present()) {
      if (site.index < result.site.index) model.step(stream, site, tap);
    }
    before.push_back(stream);
    walk_from(model, stream, result.site.index, tap);
    norm = read_end(model, stream, tap).norm;
    const Tensor values = tap.seen().squeeze(0).sum(0, false, at::kDouble);
    sum = sum.defined() ? sum + values : values;
    positions += static_cast<double>(sample.size());
    watch.report(
        {"neurons, means", static_cast<double>(before.size()), static_cast<double>(samples.size()), ""});
  }
  const Tensor mean = (sum / positions).to(model.dtype());

  const Tensor written = written_by_neurons(model, result.site);
  const Tensor norms = written.norm(2, 1).to(at::kDouble).contiguous();
  const Tensor variance = logit_variance(model, norm, written).contiguous();
  const int64_t count = norms.size(0);
  const auto score = [&](int64_t n) {
    const double length = norms.const_data_ptr<double>()[n];
    return length > 0 ? length / std::max(variance.const_data_ptr<double>()[n], 1e-300) : 0;
  };
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  const int64_t top = std::min(options.top, count);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return score(a) > score(b); });
  order.resize(static_cast<size_t>(top));
  for (int64_t n : order) {
    result.neurons.push_back({.neuron = n,
                              .norm = norms.const_data_ptr<double>()[n],
                              .logit_variance = variance.const_data_ptr<double>()[n],
                              .score = score(n),
                              .mean = mean[n].item<double>()});
  }

  // Each alone, then all at once.
  std::vector<std::vector<int64_t>> groups;
  for (int64_t n : order) groups.push_back({n});
  groups.push_back(order);
  std::vector<Sum> total(groups.size()), frozen(groups.size());
  const double rounds = static_cast<double>(samples.size() * groups.size());
  double done = 0;
  for (size_t s = 0; s < samples.size(); ++s) {
    tap.hold({}, mean);
    Stream plain = before[s];
    walk_from(model, plain, result.site.index, tap);
    const End end = read_end(model, plain, tap);
    const std::vector<TokenScore> as_is = token_scores(model.head(), end.normed.squeeze(0), samples[s]);
    for (const TokenScore& token : as_is) {
      result.cross_entropy += token.loss;
      result.entropy += token.entropy;
    }
    result.tokens += std::ssize(as_is);
    for (size_t g = 0; g < groups.size(); ++g) {
      if (watch.stop.stop_requested()) throw Stopped{};
      tap.hold(groups[g], mean);
      Stream held = before[s];
      walk_from(model, held, result.site.index, tap);
      const Tensor live = model.read_out(held, tap);
      total[g].add(as_is, token_scores(model.head(), live.squeeze(0), samples[s]));
      if (end.norm) {
        HeldEnd same_scale(tap, *end.scale);
        const Tensor still = model.read_out(held, same_scale);
        frozen[g].add(as_is, token_scores(model.head(), still.squeeze(0), samples[s]));
      } else {
        frozen[g] = total[g];  // there is no scale
      }
      watch.report({"neurons, effects", ++done, rounds, ""});
    }
  }
  result.cross_entropy /= static_cast<double>(result.tokens);
  result.entropy /= static_cast<double>(result.tokens);
  for (size_t g = 0; g + 1 < groups.size(); ++g) {
    result.neurons[g].total = total[g].over(result.tokens);
    result.neurons[g].frozen = frozen[g].over(result.tokens);
  }
  result.total_together = total.back().over(result.tokens);
  result.frozen_together = frozen.back().over(result.tokens);
  return result;
}

}  // namespace lamina
