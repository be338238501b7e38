// lamina apply in two halves: all that a plan does is free of torch; what --fold-gates adds to one is
// measured, and given by the engine.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/family/family.h"
#include "lamina/plan/plan.h"

namespace lamina::cli {

struct FoldAsked {
  int64_t times = 100;  // at which gates are measured
  int64_t side = 0;     // of the latents that answers are compared on; 0: the U-Net's own
  int threads = 1;
  Watch watch = {};
};
struct FoldAnswer {
  std::vector<Blend> edits = {};
  Json measured = Json::object();  // beside the plan
  std::string said = {};           // a sentence
};
using FoldGates = std::function<FoldAnswer(const Opened& opened, const FoldAsked& asked)>;

// Whether the arguments ask for --fold-gates, which wants the engine.
bool asks_to_fold(int argc, char** argv);
int run_apply_with(int argc, char** argv, const FoldGates& fold);
// The engine's half (apply_fold.cpp).
int run_apply_folding(int argc, char** argv);

}  // namespace lamina::cli
