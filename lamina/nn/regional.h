// Attention over a map of tokens in which each looks at its own window and, in averages, at the whole map:
//   O_b = softmax(Q_b [K_b ; K_cells]^T / sqrt(d) + bias) [V_b ; V_cells]     for window b,
// w^2 + L / g^2 keys in place of L. Cells are the means of g x g tokens: what a map without bias, or with
// one, makes of a mean is the mean of what it makes, so that the means are taken of keys and values. With a
// bias of ln(n) for a cell of n tokens, and the cells of a query's own window masked, the result is that of
// full attention wherever keys and values do not change inside a cell, exactly up to rounding; with one
// window over the whole map it is full attention. (A-SDM-style: arXiv 2312.15516 names the idea; these two
// are ours.)
#pragma once

#include "lamina/tensor/tensor.h"

namespace lamina {

struct RegionalOptions {
  int64_t window = 16, pool = 4;  // sides; a window is whole cells; pool 0: no cells
  bool log_count = true;
  bool mask_own = true;
  bool cells_look = false;  // the values of cells are first what the cells see of each other
  // [heads]: two softmaxes, of the window's tokens and of the cells, are mixed by sigmoid(gate), which is the
  // cells' share. Undefined: one softmax over both.
  Tensor gate = {};
  // A map of one window without a cell to look at goes the way of full attention, to its bits; false: the way
  // of windows all the same, to the same numbers up to rounding.
  bool short_way = true;
};

// Of queries, keys and values [batch, height * width, heads * d]; gives the same shape. Where the map is not
// whole windows, what stands beyond its border is not seen.
Tensor attend_regional(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads, int64_t height,
                       int64_t width, const RegionalOptions& options);

}  // namespace lamina
