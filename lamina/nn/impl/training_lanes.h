// What a training step does between its matrix products, forwards and backwards in one pass over memory each.
#pragma once

#include <cstdint>

namespace lamina {

// Rows of `width` numbers, contiguous unless said.
struct TrainingFunctions {
  // y = x / rms(x) * gain; keeps 1 / rms of each row.
  void (*rms_forward)(const float* x, const float* gain, float* y, float* inverse, int64_t rows,
                      int64_t width, double epsilon);
  // Writes dx, adds to dgain.
  void (*rms_backward)(const float* dy, const float* x, const float* gain, const float* inverse, float* dx,
                       float* dgain, int64_t rows, int64_t width);
  // y = silu(gate) * up.
  void (*gated_forward)(const float* gate, const float* up, float* y, int64_t count);
  void (*gated_backward)(const float* dy, const float* gate, const float* up, float* dgate, float* dup,
                         int64_t count);
  // One token: `heads` rows of `width`, `step` numbers apart in x, contiguous in y. sign -1 turns back.
  void (*rotate)(const float* x, int64_t step, const float* cosine, const float* sine, float sign, float* y,
                 int64_t heads, int64_t width);
};

// For this machine's instruction set.
const TrainingFunctions& training_functions();

}  // namespace lamina
