#include "lamina/methods/repair/impl/normal.h"
#include "lamina/base/error.h"

namespace lamina::repair {

namespace {

struct Steps {
  int64_t stride = 1, padding = 0;
};

// Those with which a kernel makes a map of `out` from one of `in`.
Steps steps_between(at::IntArrayRef in, at::IntArrayRef out, int64_t kernel) {
  for (const int64_t stride : {1, 2}) {
    for (int64_t padding = 0; padding <= kernel / 2; ++padding) {
      const auto fits = [&](size_t axis) {
        return in[axis] + 2 * padding >= kernel &&
               (in[axis] + 2 * padding - kernel) / stride + 1 == out[axis];
      };
      if (fits(2) && fits(3)) return {stride, padding};
    }
  }
  fail("a convolution of {0}x{0} from a map of {1}x{2} to one of {3}x{4} is not known here", kernel, in[2],
       in[3], out[2], out[3]);
}

}  // namespace

Tensor at_positions(const Tensor& x) {
  return (x.dim() == 4 ? x.flatten(2).transpose(1, 2) : x).flatten(0, 1);
}

Tensor read_at_positions(const Ran& ran) {
  if (ran.in.dim() != 4) return at_positions(ran.in);
  const Steps steps = steps_between(ran.in.sizes(), ran.out.sizes(), ran.kernel);
  if (ran.kernel == 1 && steps.stride == 1) return at_positions(ran.in);
  return at::im2col(ran.in, {ran.kernel, ran.kernel}, {1, 1}, {steps.padding, steps.padding},
                    {steps.stride, steps.stride})
      .transpose(1, 2)
      .flatten(0, 1);
}

void Normal::add(const Tensor& read, const Tensor& missing) {
  const Tensor rows = at::constant_pad_nd(read.to(at::kDouble), {0, 1}, 1);
  const Tensor wanted = missing.to(at::kDouble);
  const Tensor gram = rows.t().matmul(rows), cross = wanted.t().matmul(rows);
  gram_ = gram_.defined() ? gram_ + gram : gram;
  cross_ = cross_.defined() ? cross_ + cross : cross;
  square_ += wanted.square().sum().item<double>();
  rows_ += rows.size(0);
  outputs_ = wanted.size(1);
}

std::optional<Tensor> Normal::solved(double ridge) const {
  const int64_t unknowns = gram_.size(0) - 1;
  Tensor matrix = gram_.clone();
  const Tensor diagonal = matrix.diagonal().narrow(0, 0, unknowns);
  diagonal.add_(ridge * diagonal.mean().item<double>());
  const auto [factor, failed] = at::linalg_cholesky_ex(matrix);
  if (failed.item<int64_t>() != 0) return std::nullopt;
  const Tensor change = at::cholesky_solve(cross_.t(), factor).t();
  if (!at::isfinite(change).all().item<bool>()) return std::nullopt;
  return change;
}

double Normal::missing() const {
  return square_ / static_cast<double>(rows_ * outputs_);
}

double Normal::left(const Tensor& change) const {
  const double moved =
      (change.matmul(gram_) * change).sum().item<double>() - 2 * (change * cross_).sum().item<double>();
  return (square_ + moved) / static_cast<double>(rows_ * outputs_);
}

}  // namespace lamina::repair
