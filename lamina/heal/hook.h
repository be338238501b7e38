// What a method does to a run while it trains: the tap of its passes, a loss of its own, what it keeps
// between steps. Its state goes into every checkpoint. The loop knows nothing of why.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/heal/student.h"
#include "lamina/model/model.h"

namespace lamina {

class Group;
struct Batch;

// One optimizer step as it was.
struct StepRecord {
  int64_t step = 0;      // 1 for the first
  double loss = 0;       // the objective's measure over targets that count, all ranks: cross-entropy, in nats
  double objective = 0;  // what was made small, a position
  double learning_rate = 0;
  double gradient_norm = 0;  // before clipping
  int64_t tokens = 0;        // positions that counted
  double seconds = 0;
  std::map<std::string, double> terms = {};  // of the objective and of the hook
};

class Hook {
 public:
  virtual ~Hook() = default;
  // The tap of training passes and of evaluations during training.
  virtual Tap& tap() { return none_; }
  virtual void begin_step(int64_t /*step*/) {}    // before the first micro-batch of step 1, 2, ...
  virtual void begin_pass(const Batch& /*b*/) {}  // before the training pass over each micro-batch
  // A loss beside the objective's, from what the tap saw in the pass that just ended; added with weight
  // (micro-batch's share of the step's positions). The value for the curve goes under the name given.
  virtual std::optional<std::pair<std::string, Tensor>> extra_loss() { return std::nullopt; }
  // After the optimizer's update. What the tap saw on this rank may be summed over `group`. May write into
  // `record`.
  virtual void end_step(StepRecord& /*record*/, Group& /*group*/) {}
  virtual std::vector<Parameter> parameters() { return {}; }  // trained beside the student's
  // A part runs again in backward (gradient checkpointing): what the tap sees then, it has seen before.
  virtual void recomputing(bool) {}

  struct State {
    Json json = Json::object();
    std::map<std::string, Tensor> tensors = {};
  };
  virtual State state() const { return {}; }
  virtual void restore(const State&) {}
  virtual std::string digest() const { return ""; }

 private:
  Tap none_;
};

}  // namespace lamina
