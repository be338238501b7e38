#include "lamina/methods/laptop/calibration.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/random.h"

namespace lamina::laptop {

namespace {

Inputs rows(const Tensor& sample, const Tensor& time, const Conditions& conditions, int64_t first,
            int64_t count) {
  Inputs inputs{.sample = sample, .time = time, .text = conditions.text.narrow(0, first, count)};
  for (const auto& [name, tensor] : conditions.added) inputs.added[name] = tensor.narrow(0, first, count);
  return inputs;
}

}  // namespace

std::vector<int64_t> stratified_times(int64_t count, int64_t steps, uint64_t seed) {
  std::vector<int64_t> times;
  for (int64_t i = 0; i < count; ++i) times.push_back(steps * i / count);
  SplitMix random(seed);
  for (int64_t i = count - 1; i > 0; --i)
    std::swap(times[static_cast<size_t>(i)], times[static_cast<size_t>(random.below(i + 1))]);
  return times;
}

Calibration calibration(const NoiseSchedule& schedule, const Tensor& clean, const Conditions& conditions,
                        const std::optional<Conditions>& unconditional, const CalibrationOptions& options) {
  const int64_t count = clean.size(0);
  if (conditions.text.size(0) != count || (unconditional && unconditional->text.size(0) != count))
    fail("{} samples were given with {} texts; each needs one", count, conditions.text.size(0));
  const Tensor time =
      at::tensor(stratified_times(count, schedule.steps(), options.seed), at::kLong).to(at::kFloat);
  const Tensor noise = random_normal(clean.sizes(), options.seed + 1).to(clean.scalar_type());
  Calibration made{.batches = {}, .steps = schedule.steps(), .source = options.source};
  for (int64_t first = 0; first < count; first += options.batch) {
    const int64_t n = std::min(options.batch, count - first);
    const Tensor t = time.narrow(0, first, n), x = clean.narrow(0, first, n), e = noise.narrow(0, first, n);
    const Tensor noisy = schedule.noised(x, e, t);
    CalibrationBatch batch{
        .inputs = rows(noisy, t, conditions, first, n), .unguided = {}, .target = schedule.target(x, e, t)};
    if (unconditional) batch.unguided = rows(noisy, t, *unconditional, first, n);
    made.batches.push_back(std::move(batch));
  }
  return made;
}

}  // namespace lamina::laptop
