#include "lamina/cli/noise_inputs.h"

#include <algorithm>

namespace lamina::cli {

namespace {

constexpr double kSteps = 1000;  // of training, as schedulers have it
constexpr int64_t kUsualSide = 64, kUsualFactor = 8;

// Of one pass: samples `first` to `first + count` of `of`, each from a seed of its own.
Inputs drawn(const unet::Config& config, const NoiseOptions& options, int64_t first, int64_t count) {
  const int64_t side = options.side > 0         ? options.side
                       : config.sample_size > 0 ? config.sample_size
                                                : kUsualSide;
  const auto pixels = static_cast<double>(kUsualFactor * side);
  std::vector<Tensor> samples, texts, embeds;
  std::vector<double> times;
  for (int64_t i = first; i < first + count; ++i) {
    const uint64_t seed = options.seed + 3 * static_cast<uint64_t>(i);
    samples.push_back(random_normal({1, config.in_channels, side, side}, seed));
    texts.push_back(random_normal({1, options.tokens, config.context[0]}, seed + 1));
    if (config.added_width > 0)
      embeds.push_back(random_normal({1, config.added_width - 6 * config.added_time_width}, seed + 2));
    times.push_back((static_cast<double>(i) + 0.5) * kSteps / static_cast<double>(options.count));
  }
  Inputs inputs{.sample = at::cat(samples), .time = at::tensor(times, at::kDouble), .text = at::cat(texts)};
  if (!embeds.empty()) {
    const Tensor ids = at::tensor({pixels, pixels, 0.0, 0.0, pixels, pixels}, at::kFloat);
    inputs.added = {{"text_embeds", at::cat(embeds)}, {"time_ids", ids.unsqueeze(0).repeat({count, 1})}};
  }
  return inputs;
}

}  // namespace

std::vector<Inputs> noise_inputs(const unet::Config& config, const NoiseOptions& options) {
  std::vector<Inputs> passes;
  for (int64_t first = 0; first < options.count; first += options.batch)
    passes.push_back(drawn(config, options, first, std::min(options.batch, options.count - first)));
  return passes;
}

}  // namespace lamina::cli
