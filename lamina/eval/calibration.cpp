#include "lamina/eval/calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "lamina/base/error.h"

namespace lamina {

namespace {

// The 97.5 % point of Student's t for 1, 2, ... 30 degrees of freedom; beyond, Cornish and Fisher's expansion
// around the normal one, whose error is below 1e-4 there.
double student_t(int64_t freedom) {
  constexpr std::array kPoints = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060,
                                  2.2622,  2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199,
                                  2.1098,  2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639,
                                  2.0595,  2.0555, 2.0518, 2.0484, 2.0452, 2.0423};
  if (freedom <= std::ssize(kPoints)) return kPoints[static_cast<size_t>(freedom - 1)];
  const double z = 1.959964, n = static_cast<double>(freedom);
  return z + (z * z * z + z) / (4 * n) + (5 * std::pow(z, 5) + 16 * z * z * z + 3 * z) / (96 * n * n);
}

}  // namespace

Calibration calibration(std::span<const TokenScore> scores, const CalibrationErrorOptions& options) {
  if (options.bins < 1) fail("a calibration error of {} bins; at least one is needed", options.bins);
  Calibration result{.tokens = std::ssize(scores)};
  result.bins.resize(static_cast<size_t>(options.bins));
  std::vector<int64_t> tokens_of;
  for (const TokenScore& score : scores) {
    result.cross_entropy += score.loss;
    result.entropy += score.entropy;
    result.accuracy += score.right ? 1 : 0;
    const double place = std::ceil(score.confidence * static_cast<double>(options.bins)) - 1;
    Calibration::Bin& bin =
        result.bins[static_cast<size_t>(std::clamp(place, 0.0, static_cast<double>(options.bins - 1)))];
    ++bin.tokens;
    bin.confidence += score.confidence;
    bin.accuracy += score.right ? 1 : 0;
    const auto sample = static_cast<size_t>(score.sample);
    if (result.by_sample.size() <= sample) {
      result.by_sample.resize(sample + 1);
      tokens_of.resize(sample + 1);
    }
    result.by_sample[sample] += score.loss;
    ++tokens_of[sample];
  }
  const auto all = static_cast<double>(result.tokens);
  for (Calibration::Bin& bin : result.bins) {
    if (bin.tokens == 0) continue;
    const auto count = static_cast<double>(bin.tokens);
    bin.confidence /= count;
    bin.accuracy /= count;
    result.error += count / all * std::abs(bin.accuracy - bin.confidence);
  }
  for (size_t s = 0; s < tokens_of.size(); ++s) result.by_sample[s] /= static_cast<double>(tokens_of[s]);
  result.cross_entropy /= all;
  result.entropy /= all;
  result.accuracy /= all;
  return result;
}

Calibration calibration(const Model& model, const Samples& samples, const CalibrationErrorOptions& options,
                        Tap& base, const Watch& watch) {
  return calibration(token_scores(model, samples, base, watch), options);
}

Estimate paired_difference(std::span<const double> before, std::span<const double> changed) {
  if (before.size() != changed.size() || before.empty())
    fail("{} samples cannot be paired with {}; evaluate both on the same text", before.size(),
         changed.size());
  const auto count = static_cast<double>(before.size());
  double sum = 0, squares = 0;
  for (size_t s = 0; s < before.size(); ++s) sum += changed[s] - before[s];
  const double mean = sum / count;
  for (size_t s = 0; s < before.size(); ++s)
    squares += (changed[s] - before[s] - mean) * (changed[s] - before[s] - mean);
  if (before.size() < 2)
    return {mean, -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity()};
  const double half = student_t(std::ssize(before) - 1) * std::sqrt(squares / (count - 1) / count);
  return {mean, mean - half, mean + half};
}

}  // namespace lamina
