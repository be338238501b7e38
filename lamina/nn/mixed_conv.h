// A convolution whose kernel is mixed for every sample from several (CondConv, Yang et al., 2019, arXiv
// 1904.04971; here with kernels that another layer had):
//   residual gates   W + sum over e of g_e (W_e - W),            g = tanh(R [mean of x ; time] + b)
//   else             g_0 W + sum over e of g_(e + 1) W_e,        g = sigmoid or softmax of the same.
// Biases mix as kernels do. Where all samples have the same gates, as when only the time is read and is one,
// one kernel serves the batch, and is kept for the next call with those gates.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "lamina/nn/conv.h"
#include "lamina/nn/linear.h"

namespace lamina {

// The kernel that was mixed last. Copies of a layer share it, as they share their weights.
class LastKernel {
 public:
  // That of these gates, or what `make` gives.
  Conv of(const Tensor& gates, const std::function<Conv()>& make);

 private:
  std::mutex lock_;
  Tensor gates_;
  Conv conv_;
};

struct MixedConv {
  enum class Gate { tanh_residual, sigmoid, softmax };
  enum class Reads { time, input, both };

  Conv kept = {};
  std::vector<Conv> others = {};  // of the same shape
  Linear router = {};             // [gates, features]
  Gate gate = Gate::tanh_residual;
  Reads reads = Reads::time;
  std::shared_ptr<LastKernel> last = std::make_shared<LastKernel>();

  // What the router reads, [batch, features]. `time` is [batch, width].
  Tensor features(const Tensor& x, const Tensor& time) const;
  // [batch, gates] of what the router gave.
  Tensor gates(const Tensor& routed) const;
  // The convolution that these gates [gates] mix.
  Conv mixed(const Tensor& gates) const;
  // [batch, in, height, width] -> [batch, out, ...].
  Tensor operator()(const Tensor& x, const Tensor& gates) const;
};

}  // namespace lamina
