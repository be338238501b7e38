// Vectors read through the LM head (Davies 2025, arXiv 2501.02688; v2 "Flash Interpretability"): s = W_U w,
// its softmax, its extremes at both ends and its moments over the vocabulary, without ever holding [vectors,
// vocabulary].
#pragma once

#include <cstdint>
#include <vector>

#include "lamina/atlas/atlas.h"
#include "lamina/base/progress.h"
#include "lamina/tensor/tensor.h"

namespace lamina::neurons {

// For every token the vector that gives it the largest probability so far, at both poles.
struct BestRows {
  explicit BestRows(int64_t vocabulary);
  std::vector<atlas::Best> top, bottom;  // [vocabulary]
};

struct DecodeOptions {
  int64_t top = 8;  // labels kept at each end
  Watch watch = {};
  double done = 0, total = 0;  // for the watch, in vectors
  std::string detail = {};
};

// Seconds in matrix products and in all: the first is the floor.
struct DecodeTime {
  double products = 0, all = 0;
};

class Decoder {
 public:
  // `head` is [vocabulary, width], float32. Throws Error when a number in it is not finite.
  explicit Decoder(const Tensor& head);
  int64_t vocabulary() const { return head_.size(0); }
  int64_t width() const { return head_.size(1); }

  // Scores, labels, moments and log-sum-exp of `vectors` [count, width], float32, as they are (`norm` is
  // their own norm). Vector i counts as neuron i of `block` in `best`. Throws Stopped between two pieces of
  // work.
  std::vector<atlas::Decoded> decode(const Tensor& vectors, int block, BestRows& best,
                                     const DecodeOptions& options) const;
  const DecodeTime& time() const { return time_; }

 private:
  Tensor head_;
  Tensor mean_;  // of the rows of the head, float64 [width]
  mutable DecodeTime time_;
};

}  // namespace lamina::neurons
