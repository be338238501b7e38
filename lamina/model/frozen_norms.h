// A pass whose norms divide by constants: the preview of a plan's FreezeNorm edits, and what folding them
// away must give. Readers that the plan does not freeze read a live norm.
#pragma once

#include <map>
#include <vector>

#include "lamina/model/model.h"

namespace lamina {

class FrozenNorms : public Tap {
 public:
  // Throws Error when the plan does not fit the model.
  FrozenNorms(const Blueprint& blueprint, const Plan& plan);
  bool reads_norm(Site site) const override { return norms_.contains(site); }
  Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
    return held(path, norm, x);
  }
  Tensor held(const NormPath& path, const Norm& norm, const Tensor& x) const;

 private:
  std::map<Site, std::map<Reader, double>> norms_;
};

}  // namespace lamina
