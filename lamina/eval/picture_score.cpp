#include "lamina/eval/picture_score.h"

#include <cmath>

#include "lamina/base/error.h"

namespace lamina {

namespace {

struct Normal {
  Tensor mean, covariance;
};

Normal normal_of(const Tensor& features) {
  if (features.dim() != 2 || features.size(0) < 2)
    fail("a distance between crowds takes features [pictures, width] of two pictures or more");
  const Tensor x = features.to(at::kDouble), mean = x.mean(0), centred = x - mean;
  return {mean, centred.t().mm(centred) / static_cast<double>(x.size(0) - 1)};
}

// Of a symmetric matrix without negative eigenvalues, but for rounding.
Tensor root(const Tensor& matrix) {
  const auto [values, vectors] = at::linalg_eigh(matrix);
  return (vectors * values.clamp_min(0).sqrt()).mm(vectors.t());
}

}  // namespace

double mean_square_error(const Tensor& a, const Tensor& b) {
  if (a.sizes() != b.sizes()) fail("pictures of other shapes cannot be compared");
  return (a.to(at::kDouble) - b.to(at::kDouble)).square().mean().item<double>();
}

double psnr(const Tensor& a, const Tensor& b) {
  return 10 * std::log10(4 / mean_square_error(a, b));
}

std::vector<double> psnr_of_each(const Tensor& a, const Tensor& b) {
  if (a.sizes() != b.sizes() || a.dim() < 1) fail("pictures of other shapes cannot be compared");
  std::vector<double> each;
  for (int64_t i = 0; i < a.size(0); ++i) each.push_back(psnr(a[i], b[i]));
  return each;
}

double frechet_distance(const Tensor& a, const Tensor& b) {
  const InferenceMode guard;
  const Normal p = normal_of(a), q = normal_of(b);
  if (p.mean.size(0) != q.mean.size(0)) fail("features of other widths cannot be compared");
  const Tensor half = root(p.covariance), inner = half.mm(q.covariance).mm(half);
  const double roots = at::linalg_eigvalsh((inner + inner.t()) / 2).clamp_min(0).sqrt().sum().item<double>();
  const double traces = (p.covariance.trace() + q.covariance.trace()).item<double>();
  return std::max(0.0, (p.mean - q.mean).square().sum().item<double>() + traces - 2 * roots);
}

}  // namespace lamina
