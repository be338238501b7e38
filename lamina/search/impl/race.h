// The cached step of the greedy search: candidates race over the samples, the one with the smallest partial
// sum next. Streams are kept before every part of the present model, and along each candidate's own last
// pass, so that a pass starts at the first place where it can differ from what was computed before.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "lamina/search/greedy.h"

namespace lamina {

class Race {
 public:
  struct Options {
    int threads = 1;
    uint64_t cache_bytes = uint64_t{4} << 30;
  };
  Race(const Model& model, const Divergence& divergence, const std::vector<std::vector<int32_t>>& samples,
       const std::vector<Unit>& units, Options options);

  struct Run {
    double near = 0;  // candidates this close to the best (relative) are finished too
    std::function<void(double evaluations, double best)> tick;
  };
  // Scores of the candidates; at least the best, and all near it, are complete.
  std::vector<Step::Candidate> run(const std::vector<int>& candidates, const Run& run);
  // The unit leaves the present model.
  void remove(int unit);
  Work work() const { return work_; }

 private:
  struct Pass;  // one candidate on one sample
  struct Racer {
    int unit = 0;
    std::vector<std::optional<double>> terms;
    double bound = 0;  // sum of the terms that are there
    bool running = false;
    bool out = false;
    std::vector<size_t> order;  // samples still to run, next last
  };
  Divergence::Term evaluate(int unit, size_t sample, double limit);
  void start(size_t sample);
  bool skips(int unit, Site site) const;

  const Model& model_;
  const Divergence& divergence_;
  const std::vector<std::vector<int32_t>>& samples_;
  const std::vector<Unit>& units_;
  Options options_;
  std::vector<bool> gone_;  // by site
  // Streams before each site of the present model, by sample; the last entry is the end.
  std::vector<std::vector<Stream>> prefix_;
  // Along a candidate's own pass: streams before some sites after it, by unit and sample.
  std::vector<std::vector<std::map<int, Stream>>> trajectory_;
  int stride_ = 1;                               // every how many sites a trajectory keeps a stream
  std::vector<std::vector<double>> last_terms_;  // by unit and sample: of the last time it was measured
  std::mutex mutex_;
  Work work_;
};

}  // namespace lamina
