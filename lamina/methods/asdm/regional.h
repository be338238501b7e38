// Global-regional attention, A-SDM-style (arXiv 2312.15516 names it; the definition is ours, in
// lamina/nn/regional.h): a self-attention over a large map sees its own window and averages of the rest.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lamina/model/model.h"
#include "lamina/nn/regional.h"

namespace lamina::asdm {

class RegionalAttention : public MapAttention {
 public:
  explicit RegionalAttention(const Windows& windows);
  Tensor operator()(const MapQuery& query) const override;

 private:
  RegionalOptions options_;
  bool gated_;  // by numbers that are still zero
};

// A plan's cuts and Regional edits in a pass: what the checkpoint gives that they are applied to. What
// Inherit and Blend do is not in it; the first changes nothing with its default gate.
class Preview : public Skip {
 public:
  // Throws Error when the plan does not fit the model.
  Preview(const Blueprint& blueprint, const Plan& plan);
  const MapAttention* map_attention(Site site) const override;

 private:
  std::map<int, RegionalAttention> regional_;
};

// An edit for every self-attention that has a map of `side` tokens a side or more in a pass over `one`, and
// sees all of it so far.
std::vector<Regional> regional_at(const Model& model, const Inputs& one, const Windows& windows,
                                  int64_t side);

}  // namespace lamina::asdm
