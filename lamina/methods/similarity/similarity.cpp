#include "lamina/methods/similarity/similarity.h"

namespace lamina::similarity {

namespace {

class Influence : public Tap {
 public:
  Influence(const Blueprint& blueprint, const std::vector<Unit>& units)
      : score(units.size()), first_(blueprint.parts.size(), -1), last_(first_) {
    for (size_t u = 0; u < units.size(); ++u) {
      first_[static_cast<size_t>(units[u].sites.front().index)] = static_cast<int>(u);
      last_[static_cast<size_t>(units[u].sites.back().index)] = static_cast<int>(u);
    }
  }
  void saw(Site site, const Tensor& before, const Tensor& after) override {
    if (first_[static_cast<size_t>(site.index)] >= 0) start_ = before;
    if (const int unit = last_[static_cast<size_t>(site.index)]; unit >= 0) {
      score[static_cast<size_t>(unit)] +=
          1 - at::cosine_similarity(start_.to(at::kDouble), after.to(at::kDouble), -1).mean().item<double>();
    }
  }
  std::vector<double> score;

 private:
  std::vector<int> first_, last_;  // the unit that a site opens, and the one it closes
  Tensor start_;
};

}  // namespace

Proposal propose(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks) {
  const InferenceMode evaluating;
  const Units units = units_from_name(options.units);
  Influence tap(input.model.blueprint(), units_of(input.model.blueprint(), units));
  double done = 0;
  for (const std::vector<int32_t>& ids : input.samples) {
    if (hooks.watch.stop.stop_requested()) throw Stopped{};
    Stream stream = input.model.begin(
        {.ids = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0)});
    for (Site site : input.model.blueprint().present()) input.model.step(stream, site, tap);
    hooks.watch.report({"influence", ++done, static_cast<double>(input.samples.size()), ""});
  }
  for (double& score : tap.score) score /= static_cast<double>(input.samples.size());
  return lowest(input, units, tap.score, options.remove);
}

}  // namespace lamina::similarity
