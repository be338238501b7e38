// A pass with clamps: the preview of a plan's Clamp edits, and how a checkpoint's own clamps are honoured.
#pragma once

#include <map>
#include <vector>

#include "lamina/model/model.h"

namespace lamina {

// What `clamp` makes of the values [..., neurons] of its place: a new tensor that differs in one neuron.
Tensor clamped(const Clamp& clamp, const Tensor& values);

// Clamps neurons, then lets another tap see the result.
class Clamping : public Tap {
 public:
  // Throws Error when a clamp names a part or neuron that the model does not have.
  Clamping(const Blueprint& blueprint, const std::vector<Clamp>& clamps);
  bool reads_neurons(Site site) const override { return by_site_.contains(site); }
  Tensor neurons(Site site, NeuronPlace place, const Tensor& values) override;

 private:
  std::map<Site, std::vector<Clamp>> by_site_;
};

}  // namespace lamina
