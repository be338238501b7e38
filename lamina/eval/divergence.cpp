#include "lamina/eval/divergence.h"

#include <algorithm>
#include <cmath>

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
    for (int64_t first = 0; first < count; first += kTile) {
      const int64_t rows = std::min(kTile, count - first);
      const Tensor tile = reference_logits(s, first, rows);
      if (keep) all.narrow(0, first, rows).copy_(tile);
      for (int64_t r = 0; r < rows && needs_normalizer(options_.metric); ++r) {
        const Tensor row = tile[r];
        normalizer.push_back(type == at::kDouble
                                 ? Rows<double>::log_sum_exp(row.const_data_ptr<double>(), row.size(0))
                                 : Rows<float>::log_sum_exp(row.const_data_ptr<float>(), row.size(0)));
      }
    }
    normalizer.resize(static_cast<size_t>(count));
    if (keep) logits_.push_back(std::move(all));
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
    if (value > limit && first + count < scored) return {value, false, first + count};
  }
  return {folded(metric, sum, tokens) * scale_, true, scored};
}

}  // namespace lamina
