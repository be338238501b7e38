#include "lamina/methods/denorm/compare.h"

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"

namespace lamina::denorm {

std::vector<double> sample_losses(const Model& model, const Batches& data, int64_t samples, int64_t batch,
                                  Tap& tap, const Watch& watch) {
  const InferenceMode evaluating;
  if (samples == 0) samples = data.samples_per_epoch();
  samples = std::min(samples, data.samples_per_epoch());
  std::vector<double> losses;
  for (int64_t first = 0; first < samples; first += batch) {
    if (watch.stop.stop_requested()) throw Stopped{};
    const Batch piece = data.at(first, std::min(batch, samples - first));
    Stream stream = model.begin(piece.inputs);
    for (Site site : model.blueprint().present()) model.step(stream, site, tap);
    const Tensor hidden = model.read_out(stream, tap);
    for (int64_t row = 0; row < hidden.size(0); ++row) {
      const Tensor targets = piece.targets.narrow(0, row, 1);
      const auto learnt = targets.ne(kNotLearnt).sum().item<int64_t>();
      if (learnt == 0) continue;
      losses.push_back(summed_cross_entropy(hidden.narrow(0, row, 1), model.head(), targets).item<double>() /
                       static_cast<double>(learnt));
    }
    watch.report({"validate", static_cast<double>(std::min(first + batch, samples)),
                  static_cast<double>(samples), ""});
  }
  return losses;
}

Spike worst_spike(const std::vector<StepRecord>& curve, const std::vector<StepRecord>& control,
                  int64_t from) {
  Spike spike{.loss = -INFINITY, .over_same = -INFINITY};
  double control_worst = -INFINITY;
  for (size_t i = static_cast<size_t>(from); i < std::min(curve.size(), control.size()); ++i) {
    control_worst = std::max(control_worst, control[i].loss);
    if (curve[i].loss > spike.loss) {
      spike.loss = curve[i].loss;
      spike.step = curve[i].step;
    }
    if (curve[i].loss - control[i].loss > spike.over_same) {
      spike.over_same = curve[i].loss - control[i].loss;
      spike.over_same_step = curve[i].step;
    }
  }
  spike.over_worst = spike.loss - control_worst;
  return spike;
}

}  // namespace lamina::denorm
