#include "lamina/methods/asdm/regional.h"

#include <algorithm>

namespace lamina::asdm {

RegionalAttention::RegionalAttention(const Windows& windows)
    : options_{.window = windows.window,
               .pool = windows.pool,
               .log_count = windows.log_count,
               .mask_own = windows.mask_own,
               .cells_look = windows.mix == Windows::Mix::pooled},
      gated_(windows.mix == Windows::Mix::gate) {}

Tensor RegionalAttention::operator()(const MapQuery& query) const {
  RegionalOptions options = options_;
  const Tensor q = query.q(query.x);
  if (gated_) options.gate = at::zeros({query.heads}, q.options());
  return attend_regional(q, query.k(query.x), query.v(query.x), query.heads, query.height, query.width,
                         options);
}

Preview::Preview(const Blueprint& blueprint, const Plan& plan) : Skip(blueprint, plan) {
  check_plan(plan, blueprint);
  for (const Edit& edit : plan.edits) {
    if (const auto* regional = std::get_if<Regional>(&edit))
      regional_.emplace(blueprint.site(regional->site).index, RegionalAttention(regional->windows));
  }
}

const MapAttention* Preview::map_attention(Site site) const {
  const auto it = regional_.find(site.index);
  return it == regional_.end() ? nullptr : &it->second;
}

namespace {

// Notes how large the maps of self-attentions are, and makes them see one token each: the pass is for that
// alone.
class Sizes : public Tap, public MapAttention {
 public:
  const MapAttention* map_attention(Site site) const override {
    now_ = site.index;
    return this;
  }
  Tensor operator()(const MapQuery& query) const override {
    seen_[now_] = std::min(query.height, query.width);
    return query.v(query.x);
  }
  const std::map<int, int64_t>& seen() const { return seen_; }

 private:
  mutable int now_ = -1;
  mutable std::map<int, int64_t> seen_;
};

}  // namespace

std::vector<Regional> regional_at(const Model& model, const Inputs& one, const Windows& windows,
                                  int64_t side) {
  Sizes sizes;
  const InferenceMode evaluating;
  model.run(one, sizes);
  std::vector<Regional> edits;
  for (const auto& [part, seen] : sizes.seen()) {
    const Part& at = model.blueprint().parts[static_cast<size_t>(part)];
    if (seen >= side && !at.windows) edits.push_back({.site = at.path, .windows = windows});
  }
  return edits;
}

}  // namespace lamina::asdm
