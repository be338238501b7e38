// The numbers a model has before it has learnt anything. Each tensor's depend on the seed and its name alone.
#pragma once

#include <cstdint>
#include <optional>

#include "lamina/family/family.h"
#include "lamina/tensor/tensor.h"

namespace lamina {

// gpt2: normal; in what writes to the residual divided by sqrt(2 blocks); norms one, biases zero (Radford et
// al., 2019). torch: uniform within 1 / sqrt(inputs), biases too, norms one and zero, as torch's layers begin
// (He et al., 2015); what a part adds to its residual, and what a denoiser says, zero.
enum class FirstLaw { gpt2, torch };
std::string_view law_name(FirstLaw law);
// torch's for networks with convolutions.
FirstLaw first_law(const Blueprint& blueprint);

struct FirstNumbers {
  uint64_t seed = 0;
  double deviation = 0.02;           // of gpt2's
  std::optional<FirstLaw> law = {};  // nothing: as the blueprint asks for
  bool silent_parts = true;          // of torch's: the zeros
};
// Float32, in the slot's own shape.
Tensor first_numbers(const Slot& slot, const Blueprint& blueprint, const FirstNumbers& options);

// The same model with first numbers in every tensor, each in its own type (block types as float32).
Opened with_first_numbers(const Opened& opened, const FirstNumbers& options);

}  // namespace lamina
