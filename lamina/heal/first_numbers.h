// The numbers a model has before it has learnt anything, as GPT-2 has them (Radford et al., 2019): normal; in
// what writes to the residual divided by sqrt(2 blocks); norms one, biases zero. Each tensor's depend on the
// seed and its name alone.
#pragma once

#include <cstdint>

#include "lamina/family/family.h"
#include "lamina/tensor/tensor.h"

namespace lamina {

struct FirstNumbers {
  uint64_t seed = 0;
  double deviation = 0.02;
};
// Float32, in the slot's own shape.
Tensor first_numbers(const Slot& slot, int blocks, const FirstNumbers& options);

// The same model with first numbers in every tensor, each in its own type (block types as float32).
Opened with_first_numbers(const Opened& opened, const FirstNumbers& options);

}  // namespace lamina
