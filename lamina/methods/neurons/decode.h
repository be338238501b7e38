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

// Where and in which type the matrix products run. The labels and their scores are those of float32 whatever
// the type: whatever lies within the error bound of a narrow product is scored again. Moments, log-sum-exp
// and the best row of each token are then those of the narrow scores.
struct Products {
  at::ScalarType type = at::kFloat;  // or bfloat16
  at::Device device = at::kCPU;
  bool on_tensors =
      false;  // ATen's operations in place of the lanes, as on any device: what a test holds to them
};

class Decoder {
 public:
  // `head` is [vocabulary, width], float32. Throws Error when a number in it is not finite.
  explicit Decoder(const Tensor& head, Products products = {});
  int64_t vocabulary() const { return head_.size(0); }
  int64_t width() const { return head_.size(1); }

  // Scores, labels, moments and log-sum-exp of `vectors` [count, width], float32, as they are (`norm` is
  // their own norm). Vector i counts as neuron i of `block` in `best`. Throws Stopped between two pieces of
  // work.
  std::vector<atlas::Decoded> decode(const Tensor& vectors, int block, BestRows& best,
                                     const DecodeOptions& options) const;
  const DecodeTime& time() const { return time_; }

 private:
  std::vector<atlas::Decoded> decode_in_lanes(const Tensor& vectors, int block, BestRows& best,
                                              const DecodeOptions& options) const;
  std::vector<atlas::Decoded> decode_on_tensors(const Tensor& vectors, int block, BestRows& best,
                                                const DecodeOptions& options) const;
  Products products_;
  Tensor head_;    // float32, on the device
  Tensor narrow_;  // the same as the products see it
  // Over all tokens, the largest norm of a row u of the head, of what narrowing took from it, and of what is
  // left.
  double longest_ = 0, longest_lost_ = 0, longest_left_ = 0;
  Tensor mean_;  // of the rows of the head, float64 [width]
  mutable DecodeTime time_;
};

}  // namespace lamina::neurons
