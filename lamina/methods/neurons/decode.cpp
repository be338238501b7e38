#include "lamina/methods/neurons/decode.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "lamina/base/error.h"
#include "lamina/methods/neurons/impl/scan_lanes.h"

namespace lamina::neurons {

extern const ScanFunctions scan_default;
#if defined(__x86_64__)
extern const ScanFunctions scan_v3;
extern const ScanFunctions scan_v4;
#endif

namespace {

// A tile of scores [rows, tile] stays in memory between the product and the look at it: 25 MB at most, and
// long enough in both directions that packing the factors does not show beside the product.
constexpr int64_t kMostRows = 1536, kTile = 4096;
// With no best rows yet, every token is a candidate: start small.
constexpr int64_t kFirstRows = 16;

const ScanFunctions& functions() {
#if defined(__x86_64__)
  static const ScanFunctions& best = __builtin_cpu_supports("x86-64-v4")   ? scan_v4
                                     : __builtin_cpu_supports("x86-64-v3") ? scan_v3
                                                                           : scan_default;
  return best;
#else
  return scan_default;
#endif
}

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double log_add(double a, double b) {
  return std::max(a, b) + std::log1p(std::exp(-std::abs(a - b)));
}

// One vector while its tiles go by.
struct Row {
  RowState state = {};
  std::vector<float> top_scores, bottom_scores;
  std::vector<int32_t> top_tokens, bottom_tokens;
  std::vector<Candidate> best, worst;

  Row(int64_t top, float shift)
      : top_scores(static_cast<size_t>(top)),
        bottom_scores(static_cast<size_t>(top)),
        top_tokens(static_cast<size_t>(top)),
        bottom_tokens(static_cast<size_t>(top)) {
    const auto capacity = static_cast<int32_t>(top);
    state.shift = shift;
    state.peak = -std::numeric_limits<float>::infinity();
    state.trough = std::numeric_limits<float>::infinity();
    state.top = {top_scores.data(), top_tokens.data(), 0, capacity};
    state.bottom = {bottom_scores.data(), bottom_tokens.data(), 0, capacity};
  }
  Row(Row&&) = default;

