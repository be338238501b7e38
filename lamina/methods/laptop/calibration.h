// What a denoiser is judged on: noised samples with their times and texts. Each sample has one time, all of
// them spread evenly over the schedule, and its noise is fixed, so that two runs score the same thing.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lamina/diffusion/pipeline.h"
#include "lamina/diffusion/schedule.h"
#include "lamina/model/model.h"

namespace lamina::laptop {

struct CalibrationBatch {
  Inputs inputs;
  std::optional<Inputs> unguided = {};  // the same samples, told nothing
  Tensor target = {};                   // what the denoiser is to say; undefined: not known
};

struct Calibration {
  std::vector<CalibrationBatch> batches = {};
  int64_t steps = 1000;     // of the schedule
  std::string source = {};  // for people: "64 latents that the pipeline drew for 64 captions"

  int64_t samples() const {
    int64_t count = 0;
    for (const CalibrationBatch& batch : batches) count += batch.inputs.sample.size(0);
    return count;
  }
};

// floor(T i / n), i = 0 ... n - 1, in an order that the seed decides.
std::vector<int64_t> stratified_times(int64_t count, int64_t steps, uint64_t seed);

struct CalibrationOptions {
  int64_t batch = 1;  // samples in a batch
  uint64_t seed = 0;  // of times and noise
  std::string source = {};
};
// From clean latents [n, channels, height, width] with what is told about each, row for row, and what a
// sample told nothing is told ([n] rows as well; nothing: guidance cannot be scored).
Calibration calibration(const NoiseSchedule& schedule, const Tensor& clean, const Conditions& conditions,
                        const std::optional<Conditions>& unconditional, const CalibrationOptions& options);

}  // namespace lamina::laptop
