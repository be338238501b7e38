// A tap in front of another: everything goes through to the one behind but what is overridden. What Tap
// gains, it gains here.
#pragma once

#include "lamina/model/model.h"

namespace lamina {

class Through : public Tap {
 public:
  explicit Through(Tap& behind) : behind_(behind) {}
  bool skips(Site site) const override { return behind_.skips(site); }
  void saw(Site site, const Tensor& before, const Tensor& after) override {
    behind_.saw(site, before, after);
  }
  const Tensor* stands_in(Site site) const override { return behind_.stands_in(site); }
  void saw_stage(int stage, const Tensor& x) override { behind_.saw_stage(stage, x); }
  void saw_between(std::string_view path, const Tensor& x) override { behind_.saw_between(path, x); }
  bool reads_maps(Site site) const override { return behind_.reads_maps(site); }
  void saw_map(Site site, std::string_view path, const Tensor& in, const Tensor& out) override {
    behind_.saw_map(site, path, in, out);
  }
  const MapAttention* map_attention(Site site) const override { return behind_.map_attention(site); }
  bool reads_neurons(Site site) const override { return behind_.reads_neurons(site); }
  Tensor neurons(Site site, NeuronPlace place, const Tensor& values) override {
    return behind_.neurons(site, place, values);
  }
  bool reads_norm(Site site) const override { return behind_.reads_norm(site); }
  Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
    return behind_.norm(path, norm, x);
  }
  bool reads_heads(Site site) const override { return behind_.reads_heads(site); }
  void saw_heads(Site site, const Heads& heads) override { behind_.saw_heads(site, heads); }
  bool unmasks(Site site) const override { return behind_.unmasks(site); }
  void saw_end(const Tensor& residual, const Tensor& normed) override { behind_.saw_end(residual, normed); }

 private:
  Tap& behind_;
};

}  // namespace lamina