  double log_sum(bool mirrored) const {
    return mirrored ? -static_cast<double>(state.trough) + std::log(state.mirrored)
                    : static_cast<double>(state.peak) + std::log(state.exponentials);
  }
};

// The log-sum-exp of a whole row is at least this, after `seen` tokens whose own log-sum-exp is `so_far` and
// when the mean of the others is `mean` (Jensen).
double least_log_sum(double so_far, int64_t seen, int64_t vocabulary, double mean) {
  const int64_t rest = vocabulary - seen;
  if (rest == 0) return so_far;
  const double others = std::log(static_cast<double>(rest)) + mean;
  return seen == 0 ? others : log_add(so_far, others);
}

// The mean of the scores that were not seen yet.
double mean_of_rest(const RowState& state, double mean, int64_t seen, int64_t vocabulary) {
  if (seen == vocabulary) return 0;
  const double sum = state.sums[0] + static_cast<double>(state.shift) * static_cast<double>(seen);
  return (mean * static_cast<double>(vocabulary) - sum) / static_cast<double>(vocabulary - seen);
}

std::vector<float> log_probabilities(const std::vector<atlas::Best>& best) {
  std::vector<float> values;
  for (const atlas::Best& entry : best)
    values.push_back(entry.block < 0 ? -std::numeric_limits<float>::infinity()
                                     : static_cast<float>(entry.log_p));
  return values;
}

// `sign`: -1 for the bottom pole, whose candidates hold -s.
void take_candidates(std::vector<atlas::Best>& best, const std::vector<Candidate>& candidates, float sign,
                     double log_sum, int block, int neuron) {
  for (const Candidate& candidate : candidates) {
    atlas::Best& held = best[static_cast<size_t>(candidate.token)];
    const double log_p = static_cast<double>(candidate.score) - log_sum;
    if (held.block < 0 || log_p > held.log_p) held = {block, neuron, sign * candidate.score, log_p};
  }
}

std::vector<atlas::Label> labels(const Largest& list, float sign) {
  std::vector<atlas::Label> result;
  for (int32_t i = 0; i < list.count; ++i) result.push_back({list.tokens[i], sign * list.scores[i]});
  return result;
}

atlas::Decoded result_of(const Row& row, int64_t vocabulary) {
  const auto count = static_cast<double>(vocabulary);
  const RowState& s = row.state;
  // Moments about the shift, moved to the mean, which lies within rounding of it.
  const double d = s.sums[0] / count, m2 = s.sums[1] / count, m3 = s.sums[2] / count, m4 = s.sums[3] / count;
  const double variance = std::max(0.0, m2 - d * d);
  const double fourth = m4 - 4 * d * m3 + 6 * d * d * m2 - 3 * d * d * d * d;
  return {
      .mean = static_cast<double>(s.shift) + d,
      .deviation = std::sqrt(variance),
      .kurtosis = variance > 0 ? fourth / (variance * variance) : std::numeric_limits<double>::quiet_NaN(),
      .log_sum = row.log_sum(false),
      .log_sum_negated = row.log_sum(true),
      .top = labels(s.top, 1),
      .bottom = labels(s.bottom, -1)};
}

// A piece at a time: on a CPU a sum in float64 first copies all that it sums.
Tensor mean_of_rows(const Tensor& matrix) {
  Tensor sum = at::zeros({matrix.size(1)}, matrix.options().dtype(at::kDouble));
  for (int64_t at = 0; at < matrix.size(0); at += kTile)
    sum += matrix.narrow(0, at, std::min(kTile, matrix.size(0) - at)).sum(0, false, at::kDouble);
  return sum / static_cast<double>(matrix.size(0));
}

}  // namespace

BestRows::BestRows(int64_t vocabulary)
    : top(static_cast<size_t>(vocabulary)), bottom(static_cast<size_t>(vocabulary)) {}

Decoder::Decoder(const Tensor& head, Products products)
    : products_(products), head_(head.contiguous().to(products.device)) {
  if (!at::isfinite(head_.sum()).item<bool>())
    fail("the head holds numbers that are not finite; is the checkpoint damaged?");
  mean_ = mean_of_rows(head_).cpu();
  if (products_.type != at::kFloat || !products_.device.is_cpu()) products_.on_tensors = true;
  if (!products_.on_tensors) return;
  narrow_ = head_.to(products_.type);
  const auto longest = [](const Tensor& rows) { return rows.norm(2, {1}).max().item<double>(); };
  longest_ = longest(head_);
  longest_left_ = longest(narrow_.to(at::kFloat));
  longest_lost_ = longest(head_ - narrow_.to(at::kFloat));
}

std::vector<atlas::Decoded> Decoder::decode(const Tensor& vectors, int block, BestRows& best,
                                            const DecodeOptions& options) const {
  const double begun = seconds();
  if (!at::isfinite(vectors.sum()).item<bool>())
    fail("the vectors of block {} hold numbers that are not finite; is the checkpoint damaged?", block);
  auto decoded = products_.on_tensors ? decode_on_tensors(vectors, block, best, options)
                                      : decode_in_lanes(vectors, block, best, options);
  time_.all += seconds() - begun;
  return decoded;
}

std::vector<atlas::Decoded> Decoder::decode_in_lanes(const Tensor& vectors, int block, BestRows& best,
                                                     const DecodeOptions& options) const {
  const int64_t vocabulary = head_.size(0), top = std::min(options.top, vocabulary);
  const Tensor means = vectors.to(at::kDouble).matmul(mean_);
  const Tensor norms = vectors.norm(2, {1}, false, at::kDouble);
  const double* mean = means.const_data_ptr<double>();
  const double* norm = norms.const_data_ptr<double>();
  const Tensor scores =
      at::empty({std::min(kMostRows, vectors.size(0)) * std::min(kTile, vocabulary)}, at::kFloat);

  std::vector<atlas::Decoded> decoded;
  int64_t size = best.top.front().block < 0 ? kFirstRows : kMostRows;
  for (int64_t first = 0; first < vectors.size(0); size = std::min(2 * size, kMostRows)) {
    const int64_t count = std::min(size, vectors.size(0) - first);
    const Tensor rows = vectors.narrow(0, first, count);
    const std::vector<float> best_top = log_probabilities(best.top),
                             best_bottom = log_probabilities(best.bottom);
    std::vector<Row> states;
    for (int64_t r = 0; r < count; ++r) states.emplace_back(top, static_cast<float>(mean[first + r]));
    for (int64_t token = 0; token < vocabulary; token += kTile) {
      options.watch.report(
          {"decode", options.done + static_cast<double>(first), options.total, options.detail});
      if (options.watch.stop.stop_requested()) throw Stopped{};
      const int64_t width = std::min(kTile, vocabulary - token);
      Tensor tile = scores.narrow(0, 0, count * width).view({count, width});
      const double before = seconds();
      at::mm_out(tile, rows, head_.narrow(0, token, width).t());
      time_.products += seconds() - before;
      const float* data = tile.const_data_ptr<float>();
      at::parallel_for(0, count, 16, [&](int64_t from, int64_t to) {
        std::vector<Candidate> room(2 * static_cast<size_t>(width));
        for (int64_t r = from; r < to; ++r) {
          Row& row = states[static_cast<size_t>(r)];
          const double rest = mean_of_rest(row.state, mean[first + r], token, vocabulary);
          // Rounding of scores and bounds in float32 must not lose a candidate.
          const auto bound = [&](bool mirrored) {
            return static_cast<float>(
                least_log_sum(row.log_sum(mirrored), token, vocabulary, mirrored ? -rest : rest) - 1e-3);
          };
          Pole up{best_top.data() + token, bound(false), room.data(), 0};
          Pole down{best_bottom.data() + token, bound(true), room.data() + width, 0};
          functions().scan(data + r * width, width, static_cast<int32_t>(token), &row.state, &up, &down);
          row.best.insert(row.best.end(), up.found, up.found + up.found_count);
          row.worst.insert(row.worst.end(), down.found, down.found + down.found_count);
        }
      });
    }
    for (int64_t r = 0; r < count; ++r) {
      const Row& row = states[static_cast<size_t>(r)];
      decoded.push_back(result_of(row, vocabulary));
      decoded.back().norm = norm[first + r];
      const auto neuron = static_cast<int>(first + r);
      take_candidates(best.top, row.best, 1, decoded.back().log_sum, block, neuron);
      take_candidates(best.bottom, row.worst, -1, decoded.back().log_sum_negated, block, neuron);
    }
    first += count;
    options.watch.report(
        {"decode", options.done + static_cast<double>(first), options.total, options.detail});
  }
  return decoded;
}

}  // namespace lamina::neurons
