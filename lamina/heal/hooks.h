// Several hooks as one: taps and losses are the first one's, all else is done by each in its turn.
#pragma once

#include <vector>

#include "lamina/heal/hook.h"

namespace lamina {

class Hooks : public Hook {
 public:
  // They outlive it.
  explicit Hooks(std::vector<Hook*> hooks) : hooks_(std::move(hooks)) {}

  Tap& tap() override;
  void begin_step(int64_t step) override;
  void begin_pass(const Batch& batch) override;
  std::optional<std::pair<std::string, Tensor>> extra_loss() override;
  void end_step(StepRecord& record, Group& group) override;
  std::vector<Parameter> parameters() override;
  void recomputing(bool again) override;
  State state() const override;
  void restore(const State& state) override;
  std::string digest() const override;

 private:
  std::vector<Hook*> hooks_;
};

}  // namespace lamina
