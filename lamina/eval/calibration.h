// How sure a model is, and how rightly: entropy, cross-entropy and the expected calibration error (Guo et
// al., 2017) over equal bins of the likeliest token's probability.
#pragma once

#include <span>
#include <vector>

#include "lamina/eval/bootstrap.h"
#include "lamina/eval/token_scores.h"

namespace lamina {

struct CalibrationErrorOptions {
  int64_t bins = 15;
};

struct Calibration {
  struct Bin {
    int64_t tokens = 0;
    double confidence = 0, accuracy = 0;  // means
  };
  double cross_entropy = 0, entropy = 0, accuracy = 0;  // means over tokens
  double error = 0;                                     // sum of tokens / all |accuracy - confidence|
  std::vector<Bin> bins = {};                           // (b / bins, (b + 1) / bins]
  std::vector<double> by_sample = {};                   // cross-entropy: for paired differences
  int64_t tokens = 0;
};

Calibration calibration(std::span<const TokenScore> scores, const CalibrationErrorOptions& options = {});
Calibration calibration(const Model& model, const Samples& samples, const CalibrationErrorOptions& options,
                        Tap& base, const Watch& watch = {});

// Mean of changed - before over samples, with its 95 % interval (Student's t). Throws Error when the two do
// not come from the same samples.
Estimate paired_difference(std::span<const double> before, std::span<const double> changed);

}  // namespace lamina
