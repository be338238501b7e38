#include "lamina/eval/divergence.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/eval/impl/divergence_rows.h"

namespace lamina {

namespace {

// Rows of logits made at a time. Enough for the matrix product to run at speed, few enough to stay near the
// processor.
constexpr int64_t kTile = 128;

constexpr std::pair<std::string_view, Metric> kMetrics[] = {
    {"jsd", Metric::jsd}, {"ag", Metric::ag},     {"kl", Metric::kl},
    {"ppl", Metric::ppl}, {"norm", Metric::norm}, {"angular", Metric::angular}};

bool per_token(Metric metric) {
  return metric != Metric::ppl && metric != Metric::norm;
}
bool needs_reference(Metric metric) {
  return metric != Metric::ppl;
}
bool needs_normalizer(Metric metric) {
  return metric == Metric::jsd || metric == Metric::ag || metric == Metric::kl;
}

// A tile's buffer, kept by each thread: a fresh one costs a page fault for every 4 kB.
Tensor tile_buffer(int64_t rows, int64_t columns, at::ScalarType type) {
  thread_local Tensor buffer;
  if (!buffer.defined() || buffer.size(1) != columns || buffer.scalar_type() != type ||
      buffer.size(0) < rows) {
    buffer = at::empty({std::max(rows, kTile), columns}, at::TensorOptions(type));
  }
  return buffer.narrow(0, 0, rows);
}

template <class T>
double row_term(Metric metric, const T* q, const T* p, double lse_p, int64_t count) {
  switch (metric) {
    case Metric::jsd:
      return Rows<T>::jsd(q, p, Rows<T>::log_sum_exp(q, count), lse_p, count);
    case Metric::ag:
      return Rows<T>::ag(q, p, Rows<T>::log_sum_exp(q, count), lse_p, count);
    case Metric::kl:
      return Rows<T>::kl(q, p, Rows<T>::log_sum_exp(q, count), lse_p, count);
    case Metric::angular:
      return Rows<T>::angle(q, p, count);
    case Metric::norm:
      return Rows<T>::squared_distance(q, p, count);
    case Metric::ppl:
      return 0;
  }
  return 0;
}

// The term of one outcome with probabilities p and q, and its derivative by q.
double outcome(Metric metric, double p, double q) {
  const double m = (p + q) / 2;
  const auto times_log = [](double x, double y) { return x > 0 ? x * std::log(x / y) : 0; };
  if (metric == Metric::jsd) return 0.5 * (times_log(p, m) + times_log(q, m));
  return m > 0 ? m * std::log(m / std::sqrt(p * q)) : 0;
}
double outcome_slope(Metric metric, double p, double q) {
  const double m = (p + q) / 2;
  if (metric == Metric::jsd) return 0.5 * std::log(q / m);
  return 0.5 * std::log(m / std::sqrt(p * q)) + 0.25 - 0.25 * p / q;
}

// The least, over every share t that the shortlist may have in the changed distribution, of the divergence
// with all other tokens merged into one. It is convex in t: tangents are below it, and where two of opposite
// slope cross is below its least value. q, p: logits of the shortlist; lse_q over the shortlist, lse_p over
// the vocabulary.
template <class T>
double least_divergence(Metric metric, const T* q, const T* p, double lse_q, double lse_p, double rest,
                        int64_t count) {
  constexpr double kEdge = 1e-9;
  if (metric == Metric::kl)  // least where the shares are equal
    return Rows<T>::kl(q, p, lse_q - std::log1p(-std::min(rest, 1 - kEdge)), lse_p, count);
  struct Tangent {
    double t, value, slope;
    double at(double x) const { return value + slope * (x - t); }
  };
  std::optional<Tangent> falling, rising;
  double t = std::clamp(1 - rest, kEdge, 1 - kEdge), least = std::numeric_limits<double>::infinity();
  const auto bound = [&] {
    if (!rising) return falling->at(1);
    if (!falling) return rising->at(0);
    const double crossing =
        (rising->at(0) - falling->at(0)) / std::min(falling->slope - rising->slope, -kEdge);
    return std::min(falling->at(crossing), rising->at(crossing));
  };
  for (int round = 0; round < 6; ++round) {
    const double shifted = lse_q - std::log(t);
    const bool jsd = metric == Metric::jsd;
    const double value =
        jsd ? Rows<T>::jsd(q, p, shifted, lse_p, count) : Rows<T>::ag(q, p, shifted, lse_p, count);
    const double slopes = jsd ? Rows<T>::jsd_slopes(q, p, shifted, lse_p, count)
                              : Rows<T>::ag_slopes(q, p, shifted, lse_p, count);
    const Tangent tangent{t, value + outcome(metric, rest, 1 - t),
                          slopes / t - outcome_slope(metric, rest, 1 - t)};
    (tangent.slope < 0 ? falling : rising) = tangent;
    least = std::min(least, tangent.value);
    if (least - bound() < 0.002 * least) break;
    if (falling && rising) {
      t = (rising->at(0) - falling->at(0)) / (falling->slope - rising->slope);
    } else {  // a step of Newton's with the curvature that equal distributions would have, and a little over
      t -= 2.0 * tangent.slope / (0.25 * (1 / t + 1 / (1 - t)));
    }
    t = std::clamp(t, falling ? falling->t : kEdge, rising ? rising->t : 1 - kEdge);
  }
  return std::max(0.0, bound());
}

// What a sample's sum over tokens becomes in the score.
double folded(Metric metric, double sum, int64_t tokens) {
  if (metric == Metric::norm) return std::sqrt(sum);
  if (metric == Metric::ppl) return std::exp(sum / static_cast<double>(tokens - 1));
  return sum;
}

}  // namespace

std::string_view metric_name(Metric metric) {
  return std::ranges::find(kMetrics, metric, &std::pair<std::string_view, Metric>::second)->first;
}

Metric metric_from_name(std::string_view name) {
  const auto it = std::ranges::find(kMetrics, name, &std::pair<std::string_view, Metric>::first);
  if (it == std::end(kMetrics))
    fail("{} is no metric; jsd, ag, kl, ppl, norm and angular are", in_quotes(name));
  return it->second;
}

Divergence::Divergence(const Linear& head, std::vector<Tensor> hidden, std::vector<std::vector<int32_t>> ids,
                       Options options)
    : options_(options), hidden_(std::move(hidden)), ids_(std::move(ids)) {
  const at::ScalarType type = hidden_.at(0).scalar_type();
  head_ = head.weight.to(type);
  if (head.bias.defined()) head_bias_ = head.bias.to(type);
  int64_t tokens = 0;
  for (const Tensor& h : hidden_) tokens += h.size(0);
  if (options_.metric == Metric::ppl && hidden_[0].size(0) < 2)
    fail("perplexity needs samples of at least two tokens");
  scale_ =
      1.0 / static_cast<double>(per_token(options_.metric) ? tokens : static_cast<int64_t>(hidden_.size()));
  if (!needs_reference(options_.metric)) return;

  const bool keep =
      static_cast<uint64_t>(tokens * head_.size(0)) * c10::elementSize(type) <= options_.reference_bytes;
  for (size_t s = 0; s < hidden_.size(); ++s) {
    const int64_t count = hidden_[s].size(0);
    Tensor all = keep ? at::empty({count, head_.size(0)}, at::TensorOptions(type)) : Tensor();
    std::vector<double>& normalizer = normalizer_.emplace_back();
    Tensor likely = at::zeros({head_.size(0)}, at::TensorOptions(type));
    for (int64_t first = 0; first < count; first += kTile) {
      const int64_t rows = std::min(kTile, count - first);
      const Tensor tile = reference_logits(s, first, rows);
      if (keep) all.narrow(0, first, rows).copy_(tile);
      if (shortlist_size() > 0) likely.add_(at::softmax(tile, 1).sum(0));
      for (int64_t r = 0; r < rows && needs_normalizer(options_.metric); ++r) {
        const Tensor row = tile[r];
        normalizer.push_back(type == at::kDouble
                                 ? Rows<double>::log_sum_exp(row.const_data_ptr<double>(), row.size(0))
                                 : Rows<float>::log_sum_exp(row.const_data_ptr<float>(), row.size(0)));
      }
    }
    normalizer.resize(static_cast<size_t>(count));
    if (keep) logits_.push_back(std::move(all));
    likely_.push_back(std::move(likely));
  }
}

Tensor Divergence::reference_logits(size_t sample, int64_t first, int64_t count) const {
  if (sample < logits_.size()) return logits_[sample].narrow(0, first, count);
  const Tensor rows = hidden_[sample].narrow(0, first, count);
  return head_bias_.defined() ? at::linear(rows, head_, head_bias_) : at::linear(rows, head_);
}

double Divergence::dense() const {
  double score = 0;
  for (size_t s = 0; s < samples(); ++s)
    score += term(s, hidden_[s], std::numeric_limits<double>::infinity()).value;
  return score;
}

Divergence::Term Divergence::term(size_t sample, const Tensor& hidden, double limit) const {
  const Metric metric = options_.metric;
  const int64_t tokens = hidden.size(0), vocabulary = head_.size(0);
  const int64_t scored = metric == Metric::ppl ? tokens - 1 : tokens;  // the last token has no next one
  const Tensor rows = hidden.contiguous();
  double sum = 0;
  for (int64_t first = 0; first < scored; first += kTile) {
    const int64_t count = std::min(kTile, scored - first);
    Tensor tile = tile_buffer(count, vocabulary, rows.scalar_type());
    at::mm_out(tile, rows.narrow(0, first, count), head_.t());
    if (head_bias_.defined()) tile.add_(head_bias_);
    const Tensor reference = needs_reference(metric) ? reference_logits(sample, first, count) : Tensor();
    for (int64_t r = 0; r < count; ++r) {
      const auto at = static_cast<size_t>(first + r);
      const auto with = [&]<class T>(const T* q) {
        if (metric == Metric::ppl)
          return Rows<T>::log_sum_exp(q, vocabulary) - static_cast<double>(q[ids_[sample][at + 1]]);
        const T* p = reference.const_data_ptr<T>() + r * reference.stride(0);
        return row_term(metric, q, p, normalizer_[sample][at], vocabulary);
      };
      sum += tile.scalar_type() == at::kDouble ? with(tile.const_data_ptr<double>() + r * vocabulary)
                                               : with(tile.const_data_ptr<float>() + r * vocabulary);
    }
    const double value = folded(metric, sum, tokens) * scale_;
    // A cut whose output is not finite is worse than any other.
    if (std::isnan(value)) return {std::numeric_limits<double>::infinity(), true, first + count};
    if (value > limit && first + count < scored) return {value, false, first + count};
  }
  return {folded(metric, sum, tokens) * scale_, true, scored};
}

int64_t Divergence::shortlist_size() const {
  const bool bounded = needs_normalizer(options_.metric) || options_.metric == Metric::ppl;
  return bounded && head_.size(0) >= options_.bound_from ? head_.size(0) / 8 : 0;
}

std::optional<Divergence::Bound> Divergence::bound(const std::vector<Tensor>& near) const {
  Bound bound;
  bound.divergence_ = this;
  bound.words_ = shortlist_size();
  if (bound.words_ == 0) return std::nullopt;
  for (size_t s = 0; s < samples(); ++s) {
    Tensor likely = likely_.empty() ? at::zeros({head_.size(0)}, head_.options()) : likely_[s].clone();
    for (int64_t first = 0; first < near[s].size(0); first += kTile) {
      const Tensor rows = near[s].narrow(0, first, std::min(kTile, near[s].size(0) - first));
      Tensor tile = tile_buffer(rows.size(0), head_.size(0), rows.scalar_type());
      at::mm_out(tile, rows, head_.t());
      if (head_bias_.defined()) tile.add_(head_bias_);
      likely.add_(at::softmax(tile, 1).sum(0));
    }
    // What comes next is always on the list: its logit is half of a log-likelihood.
    std::vector<int64_t> next(ids_[s].begin() + (ids_[s].empty() ? 0 : 1), ids_[s].end());
    const Tensor targets = at::tensor(next, at::kLong);
    if (options_.metric == Metric::ppl &&
        std::set(next.begin(), next.end()).size() > static_cast<size_t>(bound.words_))
      return std::nullopt;
    if (options_.metric == Metric::ppl) likely.index_fill_(0, targets, std::numeric_limits<float>::max());
    const Tensor words = std::get<0>(std::get<1>(likely.topk(bound.words_, 0, true, false)).sort());
    Bound::Sample& sample = bound.samples_.emplace_back();
    sample.head = head_.index_select(0, words);
    if (head_bias_.defined()) sample.head_bias = head_bias_.index_select(0, words);
    if (options_.metric == Metric::ppl) {
      const Tensor places = at::searchsorted(words, targets);
      sample.targets.assign(places.const_data_ptr<int64_t>(),
                            places.const_data_ptr<int64_t>() + places.numel());
      continue;
    }
    sample.dense = at::linear(hidden_[s], sample.head, sample.head_bias);
    const Tensor normalizer = at::tensor(normalizer_[s], at::kDouble).unsqueeze(1);
    const Tensor rest = 1 - (sample.dense.to(at::kDouble) - normalizer).exp().sum(1);
    sample.rest.assign(rest.const_data_ptr<double>(), rest.const_data_ptr<double>() + rest.numel());
    for (double& share : sample.rest) share = std::clamp(share, 0.0, 1.0);
  }
  return bound;
}

double Divergence::Bound::operator()(size_t s, const Tensor& hidden) const {
  const Sample& sample = samples_[s];
  const Tensor logits = at::linear(hidden, sample.head, sample.head_bias);
  const Metric metric = divergence_->metric();
  double sum = 0;
  for (int64_t r = 0; r < logits.size(0) - (metric == Metric::ppl ? 1 : 0); ++r) {
    const auto at = static_cast<size_t>(r);
    const auto with = [&]<class T>(const T* q) {
      if (metric == Metric::ppl)
        return Rows<T>::log_sum_exp(q, words_) - static_cast<double>(q[sample.targets[at]]);
      return least_divergence(metric, q, sample.dense.const_data_ptr<T>() + r * words_,
                              Rows<T>::log_sum_exp(q, words_), divergence_->normalizer_[s][at],
                              sample.rest[at], words_);
    };
    sum += logits.scalar_type() == at::kDouble ? with(logits.const_data_ptr<double>() + r * words_)
                                               : with(logits.const_data_ptr<float>() + r * words_);
  }
  // What is left for rounding in float32: a thousandth, and 1e-7 a token so that parts that do nothing stay
  // ties.
  const double sure = std::max(0.0, 0.999 * sum - 1e-7 * static_cast<double>(logits.size(0)));
  return folded(metric, sure, logits.size(0)) * divergence_->scale_;
}

}  // namespace lamina
