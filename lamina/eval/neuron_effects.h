// Confidence neurons (Stolfo et al., 2024, arXiv 2406.16254): neurons of the last feed-forward that write
// much and yet move all logits alike, so that they can act through the scale of the last norm alone. The
// candidates are ranked by |w_out| / Var_v cos(w_v, w_out) and held at their mean over the data:
//   total   what that changes, the last norm's scale made again
//   frozen  the same with every token's scale as it was
// Where the last norm is frozen or gone the two are one number.
#pragma once

#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/eval/pass.h"

namespace lamina {

struct NeuronEffectOptions {
  int64_t top = 3;
};

struct NeuronEffects {
  struct Change {
    double cross_entropy = 0, entropy = 0;  // mean change
    double moved = 0;                       // mean of |change of the cross-entropy|
  };
  struct Neuron {
    int64_t neuron = 0;
    double norm = 0, logit_variance = 0, score = 0;
    double mean = 0;  // of its value, over the data
    Change total = {}, frozen = {};
  };
  Site site = {};         // of the feed-forward; none: the model has no neurons, and nothing else is set
  std::string part = {};  // its path
  double cross_entropy = 0, entropy = 0;
  std::vector<Neuron> neurons = {};                  // best score first
  Change total_together = {}, frozen_together = {};  // all of them at once
  int64_t tokens = 0;
};

NeuronEffects neuron_effects(const Model& model, const Samples& samples, const NeuronEffectOptions& options,
                             Tap& base, const Watch& watch = {});

// What each neuron of a part writes into the residual when its value is one, [neurons, width].
Tensor written_by_neurons(const Model& model, Site site);

}  // namespace lamina
