// The layers again for passes without gradients in float32 on a CPU: fused, and over memory once. Same
// functions as the general ones, to float32 rounding.
#pragma once

#include "lamina/nn/attention.h"
#include "lamina/nn/linear.h"
#include "lamina/nn/norm.h"

namespace lamina::inference {

// True where these stand in for the general ones: nothing of `tensors` records a gradient, all are float32 on
// the CPU, and no autocast is on.
bool applies(std::initializer_list<Tensor> tensors);

Tensor rms_norm(const Tensor& x, const Norm& norm);
Tensor rotate(const Tensor& x, const Rotary& rotary);
Tensor gated(const Tensor& gate, const Tensor& up);
// Short texts, and maps of which every token sees every other; nothing where the general way is the better
// one.
std::optional<Tensor> attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttendOptions& options);

}  // namespace lamina::inference
