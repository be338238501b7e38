// Matrix times vector with weights of 16 bits, widened as they are read: decoding is bound by the bytes of
// the weights, and half the bytes is half the time.
#pragma once

#include <cstdint>

namespace lamina {

struct GemvFunctions {
  // y[first .. last) = W[first .. last, :] x, rows of `columns` 16-bit numbers.
  void (*bfloat16)(const uint16_t* weight, const float* x, float* y, int64_t first, int64_t last,
                   int64_t columns);
  void (*float16)(const uint16_t* weight, const float* x, float* y, int64_t first, int64_t last,
                  int64_t columns);
};

// For this machine's instruction set; null where it has none that makes this worth while.
const GemvFunctions* gemv_functions();

}  // namespace lamina
