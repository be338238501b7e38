// The order in which epochs take things: another one each epoch, made from the seed, so that where sample i
// of a run stands is a function of i.
#pragma once

#include <cstdint>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "lamina/base/random.h"

namespace lamina {

class EpochOrder {
 public:
  EpochOrder(int64_t count, uint64_t seed) : count_(count), seed_(seed) {}

  int64_t operator()(int64_t sample) const {
    const int64_t epoch = sample / count_, at = sample % count_;
    const std::lock_guard lock(mutex_);
    if (epoch != epoch_) {
      order_.resize(static_cast<size_t>(count_));
      std::iota(order_.begin(), order_.end(), int64_t{0});
      SplitMix random(SplitMix(seed_).next() ^ static_cast<uint64_t>(epoch));
      for (size_t i = order_.size(); i > 1; --i)
        std::swap(order_[i - 1], order_[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
      epoch_ = epoch;
    }
    return order_[static_cast<size_t>(at)];
  }

 private:
  int64_t count_;
  uint64_t seed_;
  mutable std::mutex mutex_;
  mutable int64_t epoch_ = -1;  // that `order_` is of
  mutable std::vector<int64_t> order_;
};

}  // namespace lamina
