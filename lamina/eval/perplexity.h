// Perplexity with a sliding window, its protocol beside the figure: two perplexities compare only when this
// agrees.
#pragma once

#include <string>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/base/progress.h"
#include "lamina/model/model.h"

namespace lamina {

struct PerplexityOptions {
  int64_t length = 1024;   // tokens in a window
  int64_t stride = 512;    // tokens a window moves on; only those not scored before count
  int64_t max_tokens = 0;  // use the first so many; 0: all
  int threads = 1;         // windows are shared between workers, each on one core
};

struct Perplexity {
  double nll = 0;         // mean negative log-likelihood a scored token, nats
  double value = 0;       // exp(nll)
  double stderr_nll = 0;  // of the mean, over windows
  int64_t tokens = 0;     // scored: all but the first, and but the first of each window when stride = length
  int64_t windows = 0;
};

// Throws Error when there are fewer than two tokens. `tap` must be safe to share between workers when threads
// > 1.
Perplexity perplexity(const Model& model, const std::vector<int32_t>& ids, const PerplexityOptions& options,
                      Tap& tap, const Watch& watch = {});

}  // namespace lamina
