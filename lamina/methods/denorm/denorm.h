// A network without norms. Schaeffer, Baroni, Subkhankulov, Khara and Heimersheim, "Transformers Don't Need
// LayerNorm at Inference Time", 2025 (arXiv 2507.02559), after Heimersheim, 2024 (arXiv 2409.13710): while
// the model is fine-tuned, one reader of a norm after another gets a division by a constant, the running mean
// of what it divided by, until nothing is left that cannot be folded into the maps behind it. Second way:
// TaperNorm, 2026 (arXiv 2602.10408): all norms at once go over into constant scales, by a gate that falls
// from 1 to 0. Invariant: what the tap computes for a reader that is gone is Norm::held, which is what
// FreezeNorm folds.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lamina/heal/hook.h"
#include "lamina/methods/denorm/schedule.h"
#include "lamina/plan/plan.h"

namespace lamina {
class Batches;
}

namespace lamina::denorm {

// What each reader's norm divides by on average, in the order of Blueprint::norm_paths.
std::vector<double> measure_scales(const Model& model, const Batches& data, int64_t samples, int64_t batch);
// The edits that freeze every reader at these scales.
Plan frozen_at(const Blueprint& blueprint, const std::vector<double>& scales);

// Backing off: where the mean loss of the last `window` steps lies more than `above` over what it was before
// the last removal, the next ones wait.
struct BackOff {
  bool on = true;
  double above = 0.1;  // nats
  int64_t window = 20;
};

// From 1 at `from` to 0 at `to`, steps that are done, along a cosine.
struct Taper {
  int64_t from = 0, to = 0;
  double gate(int64_t done) const;
};

struct Options {
  Removals removals = {};           // freezing; empty where norms taper
  std::optional<Taper> taper = {};  // all of them, at once
  int64_t steps = 0;                // of the run
  double momentum = 0.9;            // of the running means, an optimizer step
  double lambda = 0.1;              // of the extra loss on the last residual's scale; 0: none
  int64_t end_of_text = -1;         // the token whose scale does not count as usual; -1: there is none
  BackOff back_off = {};
  std::vector<double> scales = {};  // to start the running means from; empty: the first step's
};

// The removals waited at `step`, for so many steps, before `path` went.
struct Wait {
  int64_t step = 0, steps = 0;
  NormPath path = {};
  bool given_up = false;  // the run would have been too short otherwise
};

// The scales over the run, every few steps: live[i][p] at steps[i] of path p.
struct ScaleHistory {
  std::vector<int64_t> steps = {};
  std::vector<std::vector<double>> live = {};
};

class Denorm : public Hook, private Tap {
 public:
  // The student is asked for its norms alone.
  Denorm(const Student& student, Options options);

  Tap& tap() override { return *this; }
  void begin_step(int64_t step) override;
  void begin_pass(const Batch& batch) override;
  std::optional<std::pair<std::string, Tensor>> extra_loss() override;
  void end_step(StepRecord& record, Group& group) override;
  std::vector<Parameter> parameters() override { return gains_; }
  void recomputing(bool on) override { recomputing_ = on; }
  State state() const override;
  void restore(const State& state) override;
  std::string digest() const override;

  // Whether every norm that was to go has gone.
  bool finished() const;
  // After the run. Tapered gains become the student's own, so that what is left is frozen norms alone. Throws
  // Error that names a norm which is still there.
  void settle();
  // The frozen readers, as edits of a plan.
  std::vector<Edit> edits() const;

  const Removals& gone() const { return gone_; }  // with the steps at which they went
  const std::vector<Wait>& waits() const { return waits_; }
  const ScaleHistory& history() const { return history_; }
  const std::vector<NormPath>& paths() const { return paths_; }
  // Of each path, the running mean of its scale over the constant that took its place; 0 while it is live.
  std::vector<double> drifts() const;

 private:
  struct Path {
    double live = 0;                  // running mean of the scale; 0: nothing was seen yet
    std::optional<double> held = {};  // the constant
    Tensor sum = {};                  // of what was seen in this step
    int64_t count = 0;
  };
  // What tapers: one norm, whoever reads it.
  struct Tapering {
    Tensor gain = {};               // the student's
    Tensor above = {}, below = {};  // sums of |h gain|^2 / scale and |h gain|^2 in this step
    double above_mean = 0, below_mean = 0;
  };

  bool reads_norm(Site site) const override;
  Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override;
  void saw_end(const Tensor& residual, const Tensor& normed) override;

  size_t index(const NormPath& path) const { return index_.at(path); }
  void see(const NormPath& path, const Norm& norm, const Tensor& x);
  void forget() {  // what the last reader read
    seen_x_.reset();
    seen_scale_.reset();
  }
  Tensor tapered(size_t path, const Norm& norm, const Tensor& x) const;
  void freeze(const Removal& removal, int64_t done);
  bool must_wait() const;
  double recent_mean() const;

  const Options options_;
  const Blueprint blueprint_;
  std::vector<NormPath> paths_;
  std::map<NormPath, size_t> index_;
  std::vector<Path> path_;
  std::vector<bool> changed_;  // by site, the last norm at the end: a reader is not live

  std::vector<Parameter> gains_;  // of tapering norms, in the order of tapering_
  std::vector<Tapering> tapering_;
  std::vector<size_t> tapering_of_;  // by path
  double gate_ = 1;
  double target_ = 0;  // of the last residual's scale, from the end of the warm-up on

  bool training_ = false, recomputing_ = false;
  Norm last_;  // how the last residual's scale is taken
  Tensor residual_, ids_;
  std::optional<Tensor> padding_;
  Tensor seen_x_, seen_scale_;  // what queries and keys, and then values, read

  size_t next_ = 0;  // of the removals
  int64_t delay_ = 0;
  std::deque<double> recent_;        // losses
  std::optional<double> reference_;  // the mean loss before the last removal
  Removals gone_;
  std::vector<Wait> waits_;
  ScaleHistory history_;
};

}  // namespace lamina::denorm
