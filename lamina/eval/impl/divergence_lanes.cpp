// Compiled once for each instruction set (see CMakeLists.txt); LAMINA_LANES names the set. Nothing of the
// standard library is instantiated here, so that no code for a newer processor can leak into the rest of the
// program.
#include "lamina/eval/impl/divergence_lanes.h"

#include "lamina/nn/lanes.h"

namespace lamina {

namespace {

using namespace lanes;

// ln(1 + x) for x in [0, 0.37], relative error 3e-10 before rounding (a Chebyshev fit).
inline Lane log1p_small(Lane x) {
  Lane y = x * -0.03995985334f + 0.104055411f;
  y = y * x - 0.1562187888f;
  y = y * x + 0.1983553743f;
  y = y * x - 0.2498554351f;
  y = y * x + 0.3333269864f;
  y = y * x - 0.4999998926f;
  y = y * x + 0.9999999997f;
  return y * x;
}

// Sums `term(lane of a, lane of b)` over a row: float32 within 64 lanes, float64 above, so that the error
// does not grow with the vocabulary.
template <class Term>
inline double sum_rows(const float* a, const float* b, int64_t count, float fill, Term term) {
  constexpr int64_t kRun = 1024;
  double sum = 0;
  int64_t i = 0;
  for (; i + kLanes <= count;) {
    const int64_t end = count - kLanes < i + kRun - kLanes ? count - kLanes : i + kRun - kLanes;
    Lane partial{};
    for (; i <= end; i += kLanes) partial += term(read(a + i), read(b + i));
    sum += total(partial);
  }
  if (i < count) sum += total(term(read_tail(a + i, count - i, fill), read_tail(b + i, count - i, fill)));
  return sum;
}

struct Pair {
  Lane s;  // sqrt(p q), where |u| is at most 60; else what makes s exp(a) the larger of p and q
  Lane u;  // (ln q - ln p) / 2
  Lane a;  // |u|, at most 60
  Lane e;  // exp(-|u|)
};

inline Pair pair_of(Lane zq, Lane zp, float lse_q, float lse_p) {
  const Lane lq = zq - lse_q, lp = zp - lse_p;
  const Lane u = (lq - lp) * 0.5f;
  Lane a = absolute(u);
  a = choose(a > 60.0f, Lane{} + 60.0f, a);
  return {exponential(larger(lq, lp) - a), u, a, exponential(-a)};
}

// h(a) = a sinh a - cosh a ln cosh a: its series below 1/2, the closed form above.
inline Lane jsd_term(const Pair& t) {
  const Lane x = t.a * t.a;
  Lane near = x * -1.0269694e-4f + 3.6623677e-4f;
  near = near * x - 1.3888889e-3f;
  near = near * x + 6.9444444e-3f;
  near = near * x * x + 0.5f;
  const Lane e2 = t.e * t.e, cosh = (1.0f / t.e + t.e) * 0.5f;
  const Lane far = cosh * (0.693147181f - log1p_small(e2)) - t.a * t.e;
  return t.s * choose(t.a < 0.5f, near * x, far);
}

// k(a) = cosh a ln cosh a.
inline Lane ag_term(const Pair& t) {
  const Lane x = t.a * t.a;
  Lane near = x * 1.0272200e-4f - 3.6348104e-4f;
  near = near * x + 1.5873016e-3f;
  near = near * x + 1.3888889e-3f;
  near = near * x + 1.6666667e-1f;
  near = near * x + 0.5f;
  const Lane e2 = t.e * t.e, cosh = (1.0f / t.e + t.e) * 0.5f;
  const Lane far = cosh * (absolute(t.u) - 0.693147181f + log1p_small(e2));
  return t.s * choose(t.a < 0.5f, near * x, far);
}

// 2 sinh u - 2 u exp(-u), for both signs of u.
inline Lane kl_term(const Pair& t) {
  const Lane u = choose(t.u < 0.0f, -t.a, t.a);
  Lane near = u * 3.9682540e-4f - 2.3809524e-3f;
  near = near * u + 1.6666667e-2f;
  near = near * u - 6.6666667e-2f;
  near = near * u + 3.3333333e-1f;
  near = near * u - 6.6666667e-1f;
  near = near * u + 2.0f;
  const Lane grown = 1.0f / t.e;  // exp(|u|)
  const Lane plus = choose(t.u < 0.0f, t.e, grown), minus = choose(t.u < 0.0f, grown, t.e);
  return t.s * choose(t.a < 0.5f, near * u * u, plus - minus - 2.0f * t.u * minus);
}

// ln cosh a for a >= 0: its series below 1/2, the closed form above.
inline Lane log_cosh(const Pair& t) {
  const Lane x = t.a * t.a;
  Lane near = x * 2.1869489e-3f - 6.7460317e-3f;
  near = near * x + 2.2222222e-2f;
  near = near * x - 8.3333333e-2f;
  near = near * x + 0.5f;
  return choose(t.a < 0.5f, near * x, absolute(t.u) - 0.693147181f + log1p_small(t.e * t.e));
}

inline Lane larger_of(const Pair& t) {
  return t.s / t.e;
}  // max(p, q)
inline Lane smaller_of(const Pair& t) {
  return t.s * t.e;
}  // min(p, q)

// q times the derivative of the term of (p, q) by q.
inline Lane jsd_slope(const Pair& t) {
  const Lane q = choose(t.u < 0.0f, smaller_of(t), larger_of(t));
  return 0.5f * q * (t.u - log_cosh(t));
}
inline Lane ag_slope(const Pair& t) {
  const Lane q = choose(t.u < 0.0f, smaller_of(t), larger_of(t)),
             p = choose(t.u < 0.0f, larger_of(t), smaller_of(t));
  return 0.5f * q * log_cosh(t) + 0.25f * (q - p);
}

// A filled-up lane has both distributions at probability 0.
constexpr float kNothing = -1e4f;

PeakSum peak_sum(const float* z, int64_t count) {
  Lane top = Lane{} - kInfinity;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) top = larger(top, read(z + i));
  if (i < count) top = larger(top, read_tail(z + i, count - i, -kInfinity));
  float peak = top[0];
  for (int l = 1; l < kLanes; ++l) peak = top[l] > peak ? top[l] : peak;
  const double sum =
      sum_rows(z, z, count, -kInfinity, [peak](Lane a, Lane) { return exponential(a - peak); });
  return {peak, sum};
}

double jsd(const float* q, const float* p, float lq, float lp, int64_t count) {
  return sum_rows(q, p, count, kNothing, [=](Lane a, Lane b) { return jsd_term(pair_of(a, b, lq, lp)); });
}

double ag(const float* q, const float* p, float lq, float lp, int64_t count) {
  return sum_rows(q, p, count, kNothing, [=](Lane a, Lane b) { return ag_term(pair_of(a, b, lq, lp)); });
}

double kl(const float* q, const float* p, float lq, float lp, int64_t count) {
  return sum_rows(q, p, count, kNothing, [=](Lane a, Lane b) { return kl_term(pair_of(a, b, lq, lp)); });
}

double jsd_slopes(const float* q, const float* p, float lq, float lp, int64_t count) {
  return sum_rows(q, p, count, kNothing, [=](Lane a, Lane b) { return jsd_slope(pair_of(a, b, lq, lp)); });
}

double ag_slopes(const float* q, const float* p, float lq, float lp, int64_t count) {
  return sum_rows(q, p, count, kNothing, [=](Lane a, Lane b) { return ag_slope(pair_of(a, b, lq, lp)); });
}

double squared_distance(const float* q, const float* p, int64_t count) {
  return sum_rows(q, p, count, 0.0f, [](Lane a, Lane b) { return (a - b) * (a - b); });
}

double dot(const float* q, const float* p, int64_t count) {
  return sum_rows(q, p, count, 0.0f, [](Lane a, Lane b) { return a * b; });
}

}  // namespace

extern const LaneFunctions LAMINA_LANES;
const LaneFunctions LAMINA_LANES = {peak_sum, jsd, ag, kl, jsd_slopes, ag_slopes, squared_distance, dot};

}  // namespace lamina
