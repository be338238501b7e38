// The normal equations of one repair, summed over batches in float64: rows are positions of a map, unknowns
// what the repaired maps read there and a constant.
#pragma once

#include <optional>
#include <vector>

#include "lamina/tensor/tensor.h"

namespace lamina::repair {

// A map as it ran: [batch, in, height, width] with the kernel of a convolution, or [batch, tokens, in].
struct Ran {
  Tensor in, out;
  int64_t kernel = 1;
};

// What the map reads at each position of what it gives: [positions, in * kernel^2], as its weight has them.
Tensor read_at_positions(const Ran& ran);
// [batch, channels, height, width] or [batch, tokens, channels] -> [positions, channels].
Tensor at_positions(const Tensor& x);

class Normal {
 public:
  // [positions, unknowns] and [positions, outputs]; the constant is put beside the unknowns here.
  void add(const Tensor& read, const Tensor& missing);
  bool empty() const { return rows_ == 0; }
  // What is added to the weights, [outputs, unknowns + 1] float64, the constant last; nothing where the
  // equations cannot be solved at this ridge, a share of the mean square of what is read.
  std::optional<Tensor> solved(double ridge) const;
  double missing() const;                   // mean square of what is missing, over positions and outputs
  double left(const Tensor& change) const;  // the same once the weights have changed

 private:
  Tensor gram_, cross_;  // [unknowns + 1, unknowns + 1], [outputs, unknowns + 1]
  double square_ = 0;
  int64_t rows_ = 0, outputs_ = 0;
};

}  // namespace lamina::repair
