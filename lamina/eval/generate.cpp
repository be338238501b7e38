#include "lamina/eval/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>

#include "lamina/base/error.h"

namespace lamina {

namespace {

using Clock = std::chrono::steady_clock;

// Sampling by hand: torch's generator would tie the text to a libtorch version.
int32_t pick(const Tensor& logits, const GenerateOptions& options, std::mt19937_64& engine) {
  if (options.temperature <= 0) return static_cast<int32_t>(logits.argmax().item<int64_t>());
  const Tensor scaled = logits.to(at::kDouble) / options.temperature;
  const Tensor probability = at::softmax(scaled, 0).contiguous();
  const double* p = probability.const_data_ptr<double>();
  std::vector<int32_t> order(static_cast<size_t>(probability.numel()));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater{}, [p](int32_t id) { return p[id]; });
  if (options.top_k > 0 && options.top_k < static_cast<int64_t>(order.size()))
    order.resize(static_cast<size_t>(options.top_k));
  double mass = 0;
  size_t kept = 0;
  while (kept < order.size() && (kept == 0 || mass < options.top_p)) mass += p[order[kept++]];
  double draw = static_cast<double>(engine() >> 11) * 0x1p-53 * mass;
  for (size_t i = 0; i < kept; ++i) {
    draw -= p[order[i]];
    if (draw < 0) return order[i];
  }
  return order[kept - 1];
}

}  // namespace

Generated generate(const Model& model, const std::vector<int32_t>& prompt, const GenerateOptions& options,
                   Tap& tap) {
  const InferenceMode evaluating;
  if (prompt.empty()) fail("the prompt has no token to continue");
  Generated result;
  std::mt19937_64 engine(options.seed);
  std::vector<int64_t> ids(prompt.begin(), prompt.end());
  check_speaks(model.blueprint(), "the model");
  std::optional<Cache> cache = options.cache ? std::optional<Cache>(Cache{}) : std::nullopt;
  auto started = Clock::now();
  for (int64_t n = 0; n < options.tokens; ++n) {
    const Tensor input = cache && n > 0 ? at::tensor({ids.back()}, at::kLong) : at::tensor(ids, at::kLong);
    Stream stream = model.begin({.ids = input.unsqueeze(0), .cache = std::move(cache)});
    for (Site site : model.blueprint().present()) model.step(stream, site, tap);
    const Tensor normed = model.read_out(stream, tap);
    const Tensor logits = model.head()(normed.narrow(1, normed.size(1) - 1, 1)).flatten();
    const int32_t id = pick(logits, options, engine);
    cache = std::move(stream.cache);
    const auto now = Clock::now();
    (n == 0 ? result.prompt_seconds : result.seconds) += std::chrono::duration<double>(now - started).count();
    started = now;
    if (std::ranges::find(options.stop, id) != options.stop.end()) break;
    ids.push_back(id);
    result.ids.push_back(id);
    if (options.on_token && !options.on_token(id)) break;
  }
  return result;
}

}  // namespace lamina
