// Makes good by least squares what a cut took away, before any training: from calibration samples alone, the
// maps behind a gap are fitted anew, so that the residual stream behind them is the uncut model's again,
//   min over D of |x_T - x_S - D [a ; 1]|^2 + ridge |D|^2,      W <- W + D,
// a: what the map reads in the cut model; x_S, x_T: the residual behind it there and in the uncut model. The
// ridge draws to the weights that are there, not to zero. Maps are taken in the order of the walk, each reads
// what the repaired ones before it give, and a repair stays where the answer on samples held out is nearer
// the uncut model's than before: it is never made worse there. Idea and definition are ours; OBC and
// SparseGPT solve the same problem for single weights.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/family/family.h"
#include "lamina/model/model.h"

namespace lamina::repair {

struct RepairOptions {
  double held_out = 0.25;  // share of the batches, the last ones, that decide and are not fitted to
  int64_t positions = 8;   // rows of the least-squares problem for each unknown of an output, at most
  int64_t unknowns =
      12000;          // maps with more than so many inputs (channels times kernel) are left as they are
  uint64_t seed = 0;  // of the positions that are fitted to, where there are more
  at::Device device = at::kCPU;

  template <class V>
  void fields(V& visit);
};

// One map that was looked at.
struct Row {
  std::string path;      // "up_blocks.2.resnets.1.conv2"
  std::string target;    // where the stream was made to match, the path of a part: of itself or, where
                         // parts behind it are gone, of the last of those
  int64_t unknowns = 0;  // of each output
  double ridge = 0;      // relative to the mean square of what it reads
  double local_before = 0, local_after = 0;  // mean square of x_T - x_S behind it, held out
  double joint = 0;                          // of the whole model with this repair, held out
  bool kept = false;
};

struct Repaired {
  Opened opened;  // the cut model with its new numbers
  // Mean square of the difference from the uncut model's answer, held out; and on the samples fitted to.
  double before = 0, after = 0;
  double fitted_before = 0, fitted_after = 0;
  std::vector<Row> rows = {};
};

// `teacher` is the uncut model on `options.device`; `cut` what a plan of cuts made of it: the same parts,
// some of them gone. Each of `samples` is one batch; both models run all of them in float32 (or as the
// teacher does). Throws Error where the two are not of one walk, or fewer than two batches are given.
Repaired repair(const Opened& cut, const Model& teacher, std::span<const Inputs> samples,
                const RepairOptions& options, const Watch& watch = {});

template <class V>
void RepairOptions::fields(V& visit) {
  visit("repair_held_out", held_out, "share of the calibration that decides about repairs");
  visit("repair_positions", positions, "rows of a least-squares problem for each unknown");
  visit("repair_unknowns", unknowns, "leave maps with more inputs than this as they are");
}

}  // namespace lamina::repair
