// Numbers that were computed, put into a checkpoint.
#pragma once

#include "lamina/checkpoint/checkpoint.h"
#include "lamina/tensor/tensor.h"

namespace lamina {

// `stored` gets a copy of these numbers and their type; its name and shape stay as they are.
void store(Stored& stored, const Tensor& numbers);

}  // namespace lamina
