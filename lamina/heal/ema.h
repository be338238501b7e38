// A moving average of what is trained, beside it: what a denoiser is used with (Ho et al., 2020; Karras et
// al., 2024). After step n: average <- d average + (1 - d) value with d = min(decay, (1 + n) / (10 + n)).
#pragma once

#include <vector>

#include "lamina/heal/hook.h"

namespace lamina {

class Averaging : public Hook {
 public:
  // Keeps copies of `parameters`, in their order; they must outlive it.
  Averaging(std::vector<Parameter> parameters, double decay);

  void end_step(StepRecord& record, Group& group) override;
  State state() const override;
  void restore(const State& state) override;
  std::string digest() const override;

  // The parameters hold their averages for as long as this lives.
  class Shown {
   public:
    explicit Shown(Averaging& averaging) : averaging_(averaging) { averaging_.swap(); }
    ~Shown() { averaging_.swap(); }
    Shown(const Shown&) = delete;
    Shown& operator=(const Shown&) = delete;

   private:
    Averaging& averaging_;
  };
  Shown shown() { return Shown(*this); }

 private:
  void swap();
  std::vector<Parameter> parameters_;
  std::vector<Tensor> averages_;
  double decay_;
};

}  // namespace lamina
