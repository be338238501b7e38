// Greedy removal of residual branches: at each step the candidate whose removal, on top of what is gone
// already, moves the model's output least (FinerCut, arXiv 2405.18218; with whole blocks and perplexity it is
// SLEB, with perplexity BlockPruner).
//
// Three ways to the same answer:
//   naive     every candidate is a full pass over every sample
//   cached    the same order and scores: a pass starts where it first differs from one that was made,
//   candidates are
//             bounded from below and race, and one whose bound has passed the best is out (impl/race.h)
//   one_shot  the scores of the first step decide everything (not the same answer: a baseline)
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/eval/divergence.h"
#include "lamina/model/model.h"

namespace lamina {

enum class Units { both, attention, mlp, block };
std::string_view units_name(Units units);
Units units_from_name(std::string_view name);

enum class Search { cached, naive, one_shot };
std::string_view search_name(Search search);
Search search_from_name(std::string_view name);

// What one removal takes: a part, or both halves of a block. In canonical order: block, then attention before
// feed-forward.
struct Unit {
  std::vector<Site> sites;
  int block = 0;
  std::string label;  // "A7", "F7", "B7"
};
std::vector<Unit> units_of(const Blueprint& blueprint, Units units);

// Which units may go at which step. FinerCut's public code closes the front blocks until enough has gone
// (sheet: N units, share x): int(N x / 2) + 1 blocks are closed until int(N x) + 1 removals are made. Without
// a share nothing is closed.
struct Schedule {
  int closed_blocks = 0;
  int reopen_after = 0;
  static Schedule frozen(int units, double share);
  bool open(const Unit& unit, int removed) const {
    return removed >= reopen_after || unit.block >= closed_blocks;
  }
};

struct GreedyOptions {
  int remove = 8;
  Units units = Units::both;
  Metric metric = Metric::jsd;
  Schedule schedule = {};
  Search search = Search::cached;
  int first_barrier = 0, last_barrier = 0;   // blocks at the two ends that are never candidates
  int threads = 1;                           // workers; each evaluates whole samples on one core
  uint64_t cache_bytes = uint64_t{4} << 30;  // for streams kept between steps
  int64_t bound_from = 4096;                 // see Divergence::Options
};

// One step: what was chosen, and what every candidate scored. `complete` false: the score is a lower bound.
struct Step {
  struct Candidate {
    int unit = 0;  // index into `units`
    double score = 0;
    bool complete = true;
  };
  int unit = 0;
  double score = 0;
  std::vector<Candidate> candidates = {};
  double seconds = 0;
};

// What the work was, for the distance from the floor.
struct Work {
  double matrix_flops = 0;  // in matrix products
  double seconds = 0;
  int64_t part_tokens = 0;  // tokens carried over one part
  int64_t head_tokens = 0;
  int64_t evaluations = 0;       // (candidate, sample) pairs
  int64_t full_evaluations = 0;  // what the naive way needs
};

struct GreedyResult {
  std::vector<Unit> units;
  std::vector<Step> steps;
  double dense = 0;  // the dense model's own score (0 but for perplexity)
  Work work;
};

struct GreedyHooks {
  Watch watch;
  std::vector<Step> done;                    // steps of an earlier run, to go on from
  std::function<void(const Step&)> on_step;  // called after each new step: a journal
};

// `samples`: token ids, all of one length. Throws Error when there are fewer units than should go.
GreedyResult greedy(const Model& model, const std::vector<std::vector<int32_t>>& samples,
                    const GreedyOptions& options, const GreedyHooks& hooks = {});

// The score of leaving out `sites`, each sample a full pass: the naive evaluation, and the measure that the
// cached search is held against.
double score_without(const Model& model, const Divergence& divergence,
                     const std::vector<std::vector<int32_t>>& samples, const std::vector<Site>& sites);

// The dense model's answers on the samples.
Divergence dense_reference(const Model& model, const std::vector<std::vector<int32_t>>& samples,
                           Divergence::Options options);

}  // namespace lamina
