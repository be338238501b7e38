// lamina prune --method asdm: the compute-first cut of the outer stages, windows for attention over large
// maps, kernels inherited from ResNets that go.
#include "lamina/base/error.h"
#include "lamina/cli/prune_unet.h"
#include "lamina/methods/asdm/propose.h"
#include "lamina/methods/asdm/regional.h"

namespace lamina::cli {

namespace {

constexpr int64_t kSamples = 8;  // batches that windows are priced on

// What every part's absence, and windows at every large map, do to the answer.
std::vector<asdm::Choice> choices_for(const Subject& subject, const UnetData& data,
                                      const UnetOptions& options, const UnetFound& found,
                                      const Watch& watch) {
  std::vector<asdm::Choice> choices;
  if (options.cuts) {
    for (size_t i = 0; i < found.candidates.size(); ++i)
      choices.push_back({.site = found.candidates[i], .loss = found.values[i]});
  }
  if (!options.regional) return choices;
  std::vector<Inputs> samples;
  for (const laptop::CalibrationBatch& batch : data.scoring.batches) {
    if (static_cast<int64_t>(samples.size()) < kSamples) samples.push_back(batch.inputs);
  }
  const Windows windows{.window = options.window, .pool = options.cell};
  const std::vector<Regional> edits =
      asdm::regional_at(subject.model(), samples.front(), windows, options.regional_side);
  for (asdm::Choice& choice : asdm::priced(subject.model(), edits, samples, watch))
    choices.push_back(std::move(choice));
  return choices;
}

}  // namespace

Plan asdm_plan(const Subject& subject, const UnetData& data, const UnetOptions& options,
               const UnetFound& found, const Watch& watch) {
  if (found.least[1] <= 0 || found.least[0] > 0 || found.least[2] > 0)
    fail("--method asdm: has one budget, the multiply-adds; give --macs 78%, and no --params or --ms");
  const unet::Shape2d shape{.height = subject.height,
                            .width = subject.width,
                            .text_tokens = data.scoring.batches[0].inputs.text.size(1)};
  const auto whole = static_cast<double>(found.prices.whole[1]);
  const std::vector<asdm::Choice> choices = choices_for(subject, data, options, found, watch);
  const asdm::Proposal proposal = asdm::propose(
      subject.blueprint(), choices,
      [&](const Blueprint& blueprint) { return unet::macs(subject.config, blueprint, shape).total(); },
      {.keep = 1 - static_cast<double>(found.least[1]) / whole,
       .cut = options.cuts,
       .regional = options.regional,
       .inherit = options.experts});
  if (!proposal.reached)
    fail("--macs: what --method asdm may do here leaves {:.1f} % of the multiply-adds",
         100 * proposal.cost / proposal.whole);
  return proposal.plan;
}

}  // namespace lamina::cli
