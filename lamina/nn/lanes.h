// Float32 in lanes as wide as the machine's registers, for sources that are compiled once for each
// instruction set. All of it has internal linkage, and nothing of the standard library is instantiated here,
// so that no code for a newer processor can leak into the rest of the program.
#pragma once

#include <cstdint>

namespace lamina::lanes {

namespace {  // NOLINT: a copy for each instruction set is meant

// As wide as the registers of the instruction set this file is compiled for.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
using Lane = float __attribute__((vector_size(kLanes * sizeof(float))));
using LaneBits = int32_t __attribute__((vector_size(kLanes * sizeof(float))));
constexpr float kInfinity = __builtin_inff();

inline Lane read(const float* from) {
  Lane lane;
  __builtin_memcpy(&lane, from, sizeof lane);
  return lane;
}

// The last, partial lane of a row, filled up with what adds nothing.
inline Lane read_tail(const float* from, int64_t count, float fill) {
  float values[kLanes];
  for (int i = 0; i < kLanes; ++i) values[i] = i < count ? from[i] : fill;
  return read(values);
}

inline Lane choose(LaneBits yes, Lane a, Lane b) {
  return reinterpret_cast<Lane>((yes & reinterpret_cast<LaneBits>(a)) |
                                (~yes & reinterpret_cast<LaneBits>(b)));
}

inline Lane larger(Lane a, Lane b) {
  return choose(a > b, a, b);
}

inline Lane smaller(Lane a, Lane b) {
  return choose(a < b, a, b);
}

inline Lane absolute(Lane x) {
  return reinterpret_cast<Lane>(reinterpret_cast<LaneBits>(x) & 0x7fffffff);
}

// exp for x <= 88, to 2 units in the last place; 0 below -87.
inline Lane exponential(Lane x) {
  const LaneBits small = x < -87.0f;
  x = larger(x, Lane{} - 87.0f);
  const Lane magic = Lane{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Lane n = x * 1.44269504f + magic - magic;
  const Lane r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Lane y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const LaneBits power = (__builtin_convertvector(n, LaneBits) + 127) << 23;
  return choose(small, Lane{}, y * reinterpret_cast<Lane>(power));
}

inline double total(Lane lane) {
  double sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += static_cast<double>(lane[i]);
  return sum;
}

inline float largest(Lane lane) {
  float top = lane[0];
  for (int i = 1; i < kLanes; ++i) top = lane[i] > top ? lane[i] : top;
  return top;
}

}  // namespace

}  // namespace lamina::lanes
