// The only door to ATen. Nobody else includes it, so that one precompiled header serves all and a new
// libtorch is met here.
#pragma once

#include <ATen/core/ivalue.h>  // first: clang needs c10::IValue complete before ATen.h in C++20
//
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <string_view>

#include "lamina/checkpoint/checkpoint.h"

namespace lamina {

using at::Tensor;
using c10::InferenceMode;  // one guard at the top of whatever only evaluates: no gradients, less dispatch

at::ScalarType scalar_type(DType dtype);  // throws Error for block types and those torch lacks
DType dtype_of(at::ScalarType type);

// The tensor of a checkpoint in its own row order, as `as`. Where file and `as` agree it is a view of the
// mapping (never write to it); else a fresh tensor.
Tensor load(const Stored& tensor, at::ScalarType as);

// Standard normal numbers, float32: the same for the same seed with any libtorch of one generation of its
// generator (they may differ between releases).
Tensor random_normal(at::IntArrayRef sizes, uint64_t seed);

// One intra-op thread for this thread's ATen calls; `count` for the calls of the thread that asks.
void use_threads(int count);

// The message of an exception that libtorch threw, without the backtrace.
std::string message_of(const std::exception& error);

}  // namespace lamina
