// What training reads, as a pure function of a position: sample i of a run is the same whatever the batch
// size, the number of ranks and where a run was resumed. A position is all that a checkpoint needs to hold.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lamina/model/model.h"

namespace lamina {

inline constexpr int64_t kNotLearnt = -100;  // a target of this value is passed over

struct Batch {
  Inputs inputs;  // ids [batch, tokens]; of a network on pictures `sample`, of a denoiser time and text too
  // [batch, tokens] int64: what each position is to say, or kNotLearnt. Of a network on pictures what it is
  // to give, floating: every number counts.
  Tensor targets;
  int64_t first = 0;       // the run's position of its first sample
  int64_t learnt() const;  // targets that count
};

class Batches {
 public:
  virtual ~Batches() = default;
  // Samples [first, first + count) of the run.
  virtual Batch at(int64_t first, int64_t count) const = 0;
  virtual int64_t samples_per_epoch() const = 0;
  virtual std::string digest() const = 0;  // of the data and the order
};

// Running text in pieces of `length` tokens, the remainder dropped; each piece predicts its own tokens but
// the first. Every epoch takes the pieces in another order, made from the seed. Throws Error when there is
// not one piece.
std::unique_ptr<Batches> text_batches(std::vector<int32_t> ids, int64_t length, uint64_t seed);

// The same pieces in the order of the text, once: for validation.
std::unique_ptr<Batches> text_in_order(std::vector<int32_t> ids, int64_t length);

}  // namespace lamina
