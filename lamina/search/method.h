// What a method is: from a model, calibration samples and options to a plan and the evidence for it. A method
// does not edit, train, print, or name an architecture.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lamina/checkpoint/checkpoint.h"
#include "lamina/plan/plan.h"
#include "lamina/search/greedy.h"

namespace lamina {

struct MethodOptions {
  std::string method = "finercut";
  int64_t remove = 8;  // in units
  std::string units = "both";
  std::string metric = "jsd";
  std::string search = "cached";
  std::optional<double> freeze = {};  // share in [0, 1); none: nothing is closed
  int64_t threads = 1;
  int64_t seed = 0;

  template <class V>
  void fields(V& visit) {
    visit(method, "method", "how parts are chosen");
    visit(remove, "remove", "units to cut");
    visit(units, "units", "what is cut at once: both, attention, mlp, block");
    visit(metric, "metric", "what a cut is judged by: jsd, ag, kl, ppl, norm, angular");
    visit(search, "search", "cached, naive, one-shot");
    visit(threads, "threads", "workers, each on one core");
    visit(seed, "seed", "for the method random");
  }
};

struct MethodInput {
  const Model& model;
  const Checkpoint& checkpoint;
  const std::vector<std::vector<int32_t>>& samples;
};

// The evidence: every step with the scores of its candidates.
struct Proposal {
  Plan plan;
  GreedyResult evidence;
};

// Cuts the units of the steps, in their order, with their scores.
Plan plan_of(const Blueprint& blueprint, const GreedyResult& result);

// Cuts the `remove` lowest of one score a unit (ties in canonical order).
Proposal lowest(const MethodInput& input, Units units, const std::vector<double>& scores, int64_t remove);

}  // namespace lamina
