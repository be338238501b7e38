// Compiled once for each instruction set; LAMINA_LANES names the set. Nothing of the standard library is
// instantiated here.
#include "lamina/nn/impl/gemv_lanes.h"

namespace lamina {

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
using Lane = float __attribute__((vector_size(kLanes * sizeof(float))));
using Bits = uint32_t __attribute__((vector_size(kLanes * sizeof(float))));
using Halves = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));
using Float16s = _Float16 __attribute__((vector_size(kLanes * sizeof(uint16_t))));

struct Float32 {
  using Stored = float;
  using Run = Lane;
  static inline Lane wide(Lane w) { return w; }
  static inline float wide(float w) { return w; }
};

struct BFloat16 {
  using Stored = uint16_t;
  using Run = Halves;
  static inline Lane wide(Halves h) { return reinterpret_cast<Lane>(__builtin_convertvector(h, Bits) << 16); }
  static inline float wide(uint16_t h) {
    const uint32_t bits = static_cast<uint32_t>(h) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  }
};

struct Float16 {
  using Stored = uint16_t;
  using Run = Halves;
  static inline Lane wide(Halves h) { return __builtin_convertvector(reinterpret_cast<Float16s>(h), Lane); }
  static inline float wide(uint16_t h) {
    _Float16 value;
    __builtin_memcpy(&value, &h, sizeof value);
    return static_cast<float>(value);
  }
};

template <class Type>
void rows(const typename Type::Stored* weight, const float* x, float* y, int64_t first, int64_t last,
          int64_t columns) {
  constexpr int kUnroll = 4;
  for (int64_t r = first; r < last; ++r) {
    const typename Type::Stored* w = weight + r * columns;
    Lane sums[kUnroll] = {};
    int64_t i = 0;
    for (; i + kUnroll * kLanes <= columns; i += kUnroll * kLanes) {
      for (int u = 0; u < kUnroll; ++u) {
        typename Type::Run h;
        Lane v;
        __builtin_memcpy(&h, w + i + u * kLanes, sizeof h);
        __builtin_memcpy(&v, x + i + u * kLanes, sizeof v);
        sums[u] += Type::wide(h) * v;
      }
    }
    const Lane all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float sum = 0;
    for (int l = 0; l < kLanes; ++l) sum += all[l];
    for (; i < columns; ++i) sum += Type::wide(w[i]) * x[i];
    y[r] = sum;
  }
}

}  // namespace

extern const GemvFunctions LAMINA_LANES;
const GemvFunctions LAMINA_LANES = {rows<BFloat16>, rows<Float16>, rows<Float32>};

}  // namespace lamina
