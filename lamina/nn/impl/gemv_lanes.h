// Matrix times vector, weights of 16 bits widened as they are read: decoding is bound by the bytes of the
// weights, and half the bytes is half the time. Those of 32 bits are here because a general matrix product
// reads them at half speed.
#pragma once

#include <cstdint>

namespace lamina {

struct GemvFunctions {
  // y[first .. last) = W[first .. last, :] x, rows of `columns` numbers.
  void (*bfloat16)(const uint16_t* weight, const float* x, float* y, int64_t first, int64_t last,
                   int64_t columns);
  void (*float16)(const uint16_t* weight, const float* x, float* y, int64_t first, int64_t last,
                  int64_t columns);
  void (*float32)(const float* weight, const float* x, float* y, int64_t first, int64_t last,
                  int64_t columns);
};

// For this machine's instruction set; null where it has none that makes this worth while.
const GemvFunctions* gemv_functions();

}  // namespace lamina
