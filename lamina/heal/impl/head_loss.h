// A loss of what the head says, made tile of tokens by tile together with its gradient: no tensor of tokens x
// vocabulary is ever held. Positions whose target is kNotLearnt cost nothing.
#pragma once

#include <optional>

#include "lamina/nn/linear.h"
#include "lamina/tensor/tensor.h"

namespace lamina {

struct TeacherHead {
  Tensor hidden;  // [batch, tokens, width]
  const Linear& head;
  double temperature = 1;
  double weight = 1;  // of T^2 KL(teacher || student)
};

struct HeadLossOptions {
  double weight = 1;         // of the whole
  double cross_entropy = 1;  // of the targets
  std::optional<TeacherHead> teacher = {};
};

struct HeadLoss {
  Tensor sum;                // weighted, a float64 scalar that backward may start from
  double cross_entropy = 0;  // summed, without weights
  double kl = 0;             // T^2 KL, summed, without weights
};

HeadLoss head_loss(const Tensor& hidden, const Linear& head, const Tensor& targets,
                   const HeadLossOptions& options = {});

}  // namespace lamina
