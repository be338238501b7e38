// What training and inference share: products by the faster library, and passes over memory in lanes. Float32
// on the CPU, values alone.
#pragma once

#include <optional>
#include <string_view>

#include "lamina/nn/norm.h"
#include "lamina/tensor/tensor.h"

namespace lamina::passes {

Tensor flat(const Tensor& x);  // [..., width] -> [rows, width]

// True where oneDNN's product is at hand and likely the faster one for x [m, k] times w^T, w [n, k].
bool onednn_suits(const Tensor& x, const Tensor& w);
// What a product does to its result y before it writes it, while it is in the registers.
enum class Finish { none, silu, times, plus };  // y, silu(y), y * other, y + other
struct Finished {
  std::optional<Tensor> bias = {};
  Finish how = Finish::none;
  Tensor other = {};  // [m, n], of `times` and `plus`
};
// x [m, k] times w^T by oneDNN; w [n, k] plain or packed, of x's type.
Tensor onednn_product(const Tensor& x, const Tensor& w, const Finished& finished = {});
// The weight in oneDNN's own layout, which only onednn_product reads; nothing where this libtorch lacks it.
std::optional<Tensor> packed(const Tensor& w);

Tensor turned_product(const Tensor& x, const Tensor& w);  // x w^T

struct Normed {
  Tensor y, inverse;  // and 1 / rms of each row
};
Normed rms_norm(const Tensor& x, const Tensor& gain, double epsilon);
// x [batch, heads, tokens, width], a view of [batch, tokens, heads, width]; so is what comes back. sign -1
// turns back.
Tensor rotated(const Tensor& x, const Tensor& cosine, const Tensor& sine, float sign);
Tensor gated(const Tensor& gate, const Tensor& up);

}  // namespace lamina::passes
