// Attention of every query to every key, for many of both: queries stand side by side in the lanes, keys go
// by in blocks (Dao et al., 2022), so that no whole row of weights is ever written.
#pragma once

#include <cstdint>

namespace lamina {

// Some queries of one head. Tokens lie q_token, k_token, ... numbers apart, a token's numbers side by side.
struct MapAttentionRun {
  const float *q, *k, *v;
  float* y;
  int64_t q_token, k_token, v_token, y_token;
  int64_t queries, keys, width;  // at most MapAttentionFunctions::queries of the first
  float scale;
  float* scratch;
};
struct MapAttentionFunctions {
  int64_t queries;                    // of a run
  int64_t (*scratch)(int64_t width);  // numbers
  void (*attend)(const MapAttentionRun& run);
};

// For this machine's instruction set.
const MapAttentionFunctions& map_attention_functions();

}  // namespace lamina
