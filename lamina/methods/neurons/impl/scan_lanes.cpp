// Compiled once for each instruction set; LAMINA_LANES names the set. Nothing of the standard library is
// instantiated here.
#include "lamina/methods/neurons/impl/scan_lanes.h"

#include "lamina/nn/lanes.h"

namespace lamina::neurons {

namespace {

using namespace lanes;

// A run is looked at again, number by number, only when a number in it matters.
constexpr int64_t kRun = 8 * kLanes;
// Moments and exponentials are summed in float32 up to here, in float64 above.
constexpr int64_t kPiece = 8 * kRun;

void keep(Largest& list, float score, int32_t token) {
  int32_t at = list.count < list.capacity ? list.count++ : list.count - 1;
  for (; at > 0 && list.scores[at - 1] < score; --at) {
    list.scores[at] = list.scores[at - 1];
    list.tokens[at] = list.tokens[at - 1];
  }
  list.scores[at] = score;
  list.tokens[at] = token;
}

// What a score must exceed to be kept.
float least_kept(const Largest& list) {
  return list.count < list.capacity ? -kInfinity : list.scores[list.count - 1];
}

void look(const float* scores, int64_t count, int64_t run, int32_t first, float sign, Largest& list,
          Pole& pole) {
  float least = least_kept(list);
  for (int64_t i = run; i < run + count; ++i) {
    const float score = sign * scores[i];
    const auto token = static_cast<int32_t>(first + i);
    if (score > least) {
      keep(list, score, token);
      least = least_kept(list);
    }
    if (score - pole.best[i] > pole.bound) pole.found[pole.found_count++] = {token, score};
  }
}

void moments_and_labels(const float* scores, int64_t count, int32_t first, RowState& row, Pole& top,
                        Pole& bottom) {
  const Lane shift = Lane{} + row.shift;
  for (int64_t piece = 0; piece < count; piece += kPiece) {
    const int64_t piece_end = piece + kPiece < count ? piece + kPiece : count;
    Lane sums[4] = {};
    for (int64_t run = piece; run < piece_end; run += kRun) {
      const int64_t end = run + kRun < piece_end ? run + kRun : piece_end;
      Lane peak = Lane{} - kInfinity, trough = Lane{} + kInfinity;
      Lane above = Lane{} - kInfinity, below = Lane{} - kInfinity;
      int64_t i = run;
      for (; i + kLanes <= end; i += kLanes) {
        const Lane s = read(scores + i), d = s - shift, d2 = d * d;
        sums[0] += d;
        sums[1] += d2;
        sums[2] += d2 * d;
        sums[3] += d2 * d2;
        peak = larger(peak, s);
        trough = smaller(trough, s);
        above = larger(above, s - read(top.best + i));
        below = larger(below, -s - read(bottom.best + i));
      }
      float highest = largest(peak), lowest = -largest(-trough);
      bool may_be_best = largest(above) > top.bound, may_be_worst = largest(below) > bottom.bound;
      for (; i < end; ++i) {
        const float s = scores[i];
        const double d = static_cast<double>(s) - static_cast<double>(row.shift);
        row.sums[0] += d;
        row.sums[1] += d * d;
        row.sums[2] += d * d * d;
        row.sums[3] += d * d * d * d;
        highest = s > highest ? s : highest;
        lowest = s < lowest ? s : lowest;
        may_be_best |= s - top.best[i] > top.bound;
        may_be_worst |= -s - bottom.best[i] > bottom.bound;
      }
      if (may_be_best || highest > least_kept(row.top)) look(scores, end - run, run, first, 1, row.top, top);
      if (may_be_worst || -lowest > least_kept(row.bottom))
        look(scores, end - run, run, first, -1, row.bottom, bottom);
      row.peak = highest > row.peak ? highest : row.peak;
      row.trough = lowest < row.trough ? lowest : row.trough;
    }
    for (int m = 0; m < 4; ++m) row.sums[m] += total(sums[m]);
  }
}

// Both sums of exponentials, against the extremes so far: no term is above 1.
void exponentials(const float* scores, int64_t count, RowState& row) {
  const Lane peak = Lane{} + row.peak, trough = Lane{} + row.trough;
  for (int64_t piece = 0; piece < count; piece += kPiece) {
    const int64_t end = piece + kPiece < count ? piece + kPiece : count;
    Lane up{}, down{};
    int64_t i = piece;
    for (; i + kLanes <= end; i += kLanes) {
      const Lane s = read(scores + i);
      up += exponential(s - peak);
      down += exponential(trough - s);
    }
    if (i < end) {
      up += exponential(read_tail(scores + i, end - i, -kInfinity) - peak);
      down += exponential(trough - read_tail(scores + i, end - i, kInfinity));
    }
    row.exponentials += total(up);
    row.mirrored += total(down);
  }
}

// exp of one number, for the change of extremes between two calls.
double exponential_of(float x) {
  return static_cast<double>(exponential(Lane{} + x)[0]);
}

void scan(const float* scores, int64_t count, int32_t first, RowState* row, Pole* top, Pole* bottom) {
  const float peak = row->peak, trough = row->trough;
  moments_and_labels(scores, count, first, *row, *top, *bottom);
  if (row->peak > peak) row->exponentials *= exponential_of(peak - row->peak);
  if (row->trough < trough) row->mirrored *= exponential_of(row->trough - trough);
  exponentials(scores, count, *row);
}

}  // namespace

extern const ScanFunctions LAMINA_LANES;
const ScanFunctions LAMINA_LANES = {scan};

}  // namespace lamina::neurons
