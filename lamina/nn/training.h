// The layers again for passes that are differentiated in float32 on a CPU: each one node of the graph, which
// keeps what backward needs and nothing else, and goes over memory once. Same functions as the general ones,
// to float32 rounding; second derivatives are refused.
#pragma once

#include "lamina/nn/attention.h"
#include "lamina/nn/linear.h"
#include "lamina/nn/norm.h"

namespace lamina::training {

// True where these stand in for the general ones: gradients are being recorded for one of `tensors`, all are
// float32 on the CPU, and no autocast is on.
bool applies(std::initializer_list<Tensor> tensors);

Tensor linear(const Tensor& x, const Linear& layer);
Tensor rms_norm(const Tensor& x, const Norm& norm);
Tensor rotate(const Tensor& x, const Rotary& rotary);
Tensor gated(const Tensor& gate, const Tensor& up);

// a [m, k] times b [k, n], float32: by the faster of the libraries at hand for that shape.
Tensor product(const Tensor& a, const Tensor& b);

}  // namespace lamina::training
