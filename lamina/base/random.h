// Splitmix64 (Steele, Lea and Flood, 2014): the same numbers on every machine and every standard library.
#pragma once

#include <cstdint>

namespace lamina {

class SplitMix {
 public:
  explicit SplitMix(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // in [0, 1)
  // In [0, count), count above 0, without the bias of a remainder.
  int64_t below(int64_t count) {
    const auto range = static_cast<uint64_t>(count), rest = (~range + 1) % range;  // 2^64 mod range
    for (;;) {
      if (const uint64_t x = next(); x >= rest) return static_cast<int64_t>(x % range);
    }
  }

 private:
  uint64_t state_;
};

}  // namespace lamina
