// The sums over one row of logits. float32 rows run in lanes the compiler maps to the widest registers of the
// machine; float64 rows, which only tests use, are written out plainly.
#pragma once

#include <cstdint>

namespace lamina {

template <class T>
struct Rows {
  // ln sum exp(z).
  static double log_sum_exp(const T* z, int64_t count);
  // q, p: logits with their log-sum-exps. The formulas are in eval/divergence.h.
  static double jsd(const T* q, const T* p, double lse_q, double lse_p, int64_t count);
  static double ag(const T* q, const T* p, double lse_q, double lse_p, int64_t count);
  static double kl(const T* q, const T* p, double lse_q, double lse_p, int64_t count);
  // Sums of q times the derivative of a term by q.
  static double jsd_slopes(const T* q, const T* p, double lse_q, double lse_p, int64_t count);
  static double ag_slopes(const T* q, const T* p, double lse_q, double lse_p, int64_t count);
  static double squared_distance(const T* q, const T* p, int64_t count);
  // Radians, cosine clamped to [0, 1].
  static double angle(const T* q, const T* p, int64_t count);
};

}  // namespace lamina
