// A pass with clamps: the preview of a plan's Clamp edits, and how a checkpoint's own clamps are honoured.
#pragma once

#include <map>
#include <vector>

#include "lamina/model/model.h"

namespace lamina {

// What `clamp` makes of the values [..., neurons] of its place: a new tensor that differs in one neuron.
Tensor clamped(const Clamp& clamp, const Tensor& values);

// Clamps neurons, in the order of the list.
class Clamping : public Tap {
 public:
  // A plan's clamps. Throws Error when one names a part or neuron that the model does not have, or two the
  // same.
  Clamping(const Blueprint& blueprint, const std::vector<Clamp>& clamps);
  // Those that the checkpoint's own config carries.
  Clamping(const Checkpoint& checkpoint, const Blueprint& blueprint);
  bool reads_neurons(Site site) const override { return by_site_.contains(site); }
  Tensor neurons(Site site, NeuronPlace place, const Tensor& values) override {
    return held(site, place, values);
  }
  Tensor held(Site site, NeuronPlace place, const Tensor& values) const;

 private:
  std::map<Site, std::vector<Clamp>> by_site_;
};

// What a family's feed-forward asks in place of the pass's tap: the checkpoint's own clamps act first, and
// the tap sees their result.
class NeuronTaps {
 public:
  NeuronTaps(const Clamping& own, Tap& tap, Site site)
      : own_(own), tap_(tap), site_(site), held_(own.reads_neurons(site)), read_(tap.reads_neurons(site)) {}
  bool any() const { return held_ || read_; }
  Tensor operator()(NeuronPlace place, const Tensor& values) const {
    const Tensor after = held_ ? own_.held(site_, place, values) : values;
    return read_ ? tap_.neurons(site_, place, after) : after;
  }

 private:
  const Clamping& own_;
  Tap& tap_;
  Site site_;
  bool held_, read_;
};

}  // namespace lamina
