#include "lamina/methods/denorm/compare.h"

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"

namespace lamina::denorm {

namespace {

// The 97.5 % point of Student's t (Abramowitz and Stegun 26.7.5; one and two degrees of freedom exactly).
double t_point(int64_t freedom) {
  if (freedom == 1) return 12.7062;
  if (freedom == 2) return 4.3027;
  const double z = 1.959964, v = static_cast<double>(freedom);
  const double z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z;
  return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * v * v * v);
}

}  // namespace

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

Interval mean_of(std::span<const double> values) {
  Interval interval{.samples = std::ssize(values)};
  const double count = static_cast<double>(values.size());
  for (double value : values) interval.mean += value / count;
  double square = 0;
  for (double value : values) square += (value - interval.mean) * (value - interval.mean);
  const double half =
      values.size() < 2 ? NAN : t_point(std::ssize(values) - 1) * std::sqrt(square / (count - 1) / count);
  interval.low = interval.mean - half;
  interval.high = interval.mean + half;
  return interval;
}

Interval difference(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size()) fail("{} and {} samples cannot be compared one by one", a.size(), b.size());
  std::vector<double> differences;
  for (size_t i = 0; i < a.size(); ++i) differences.push_back(a[i] - b[i]);
  return mean_of(differences);
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
