#include "lamina/eval/token_scores.h"

#include <algorithm>

namespace lamina {

namespace {

constexpr int64_t kTile = 128;

}  // namespace

std::vector<TokenScore> token_scores(const Linear& head, const Tensor& hidden,
                                     const std::vector<int32_t>& ids) {
  const InferenceMode evaluating;
  const auto predicted = static_cast<int64_t>(ids.size()) - 1;
  const Tensor targets = as_batch(ids).squeeze(0).narrow(0, 1, predicted);
  std::vector<TokenScore> scores;
  scores.reserve(static_cast<size_t>(predicted));
  for (int64_t at = 0; at < predicted; at += kTile) {
    const int64_t count = std::min(kTile, predicted - at);
    const Tensor log_p = head(hidden.narrow(0, at, count)).log_softmax(-1);
    const Tensor target = targets.narrow(0, at, count);
    const Tensor loss = -log_p.gather(1, target.unsqueeze(1)).squeeze(1).to(at::kDouble);
    const auto [most, likeliest] = log_p.max(1);
    const Tensor confidence = most.to(at::kDouble).exp();
    // 0 ln 0 = 0: exp underflows where the logarithm is finite, and -inf times 0 is taken out.
    const Tensor p = log_p.exp();
    const Tensor entropy =
        (-at::where(p > 0, p * log_p, at::zeros({}, p.options())).sum(1)).clamp_min(0).to(at::kDouble);
    for (int64_t r = 0; r < count; ++r) {
      const auto position = static_cast<size_t>(at + r + 1);
      scores.push_back({.position = static_cast<int32_t>(position),
                        .token = ids[position],
                        .loss = loss.const_data_ptr<double>()[r],
                        .entropy = entropy.const_data_ptr<double>()[r],
                        .confidence = confidence.const_data_ptr<double>()[r],
                        .right = likeliest[r].item<int64_t>() == ids[position]});
    }
  }
  return scores;
}

std::vector<TokenScore> token_scores(const Model& model, const Samples& samples, Tap& base,
                                     const Watch& watch) {
  check_samples(model, samples);
  const InferenceMode evaluating;
  std::vector<TokenScore> all;
  for (size_t s = 0; s < samples.size(); ++s) {
    if (watch.stop.stop_requested()) throw Stopped{};
    Stream stream = model.begin({.ids = as_batch(samples[s])});
    walk_from(model, stream, 0, base);
    for (TokenScore score : token_scores(model.head(), model.read_out(stream, base).squeeze(0), samples[s])) {
      score.sample = static_cast<int32_t>(s);
      all.push_back(score);
    }
    watch.report({"losses", static_cast<double>(s + 1), static_cast<double>(samples.size()), ""});
  }
  return all;
}

}  // namespace lamina
