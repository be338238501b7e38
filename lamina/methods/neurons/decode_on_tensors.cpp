// The same decoding out of ATen's operations, for devices that have no lanes of ours and for products in
// bfloat16.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "lamina/base/error.h"
#include "lamina/methods/neurons/decode.h"

namespace lamina::neurons {

namespace {

// Numbers of scores that are alive at a time: 2^27 floats are 0.5 GB, several of which stand on a GPU; a CPU
// gets less.
constexpr int64_t kScoresOnDevice = int64_t{1} << 27, kScoresOnCpu = int64_t{1} << 23;
// The largest scores are looked for among the groups with the largest maxima: a top-k over a 64th of the
// vocabulary.
constexpr int64_t kGroup = 64;

struct Extreme {
  Tensor scores, tokens;  // [rows, kept], the largest first
};

// The `kept` largest of each row of `scores` [rows, vocabulary], exactly: they lie in the `kept` groups with
// the largest maxima, or in the tail that fills no group.
Extreme largest_of(const Tensor& scores, const Tensor& group_maxima, int64_t kept) {
  const int64_t rows = scores.size(0), vocabulary = scores.size(1), groups = vocabulary / kGroup,
                tail = vocabulary - groups * kGroup;
  std::vector<Tensor> values, tokens;
  if (groups > 0) {
    const Tensor picked = std::get<1>(group_maxima.topk(std::min(kept, groups), 1));  // [rows, picked]
    const Tensor within = at::arange(kGroup, picked.options());
    const Tensor ids = (picked.unsqueeze(2) * kGroup + within).flatten(1);
    values.push_back(scores.gather(1, ids));
    tokens.push_back(ids);
  }
  if (tail > 0) {
    values.push_back(scores.narrow(1, groups * kGroup, tail));
    tokens.push_back(
        at::arange(groups * kGroup, vocabulary, at::TensorOptions(at::kLong).device(scores.device()))
            .unsqueeze(0)
            .expand({rows, tail}));
  }
  const Tensor all = at::cat(values, 1), ids = at::cat(tokens, 1);
  const auto [top, index] = all.topk(std::min(kept, all.size(1)), 1);
  return {top, ids.gather(1, index)};
}

struct Labelled {
  Tensor scores, tokens;  // [rows, top] on the CPU, float32 scores, the largest first, ties by token
  Tensor
      shift;  // float64 [rows]: what the log-sum-exp gains when these scores take the place of the products'
};

}  // namespace

// How far a narrow score s~ can be from the float32 score s = w . u. With w~, u~ the narrowed factors
// (products of two bfloat16 numbers are exact in float32, sums are taken in float32 in any order, the result
// is rounded once to the type of unit roundoff r):
//   |w . u - w~ . u~| <= |w - w~| |u| + |w~| |u - u~|                  (Cauchy-Schwarz, twice)
//   |w~ . u~ - fl(w~ . u~)| <= g |w~| |u~|,   g = d e / (1 - d e),  e = 2^-24
//   rounding the result: <= r |s~| / (1 - r)
// and float32 itself is off by g |w| |u|. So |s - s~| <= E + q |s~|, with E from norms alone, the same for
// every token of a row. The bounds s~ -+ (E + q |s~|) rise with s~, so the k-th largest s~ gives the k-th
// largest lower bound, and a token whose upper bound is below it is no label.
std::vector<atlas::Decoded> Decoder::decode_on_tensors(const Tensor& vectors, int block, BestRows& best,
                                                       const DecodeOptions& options) const {
  const auto seconds = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  const bool narrow = products_.type != at::kFloat;
  const int64_t vocabulary = head_.size(0), width = head_.size(1), top = std::min(options.top, vocabulary);
  const int64_t scores_at_once = products_.device.is_cpu() ? kScoresOnCpu : kScoresOnDevice;
  const int64_t rows_at_once = std::max<int64_t>(1, scores_at_once / vocabulary);
  const double e = 0x1p-24 * static_cast<double>(width), g = e / (1 - e);
  const double r = narrow ? 0x1p-8 : 0x1p-24, q = r / (1 - r);

  std::vector<atlas::Decoded> decoded;
  for (int64_t first = 0; first < vectors.size(0); first += rows_at_once) {
    if (options.watch.stop.stop_requested()) throw Stopped{};
    const int64_t count = std::min(rows_at_once, vectors.size(0) - first);
    const Tensor wide = vectors.narrow(0, first, count).to(products_.device);
    const Tensor thin = wide.to(products_.type);
    const double before = seconds();
    const Tensor product = thin.matmul(narrow_.t());
    const Tensor scores = product.to(at::kFloat);  // [count, vocabulary]
    time_.products += seconds() - before;

    const Tensor norms = wide.norm(2, {1}), left = thin.to(at::kFloat).norm(2, {1}),
                 lost = (wide - thin.to(at::kFloat)).norm(2, {1});
    const Tensor bound =
        lost * longest_ + left * longest_lost_ + g * (left * longest_left_ + norms * longest_);

    // Not at::logsumexp: in float32 a log-sum of 100 is off by 4e-6, and so is every probability.
    const auto log_sum_exp = [](const Tensor& signed_scores) {
      const Tensor peak = signed_scores.amax(1, true);
      return (signed_scores - peak).exp().sum(1, false, at::kDouble).log() + peak.squeeze(1).to(at::kDouble);
    };
    Tensor log_sum = log_sum_exp(scores), log_sum_negated = log_sum_exp(-scores);
    const int64_t groups = vocabulary / kGroup;
    const Tensor grouped = scores.narrow(1, 0, groups * kGroup).view({count, groups, kGroup});
    const auto [minima, maxima] = at::aminmax(grouped, 2);
    const auto labels = [&](const Tensor& signed_scores, const Tensor& group_maxima,
                            const Tensor& signed_rows, const Tensor& sums) {
      // Every token that may be a label, however many there are.
      int64_t kept = std::min(vocabulary, std::max<int64_t>(4 * top, 32));
      Extreme found = largest_of(signed_scores, group_maxima, kept);
      const Tensor kth = found.scores.select(1, top - 1);
      const Tensor least = (kth - bound - q * kth.abs()).unsqueeze(1);
      const auto upper = [&](const Tensor& s) { return s + bound.unsqueeze(1) + q * s.abs(); };
      while (kept < vocabulary && (upper(found.scores.narrow(1, kept - 1, 1)) >= least).any().item<bool>()) {
        kept = std::min(vocabulary, 4 * kept);
        found = largest_of(signed_scores, group_maxima, kept);
      }
      // In token order, so that equal scores stay in it; in float32, from the whole factors. A row at a time:
      // few.
      const Tensor tokens = std::get<0>(found.tokens.sort(1));
      Tensor again = at::empty(tokens.sizes(), scores.options());
      const int64_t part = std::max<int64_t>(1, (int64_t{1} << 24) / (kept * width));
      for (int64_t at = 0; at < count; at += part) {
        const int64_t some = std::min(part, count - at);
        const Tensor gathered =
            head_.index_select(0, tokens.narrow(0, at, some).flatten()).view({some, kept, width});
        again.narrow(0, at, some)
            .copy_(at::bmm(gathered, signed_rows.narrow(0, at, some).unsqueeze(2)).squeeze(2));
      }
      const auto [sorted, index] = again.sort(std::optional<bool>(true), 1, true);
      const Tensor kept_scores = sorted.narrow(1, 0, top),
                   kept_tokens = tokens.gather(1, index).narrow(1, 0, top);
      const Tensor rough = signed_scores.gather(1, kept_tokens).to(at::kDouble);
      const Tensor sum = sums.unsqueeze(1);
      const Tensor shift = ((kept_scores.to(at::kDouble) - sum).exp() - (rough - sum).exp()).sum(1).log1p();
      return Labelled{kept_scores.cpu().contiguous(), kept_tokens.cpu().contiguous(), shift};
    };
    const Labelled up = labels(scores, maxima, wide, log_sum),
                   down = labels(-scores, -minima, -wide, log_sum_negated);
    log_sum = log_sum + up.shift;
    log_sum_negated = log_sum_negated + down.shift;

    const Tensor mean = scores.mean(1, true, at::kDouble);
    const Tensor d2 = (scores - mean.to(at::kFloat)).square();
    const Tensor variance = d2.mean(1, false, at::kDouble), fourth = d2.square().mean(1, false, at::kDouble);

    const auto take = [&](std::vector<atlas::Best>& held, const Tensor& signed_scores, const Tensor& sums,
                          float sign) {
      const Tensor rows = (signed_scores - sums.to(at::kFloat).unsqueeze(1)).argmax(0);  // [vocabulary]
      const Tensor score = signed_scores.gather(0, rows.unsqueeze(0)).squeeze(0);
      const Tensor log_p = (score.to(at::kDouble) - sums.gather(0, rows)).cpu();
      const Tensor row = rows.cpu(), value = score.cpu();
      for (int64_t t = 0; t < vocabulary; ++t) {
        atlas::Best& entry = held[static_cast<size_t>(t)];
        if (entry.block < 0 || log_p.const_data_ptr<double>()[t] > entry.log_p)
          entry = {block, static_cast<int>(first + row.const_data_ptr<int64_t>()[t]),
                   sign * value.const_data_ptr<float>()[t], log_p.const_data_ptr<double>()[t]};
      }
    };
    take(best.top, scores, log_sum, 1);
    take(best.bottom, -scores, log_sum_negated, -1);

    const Tensor columns =
        at::stack({norms.to(at::kDouble), mean.squeeze(1), variance, fourth, log_sum, log_sum_negated}, 1)
            .cpu()
            .contiguous();
    const auto list = [&](const Labelled& from, int64_t row, float sign) {
      std::vector<atlas::Label> result;
      for (int64_t k = 0; k < top; ++k)
        result.push_back({static_cast<int32_t>(from.tokens.const_data_ptr<int64_t>()[row * top + k]),
                          sign * from.scores.const_data_ptr<float>()[row * top + k]});
      return result;
    };
    for (int64_t row = 0; row < count; ++row) {
      const double* c = columns.const_data_ptr<double>() + row * 6;
      decoded.push_back(
          {.norm = c[0],
           .mean = c[1],
           .deviation = std::sqrt(c[2]),
           .kurtosis = c[2] > 0 ? c[3] / (c[2] * c[2]) : std::numeric_limits<double>::quiet_NaN(),
           .log_sum = c[4],
           .log_sum_negated = c[5],
           .top = list(up, row, 1),
           .bottom = list(down, row, -1)});
    }
    options.watch.report(
        {"decode", options.done + static_cast<double>(first + count), options.total, options.detail});
  }
  return decoded;
}

}  // namespace lamina::neurons
