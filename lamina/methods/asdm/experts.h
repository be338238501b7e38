// Convolutions that inherit the kernels of layers cut beside them (CLME-CondConv, A-SDM-style: arXiv
// 2312.15516 names it; the definition is ours, in lamina/nn/mixed_conv.h).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/family/family.h"
#include "lamina/model/model.h"

namespace lamina::asdm {

struct InheritOptions {
  Experts::Gate gate = Experts::Gate::tanh_residual;
  Experts::Reads reads = Experts::Reads::time;
  int64_t most = 2;        // donors of a convolution
  int64_t channels = 640;  // only where so many channels or fewer are written: wider kernels cost more to mix
                           // and to read than they bring
};
// Of a plan's cuts: each ResNet that goes leaves its kernels to the nearest ResNet of its stage that stays,
// where they fit. In the order of the walk.
std::vector<Inherit> heirs(const Blueprint& blueprint, const Plan& cuts, const InheritOptions& options);

// Every mixed convolution with its mean gates over the samples: what `lamina apply` makes plain kernels of.
std::vector<Blend> blends(const Model& model, std::span<const Inputs> samples, const Watch& watch = {});

// A checkpoint's mixed kernels made plain, and what that does to its answers.
struct Folding {
  std::vector<Blend> edits = {};
  double moved = 0;       // root of the mean square of the change, of that of the answers
  double moved_most = 0;  // the largest change, of the largest number
};
struct FoldOptions {
  std::span<const Inputs> measured = {};  // gates are means over these: times, where they read nothing else
  std::span<const Inputs> judged = {};    // how far answers move
  at::ScalarType dtype = at::kFloat;
  Watch watch = {};
};
// Throws Error where no kernels are mixed, or by what the map holds: such gates have no mean but over
// pictures.
Folding fold_gates(const Opened& opened, const FoldOptions& options);

}  // namespace lamina::asdm
