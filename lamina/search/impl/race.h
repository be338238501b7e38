// The cached step of the greedy search: candidates race, the one with the smallest lower bound moves next. It
// walks a sample, which gives a bound on its term from a shortlist of the vocabulary, or it takes a walked
// sample through the whole head, which gives the term itself; a candidate whose sum of terms and bounds has
// passed the best is out. Streams are kept before every part of the present model, and along each candidate's
// own last pass, so that a walk starts at the first place where it can differ from what was computed before.
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
    std::function<void(double evaluations, double best, int unit)> tick;
  };
  // Scores of the candidates; at least the best, and all near it, are complete.
  std::vector<Step::Candidate> run(const std::vector<int>& candidates, const Run& run);
  // The unit leaves the present model.
  void remove(int unit);
  Work work() const { return work_; }

 private:
  struct Racer {
    int unit = 0;
    std::vector<double> least;   // a sample: its term, or a lower bound on it
    std::vector<Tensor> hidden;  // of samples that were walked and wait for the head
    bool running = false;
    bool out = false;
    std::vector<size_t> to_walk, to_finish;  // samples, next last
    double bound() const;
    bool finished() const { return to_walk.empty() && to_finish.empty(); }
  };
  // The first of the samples still to be walked that will be needed by what the last step saw, and that start
  // alike.
  std::vector<size_t> together(const Racer& racer, double limit) const;
  // What the head reads after a pass without `unit`, a sample each. Samples in one pass share the reading and
  // packing of the weights.
  std::vector<Tensor> walk(int unit, const std::vector<size_t>& samples);
  int start_of(int unit, size_t sample) const;  // the site where a pass of the unit can start
  Divergence::Term finish(size_t sample, const Tensor& hidden, double limit);
  std::optional<Divergence::Bound> bound_here();
  void count_head(int64_t tokens, int64_t words);
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
