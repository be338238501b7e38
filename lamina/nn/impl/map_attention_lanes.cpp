// Compiled once for each instruction set; LAMINA_LANES names the set. Nothing of the standard library is
// instantiated here.
#include "lamina/nn/impl/map_attention_lanes.h"

#include "lamina/nn/lanes.h"

namespace lamina {

namespace {

using namespace lanes;

// As many sums as there are registers for.
constexpr int kWide = kLanes == 16 ? 4 : 2;  // lanes side by side
constexpr int kRows = kLanes == 16 ? 6 : 4;
constexpr int kQueries = kWide * kLanes;
constexpr int kKeys = 64;  // of a block: its weights stay in the first cache

inline void write(float* to, Lane lane) {
  __builtin_memcpy(to, &lane, sizeof lane);
}

// A matrix of which `row` and `step` say how far its numbers lie apart.
struct Strided {
  const float* at;
  int64_t row, step;
};

// c [rows, kQueries] (+)= a [rows, depth] b [depth, kQueries].
template <int rows, bool onto>
inline void tile(Strided a, const float* b, int64_t depth, float* c) {
  Lane sums[rows][kWide];
  for (int r = 0; r < rows; ++r)
    for (int w = 0; w < kWide; ++w) sums[r][w] = onto ? read(c + r * kQueries + w * kLanes) : Lane{};
  for (int64_t i = 0; i < depth; ++i, b += kQueries, a.at += a.step) {
    Lane column[kWide];
    for (int w = 0; w < kWide; ++w) column[w] = read(b + w * kLanes);
    for (int r = 0; r < rows; ++r) {
      const Lane x = Lane{} + a.at[r * a.row];
      for (int w = 0; w < kWide; ++w) sums[r][w] += x * column[w];
    }
  }
  for (int r = 0; r < rows; ++r)
    for (int w = 0; w < kWide; ++w) write(c + r * kQueries + w * kLanes, sums[r][w]);
}

template <bool onto>
inline void product(Strided a, int64_t rows, const float* b, int64_t depth, float* c) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    tile<kRows, onto>({a.at + r * a.row, a.row, a.step}, b, depth, c + r * kQueries);
  for (; r < rows; ++r) tile<1, onto>({a.at + r * a.row, a.row, a.step}, b, depth, c + r * kQueries);
}

// Scores [keys, kQueries] become weights against the greatest so far; what was mixed before is made smaller
// to match.
inline void weigh(float* weights, int64_t keys, Lane* top, Lane* sum, float* mixed, int64_t width) {
  for (int w = 0; w < kWide; ++w) {
    float* column = weights + w * kLanes;
    Lane most = top[w];
    for (int64_t key = 0; key < keys; ++key) most = larger(most, read(column + key * kQueries));
    const Lane shrink = exponential(top[w] - most);
    Lane total = sum[w] * shrink;
    for (int64_t key = 0; key < keys; ++key) {
      const Lane weight = exponential(read(column + key * kQueries) - most);
      write(column + key * kQueries, weight);
      total += weight;
    }
    for (int64_t i = 0; i < width; ++i) {
      float* at = mixed + i * kQueries + w * kLanes;
      write(at, read(at) * shrink);
    }
    top[w] = most, sum[w] = total;
  }
}

int64_t scratch(int64_t width) {
  return (2 * width + kKeys) * kQueries;
}

void attend(const MapAttentionRun& run) {
  const int64_t width = run.width;
  float *turned = run.scratch, *mixed = turned + width * kQueries, *weights = mixed + width * kQueries;
  for (int64_t t = 0; t < kQueries; ++t)
    for (int64_t i = 0; i < width; ++i)
      turned[i * kQueries + t] = t < run.queries ? run.q[t * run.q_token + i] * run.scale : 0.0f;
  for (int64_t i = 0; i < width * kQueries; ++i) mixed[i] = 0;
  Lane top[kWide], sum[kWide];
  for (int w = 0; w < kWide; ++w) top[w] = Lane{} - 1e30f, sum[w] = Lane{};
  for (int64_t first = 0; first < run.keys; first += kKeys) {
    const int64_t keys = run.keys - first < kKeys ? run.keys - first : kKeys;
    product<false>({run.k + first * run.k_token, run.k_token, 1}, keys, turned, width, weights);
    weigh(weights, keys, top, sum, mixed, width);
    product<true>({run.v + first * run.v_token, 1, run.v_token}, width, weights, keys, mixed);
  }
  for (int64_t t = 0; t < run.queries; ++t) {
    const float share = 1.0f / sum[t / kLanes][t % kLanes];
    for (int64_t i = 0; i < width; ++i) run.y[t * run.y_token + i] = mixed[i * kQueries + t] * share;
  }
}

}  // namespace

extern const MapAttentionFunctions LAMINA_LANES;
const MapAttentionFunctions LAMINA_LANES = {kQueries, scratch, attend};

}  // namespace lamina
