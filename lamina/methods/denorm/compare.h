// Arms of one experiment side by side: the same validation samples for all, differences taken sample by
// sample, and how high the training loss jumped.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/heal/train.h"
#include "lamina/model/model.h"

namespace lamina::denorm {

// Mean cross-entropy of each of the first `samples` samples (0: all), nats a position.
std::vector<double> sample_losses(const Model& model, const Batches& data, int64_t samples, int64_t batch,
                                  Tap& tap, const Watch& watch = {});

struct Spike {
  int64_t step = 0;
  double loss = 0;        // the highest training loss of one step
  double over_worst = 0;  // less the highest of the control's, over the same steps
  double over_same =
      0;  // the largest excess over the control's loss of the same step, whose data is the same
  int64_t over_same_step = 0;
};
// From the step after `from` on: before it both arms are one.
Spike worst_spike(const std::vector<StepRecord>& curve, const std::vector<StepRecord>& control, int64_t from);

}  // namespace lamina::denorm
