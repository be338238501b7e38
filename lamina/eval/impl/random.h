// Splitmix64 (Vigna): the standard distributions differ between libraries.
#pragma once

#include <cstdint>

namespace lamina {

class Splitmix {
 public:
  explicit Splitmix(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // At the sizes drawn here the bias of the remainder is below 1e-12.
  int64_t below(int64_t count) { return static_cast<int64_t>(next() % static_cast<uint64_t>(count)); }

 private:
  uint64_t state_;
};

}  // namespace lamina
