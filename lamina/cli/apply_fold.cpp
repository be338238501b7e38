// lamina apply HEALED --fold-gates: kernels that are mixed by the time become plain ones, which stock loaders
// open.
#include <fmt/format.h>

#include <algorithm>

#include "lamina/cli/apply.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/noise_inputs.h"
#include "lamina/cli/session.h"
#include "lamina/methods/asdm/experts.h"

namespace lamina::cli {

namespace {

constexpr int64_t kBatch = 10;    // times in a pass that measures gates
constexpr int64_t kJudged = 4;    // samples whose answers are compared
constexpr uint64_t kSeed = 1000;  // of those; others than the gates are measured on

FoldAnswer fold(const Opened& opened, const FoldAsked& asked) {
  use_threads(thread_count(asked.threads));
  const unet::Config config = unet::read_config(opened.checkpoint.config, opened.checkpoint.what());
  // What gates read is the time alone, so the smallest latents will do.
  const std::vector<Inputs> times = noise_inputs(
      config,
      {.count = asked.times, .batch = kBatch, .side = int64_t{1} << (config.stages() - 1), .tokens = 1});
  const std::vector<Inputs> judged =
      noise_inputs(config, {.count = kJudged, .side = asked.side, .seed = kSeed});
  const bool twice = std::ranges::any_of(opened.checkpoint.tensors,
                                         [](const Stored& tensor) { return tensor.dtype == DType::f64; });
  const asdm::Folding folding = asdm::fold_gates(
      opened,
      {.measured = times, .judged = judged, .dtype = twice ? at::kDouble : at::kFloat, .watch = asked.watch});
  return {
      .edits = folding.edits,
      .measured = {{"times", asked.times},
                   {"samples", kJudged},
                   {"side", judged[0].sample.size(3)},
                   {"moved", folding.moved},
                   {"moved_most", folding.moved_most}},
      .said = fmt::format(
          "Gates are their means at {} times. Answers to {} samples of noise move by {:.3g} % (root of the "
          "mean square), at most by {:.3g} % of the largest number.",
          asked.times, kJudged, 100 * folding.moved, 100 * folding.moved_most)};
}

}  // namespace

int run_apply_folding(int argc, char** argv) {
  return run_apply_with(argc, argv, fold);
}

}  // namespace lamina::cli
