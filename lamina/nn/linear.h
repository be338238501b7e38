// A matrix product with weights as the checkpoint has them. The weight may be narrower than the activations
// (bfloat16, float16 beside float32): it is then widened when used, never computed in.
#pragma once

#include <optional>

#include "lamina/tensor/tensor.h"

namespace lamina {

// What is learnt beside a frozen matrix (Hu et al., 2021): scale * (x down^T) up^T is added to the product.
// While gradients are recorded, a share `dropout` of the x that it reads is zeroed by torch's generator, and
// the rest grown to match.
struct LowRank {
  Tensor down;  // [rank, in]
  Tensor up;    // [out, rank]
  double scale = 1;
  double dropout = 0;
};

struct Linear {
  Tensor weight = {};   // [out, in]
  Tensor bias = {};     // [out], or undefined
  bool in_out = false;  // the weight stands [in, out]
  std::optional<LowRank> low_rank = {};

  // [..., in] -> [..., out], in the type of x.
  Tensor operator()(const Tensor& x) const;
  // residual + what it makes of x: what most parts end with.
  Tensor onto(const Tensor& residual, const Tensor& x) const;
  // Its weight in the layout that the library of products likes best, of `type`, float32 or bfloat16, in
  // which products are then made: for many passes without gradients on a CPU. Nothing else reads such a
  // weight. The same map where this machine gains nothing by it. Throws Error for bfloat16 where it has no
  // such arithmetic.
  Linear packed(at::ScalarType type) const;
  // The map that gives the outputs [first, first + count) alone: views of the same numbers.
  Linear outputs(int64_t first, int64_t count) const;
};

// silu(gate) * up (Shazeer, 2020): the neurons of a gated feed-forward.
Tensor gated(const Tensor& gate, const Tensor& up);
// The same of two maps of x. Between packed ones it may be of the type of their products.
Tensor gated(const Linear& gate, const Linear& up, const Tensor& x);

}  // namespace lamina
