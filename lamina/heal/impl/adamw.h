// AdamW (Loshchilov and Hutter, 2019) in torch.optim's arithmetic: p <- p (1 - lr wd), then
// p <- p - lr m' / (sqrt(v') + eps) with moments freed of their bias. The moments are kept here, by
// parameter, so that a checkpoint can hold them.
#pragma once

#include <optional>
#include <vector>

#include "lamina/heal/student.h"

namespace lamina {

class AdamW {
 public:
  struct Options {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
  };
  AdamW(std::vector<Parameter> parameters, Options options);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  struct Moments {
    Tensor first, second;
  };
  std::vector<Moments>& moments() { return moments_; }
  const std::vector<Moments>& moments() const { return moments_; }

  // The norm of the gradient over all parameters.
  double gradient_norm() const;
  // The first parameter whose gradient holds what is no number.
  std::optional<std::string> not_finite() const;
  // Gradients times `factor`, then the update; `step` counts from 1. A parameter without a gradient stays.
  struct Update {
    int64_t step;
    double learning_rate;
    double factor = 1;
  };
  void update(const Update& update);

 private:
  std::vector<Parameter> parameters_;
  std::vector<Moments> moments_;
  Options options_;
};

}  // namespace lamina
