#include "lamina/eval/impl/divergence_rows.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lamina/eval/impl/divergence_lanes.h"

namespace lamina {

extern const LaneFunctions lanes_default;
#if defined(__x86_64__)
extern const LaneFunctions lanes_v3;
extern const LaneFunctions lanes_v4;
#endif

namespace {

// The widest instruction set of this machine.
const LaneFunctions& lanes() {
#if defined(__x86_64__)
  static const LaneFunctions& best = __builtin_cpu_supports("x86-64-v4")   ? lanes_v4
                                     : __builtin_cpu_supports("x86-64-v3") ? lanes_v3
                                                                           : lanes_default;
  return best;
#else
  return lanes_default;
#endif
}

double angle_of(double qp, double qq, double pp) {
  return std::acos(std::clamp(qp / std::sqrt(qq * pp), 0.0, 1.0));
}

template <class Term>
double plain_sum(const double* q, const double* p, double lq, double lp, int64_t count, Term term) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += term(q[i] - lq, p[i] - lp);
  return sum;
}

}  // namespace

template <>
double Rows<float>::log_sum_exp(const float* z, int64_t n) {
  const PeakSum s = lanes().peak_sum(z, n);
  return static_cast<double>(s.peak) + std::log(s.sum);
}
template <>
double Rows<float>::jsd(const float* q, const float* p, double lq, double lp, int64_t n) {
  // The bound holds for every pair of distributions; rounding in float32 may step over it.
  return std::min(lanes().jsd(q, p, static_cast<float>(lq), static_cast<float>(lp), n), std::numbers::ln2);
}
template <>
double Rows<float>::ag(const float* q, const float* p, double lq, double lp, int64_t n) {
  return lanes().ag(q, p, static_cast<float>(lq), static_cast<float>(lp), n);
}
template <>
double Rows<float>::kl(const float* q, const float* p, double lq, double lp, int64_t n) {
  return lanes().kl(q, p, static_cast<float>(lq), static_cast<float>(lp), n);
}
template <>
double Rows<float>::jsd_slopes(const float* q, const float* p, double lq, double lp, int64_t n) {
  return lanes().jsd_slopes(q, p, static_cast<float>(lq), static_cast<float>(lp), n);
}
template <>
double Rows<float>::ag_slopes(const float* q, const float* p, double lq, double lp, int64_t n) {
  return lanes().ag_slopes(q, p, static_cast<float>(lq), static_cast<float>(lp), n);
}
template <>
double Rows<float>::squared_distance(const float* q, const float* p, int64_t n) {
  return lanes().squared_distance(q, p, n);
}
template <>
double Rows<float>::angle(const float* q, const float* p, int64_t n) {
  return angle_of(lanes().dot(q, p, n), lanes().dot(q, q, n), lanes().dot(p, p, n));
}

template <>
double Rows<double>::log_sum_exp(const double* z, int64_t n) {
  const double peak = *std::max_element(z, z + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(z[i] - peak);
  return peak + std::log(sum);
}
template <>
double Rows<double>::jsd(const double* q, const double* p, double lq, double lp, int64_t n) {
  return plain_sum(q, p, lq, lp, n, [](double a, double b) {
    const double u = (a - b) / 2, s = std::exp((a + b) / 2);
    if (std::abs(u) < 1e-2) return s * u * u * (0.5 + u * u * u * u * (1.0 / 144 - u * u / 720));
    const double m = std::log((std::exp(a) + std::exp(b)) / 2);
    return 0.5 * (std::exp(a) * (a - m) + std::exp(b) * (b - m));
  });
}
template <>
double Rows<double>::ag(const double* q, const double* p, double lq, double lp, int64_t n) {
  return plain_sum(q, p, lq, lp, n, [](double a, double b) {
    const double u = (a - b) / 2, s = std::exp((a + b) / 2), c = std::cosh(u);
    return s * c * (std::abs(u) < 1 ? std::log1p(2 * std::sinh(u / 2) * std::sinh(u / 2)) : std::log(c));
  });
}
template <>
double Rows<double>::kl(const double* q, const double* p, double lq, double lp, int64_t n) {
  return plain_sum(q, p, lq, lp, n,
                   [](double a, double b) { return std::exp(b) * (std::expm1(a - b) - (a - b)); });
}
template <>
double Rows<double>::jsd_slopes(const double* q, const double* p, double lq, double lp, int64_t n) {
  return plain_sum(q, p, lq, lp, n, [](double a, double b) {
    return 0.5 * std::exp(a) * (a - std::log((std::exp(a) + std::exp(b)) / 2));
  });
}
template <>
double Rows<double>::ag_slopes(const double* q, const double* p, double lq, double lp, int64_t n) {
  return plain_sum(q, p, lq, lp, n, [](double a, double b) {
    return 0.5 * std::exp(a) * std::log(std::cosh((a - b) / 2)) + 0.25 * (std::exp(a) - std::exp(b));
  });
}
template <>
double Rows<double>::squared_distance(const double* q, const double* p, int64_t n) {
  return plain_sum(q, p, 0, 0, n, [](double a, double b) { return (a - b) * (a - b); });
}
template <>
double Rows<double>::angle(const double* q, const double* p, int64_t n) {
  const auto dot = [n](const double* x, const double* y) {
    return plain_sum(x, y, 0, 0, n, [](double a, double b) { return a * b; });
  };
  return angle_of(dot(q, p), dot(q, q), dot(p, p));
}

}  // namespace lamina
