// Compiled once for each instruction set; LAMINA_LANES names the set. Nothing of the standard library is
// instantiated here.
#include "lamina/nn/impl/attention_lanes.h"

#include "lamina/nn/lanes.h"

namespace lamina {

namespace {

using namespace lanes;

constexpr int kRows = 4;                     // queries at a time
constexpr int kRun = 2 * kLanes;             // keys at a time
constexpr int kWide = kLanes == 16 ? 4 : 2;  // lanes of a value at a time: as many as there are registers for

inline void write(float* to, Lane lane) {
  __builtin_memcpy(to, &lane, sizeof lane);
}

inline int64_t padded(int64_t keys) {
  return (keys + kRun - 1) / kRun * kRun;
}

inline LaneBits numbered(int64_t from) {
  LaneBits bits;
  for (int i = 0; i < kLanes; ++i) bits[i] = static_cast<int32_t>(from) + i;
  return bits;
}

// Turned keys [width, padded], 0 or -1 for each key, weights of kRows queries.
struct Scratch {
  float *turned, *hidden, *weights;
  int64_t stride;
};

// Keys [first, last) that any of the queries [at, at + rows) may see; `first` at the start of a run.
struct Reach {
  int64_t first, last;
};
inline Reach reach(const AttentionGroup& g, int64_t at, int64_t rows) {
  const int64_t before = g.keys - g.queries;
  int64_t first = 0, last = g.keys;
  if (g.causal) last = before + at + rows;
  if (g.window > 0) {
    first = before + at - g.window + 1;
    if (!g.causal && before + at + rows - 1 + g.window < last) last = before + at + rows - 1 + g.window;
  }
  return {first <= 0 ? 0 : first / kRun * kRun, last};
}

template <int rows>
inline void scores(const AttentionGroup& g, const Scratch& s, const float* q, Reach reach) {
  for (int64_t key = reach.first; key < reach.last; key += kRun) {
    Lane low[rows] = {}, high[rows] = {};
    const float* column = s.turned + key;
    for (int64_t i = 0; i < g.width; ++i, column += s.stride) {
      const Lane a = read(column), b = read(column + kLanes);
      for (int r = 0; r < rows; ++r) {
        const Lane x = Lane{} + q[r * g.q_token + i];
        low[r] += x * a;
        high[r] += x * b;
      }
    }
    for (int r = 0; r < rows; ++r) {
      write(s.weights + r * s.stride + key, low[r] * g.scale);
      write(s.weights + r * s.stride + key + kLanes, high[r] * g.scale);
    }
  }
}

// Scores of the query at `position` become weights, not yet divided by their sum, which comes back.
inline float weigh(const AttentionGroup& g, const Scratch& s, float* weights, int64_t position, Reach reach) {
  const auto here = static_cast<int32_t>(position), window = static_cast<int32_t>(g.window);
  Lane top = Lane{} - kInfinity;
  for (int64_t key = reach.first; key < reach.last; key += kLanes) {
    const LaneBits at = numbered(key);
    LaneBits hidden = reinterpret_cast<LaneBits>(read(s.hidden + key)) & ~(at == here);
    if (g.causal) hidden |= at > here;
    if (window > 0) hidden |= (at <= here - window) | (at >= here + window);
    const Lane score = choose(hidden, Lane{} - kInfinity, read(weights + key));
    write(weights + key, score);
    top = larger(top, score);
  }
  const float most = largest(top);
  Lane sum{};
  for (int64_t key = reach.first; key < reach.last; key += kLanes) {
    const Lane weight = exponential(read(weights + key) - most);
    write(weights + key, weight);
    sum += weight;
  }
  return static_cast<float>(total(sum));
}

template <int rows, int wide>
inline void mix(const AttentionGroup& g, const Scratch& s, const float* sums, float* y, int64_t i,
                Reach reach) {
  Lane mixed[rows][wide] = {};
  const float* value = g.v + reach.first * g.v_token + i;
  for (int64_t key = reach.first; key < reach.last; ++key, value += g.v_token) {
    Lane v[wide];
    for (int w = 0; w < wide; ++w) v[w] = read(value + w * kLanes);
    for (int r = 0; r < rows; ++r) {
      const Lane weight = Lane{} + s.weights[r * s.stride + key];
      for (int w = 0; w < wide; ++w) mixed[r][w] += weight * v[w];
    }
  }
  for (int r = 0; r < rows; ++r)
    for (int w = 0; w < wide; ++w) write(y + r * g.y_token + i + w * kLanes, mixed[r][w] / sums[r]);
}

template <int rows>
inline void some(const AttentionGroup& g, const Scratch& s, int64_t head, int64_t at) {
  const Reach seen = reach(g, at, rows);
  scores<rows>(g, s, g.q + head * g.q_head + at * g.q_token, seen);
  float sums[rows];
  for (int r = 0; r < rows; ++r)
    sums[r] = weigh(g, s, s.weights + r * s.stride, g.keys - g.queries + at + r, seen);
  float* y = g.y + head * g.y_head + at * g.y_token;
  int64_t i = 0;
  for (; i + kWide * kLanes <= g.width; i += kWide * kLanes) mix<rows, kWide>(g, s, sums, y, i, seen);
  for (; i < g.width; i += kLanes) mix<rows, 1>(g, s, sums, y, i, seen);
}

int64_t scratch(int64_t keys, int64_t width) {
  return padded(keys) * (width + 1 + kRows);
}

void attend(const AttentionGroup& g) {
  const int64_t stride = padded(g.keys);
  const Scratch s{g.scratch, g.scratch + g.width * stride, g.scratch + (g.width + 1) * stride, stride};
  for (int64_t i = 0; i < g.width; ++i)
    for (int64_t key = 0; key < stride; ++key)
      s.turned[i * stride + key] = key < g.keys ? g.k[key * g.k_token + i] : 0.0f;
  for (int64_t key = 0; key < stride; ++key) {
    const int32_t hidden = key >= g.keys || (g.stands && !g.stands[key]) ? -1 : 0;
    __builtin_memcpy(s.hidden + key, &hidden, sizeof hidden);
  }
  for (int64_t head = 0; head < g.heads; ++head) {
    int64_t at = 0;
    for (; at + kRows <= g.queries; at += kRows) some<kRows>(g, s, head, at);
    for (; at < g.queries; ++at) some<1>(g, s, head, at);
  }
}

}  // namespace

extern const AttentionFunctions LAMINA_LANES;
const AttentionFunctions LAMINA_LANES = {kLanes, scratch, attend};

}  // namespace lamina
