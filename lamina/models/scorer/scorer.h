// The small network that answers questions about a picture. Input: sample, pixels in [-1, 1]; the last map of
// another size than the config's is brought to it by averages.
#pragma once

#include <memory>

#include "lamina/family/scorer.h"
#include "lamina/model/model.h"

namespace lamina::scorer {

// `run` gives the logits of all heads one after the other, [batch, answers]; `read_out` what they read,
// [batch, features].
class Scorer : public Model {
 public:
  using Model::Model;
  virtual const Config& config() const = 0;
};

std::unique_ptr<Scorer> build_scorer(const Checkpoint& checkpoint, const Blueprint& blueprint,
                                     const Weights& weights);
std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights);

}  // namespace lamina::scorer
