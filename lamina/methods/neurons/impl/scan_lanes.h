// One look at a run of scores, in lanes as wide as the machine's registers: everything that the atlas keeps
// of a row, without keeping the row. See decode.cpp.
#pragma once

#include <cstdint>

namespace lamina::neurons {

// The largest scores so far, in order; `count` of `capacity` are filled. Equal scores stand in token order.
struct Largest {
  float* scores;
  int32_t* tokens;
  int32_t count, capacity;
};

struct RowState {
  float shift;                    // near the mean, so that the moments do not cancel
  double sums[4];                 // of (s - shift)^1..4
  float peak, trough;             // largest and smallest score
  double exponentials, mirrored;  // sum of exp(s - peak), sum of exp(trough - s)
  Largest top, bottom;            // bottom holds -s
};

// A token whose log-probability under this row may be the best so far.
struct Candidate {
  int32_t token;
  float score;  // s for the top pole, -s for the bottom one
};

// What is known before a run is looked at. A token is worth another look when score - best > bound.
struct Pole {
  const float* best;  // log-probability of the best row so far, a token
  float bound;        // at most this row's log-sum-exp
  Candidate* found;   // room for `count` of `scan`
  int64_t found_count;
};

struct ScanFunctions {
  // Scores of tokens first .. first + count - 1.
  void (*scan)(const float* scores, int64_t count, int32_t first, RowState* row, Pole* top, Pole* bottom);
};

}  // namespace lamina::neurons
