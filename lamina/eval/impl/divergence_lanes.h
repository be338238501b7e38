// The float32 sums over a row of logits, in lanes as wide as the machine's registers; see divergence_rows.h.
#pragma once

#include <cstdint>

namespace lamina {

struct PeakSum {
  float peak;  // largest logit
  double sum;  // sum of exp(z - peak)
};

struct LaneFunctions {
  PeakSum (*peak_sum)(const float* z, int64_t count);
  double (*jsd)(const float* q, const float* p, float lse_q, float lse_p, int64_t count);
  double (*ag)(const float* q, const float* p, float lse_q, float lse_p, int64_t count);
  double (*kl)(const float* q, const float* p, float lse_q, float lse_p, int64_t count);
  // Sums of q times the derivative of a term by q.
  double (*jsd_slopes)(const float* q, const float* p, float lse_q, float lse_p, int64_t count);
  double (*ag_slopes)(const float* q, const float* p, float lse_q, float lse_p, int64_t count);
  double (*squared_distance)(const float* q, const float* p, int64_t count);
  double (*dot)(const float* q, const float* p, int64_t count);
};

}  // namespace lamina
