// What is made small. A loss is a *sum* over the targets that count (Batch::learnt); the loop divides by
// their number over the whole optimizer step (all micro-batches, all ranks), so that accumulation and data
// parallelism change nothing.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lamina/heal/batches.h"
#include "lamina/heal/student.h"
#include "lamina/model/model.h"

namespace lamina {

// One training pass over a batch, as hooks and objectives see it.
struct Pass {
  const Model& model;
  const Batch& batch;
  Tap& tap;
  // Keep the stream before each part alone, and run parts again in backward. What a tap sees in them while
  // the loss is made leads to no weight, but for stages that end.
  bool gradient_checkpointing = false;
  std::function<void(bool)> recomputing = {};  // told when a part begins and ends to run again
  double weight = 1;                           // of the loss: what its sum and its gradient are multiplied by
};

struct Losses {
  Tensor sum;                                // times the pass's weight: what backward starts from, a scalar
  double measure = 0;                        // summed, for the curve: the same whatever else is in the loss
  std::map<std::string, double> terms = {};  // summed, by name: "kl", "hidden"
};

class Objective {
 public:
  virtual ~Objective() = default;
  virtual Losses operator()(const Pass& pass) const = 0;
  // What `Losses::measure` is, alone: called without gradients, for validation.
  virtual double measure(const Pass& pass) const { return (*this)(pass).measure; }
  // Tensors that train beside the model, and without which the loss cannot be made (a text encoder).
  virtual std::vector<Parameter> parameters() const { return {}; }
  virtual std::string digest() const = 0;
};

// Cross-entropy with the targets. The head's product, softmax and gradient are made tile by tile: no tensor
// of tokens x vocabulary is ever held.
// While gradients are recorded, a share `dropout` of what the head reads is zeroed by torch's generator, and
// the rest grown to match; a hook that seeds it at begin_pass makes that a function of the position.
std::unique_ptr<Objective> cross_entropy(double dropout = 0);

struct DistillOptions {
  double temperature = 1;
  double logits = 1;  // weight of T^2 KL(teacher || student)
  double hidden = 0;  // weight of the mean squared difference of the streams after each block both have
  double cross_entropy = 0;  // weight of the targets themselves
  std::string teacher = {};  // its digest or name: a run goes on with the same one alone
};
// Hinton et al., 2015. The teacher has the student's vocabulary and width (for `hidden`); Error otherwise.
std::unique_ptr<Objective> distillation(std::shared_ptr<const Model> teacher, DistillOptions options);

// The stream after the last part, by the walk that `pass` asks for: what every objective starts with.
Stream walk(const Pass& pass);

// Sum over the targets that count of -ln softmax(head(hidden))[target], with its gradient made in the same
// tiles.
Tensor summed_cross_entropy(const Tensor& hidden, const Linear& head, const Tensor& targets);

}  // namespace lamina
