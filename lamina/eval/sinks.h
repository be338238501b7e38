// Attention sinks: how much is looked at position 0, and how large the residual is there.
#pragma once

#include <vector>

#include "lamina/base/progress.h"
#include "lamina/eval/bootstrap.h"
#include "lamina/eval/pass.h"

namespace lamina {

struct SinkOptions {
  double threshold = 0.3;
  BootstrapOptions bootstrap = {};
};

struct Sinks {
  struct Row {
    int block = 0;
    double first = 0, rest = 0;  // mean norm of the residual before the block, at position 0 and elsewhere
  };
  // Share of (part, head, query) that give position 0 more than the threshold. The query at position 0, which
  // can look nowhere else, is counted, as in the code of Schaeffer et al., 2025.
  Estimate queries = {};
  // Share of (part, head) whose mean over all queries is above the threshold (Gu et al., 2024, arXiv
  // 2410.10781).
  Estimate heads = {};
  std::vector<Row> rows = {};
  double first_at_end = 0, rest_at_end = 0;  // before the last norm
  int64_t samples = 0;
};

// Intervals are over samples.
Sinks sinks(const Model& model, const Samples& samples, const SinkOptions& options, Tap& base,
            const Watch& watch = {});

}  // namespace lamina
