#include "lamina/model/frozen_norms.h"

#include "lamina/plan/fold.h"

namespace lamina {

FrozenNorms::FrozenNorms(const Blueprint& blueprint, const Plan& plan) {
  check_plan(plan, blueprint);
  for (const FreezeNorm& freeze : frozen_by(plan)) {
    const Site site = freeze.reader == Reader::head ? Site{} : blueprint.site(freeze.site);
    norms_[site][freeze.reader] = freeze.scale;
  }
}

Tensor FrozenNorms::held(const NormPath& path, const Norm& norm, const Tensor& x) const {
  const auto& scales = norms_.at(path.site);
  const auto it = scales.find(path.reader);
  return it == scales.end() ? norm(x) : norm.held(x, it->second);
}

}  // namespace lamina
