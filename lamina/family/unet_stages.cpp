#include <algorithm>

#include "lamina/family/impl/unet_stages.h"

namespace lamina::unet {

std::vector<Site> parts_of(const Layer& layer) {
  std::vector<Site> parts = {layer.part};
  parts.insert(parts.end(), layer.blocks.begin(), layer.blocks.end());
  return parts;
}

Stages stages_of(const Config& config, const Blueprint& blueprint, const std::vector<Site>& removed) {
  std::vector<bool> there;
  for (const Part& part : blueprint.parts) there.push_back(part.present);
  for (Site site : removed) there[static_cast<size_t>(site.index)] = false;
  const auto s = static_cast<size_t>(config.stages());
  Stages stages;
  stages.down.resize(s), stages.up.resize(s);
  const size_t middle = config.mid == Mid::none ? 0 : 1;
  const auto list = [&](int stage) -> std::vector<Layer>& {
    const auto at = static_cast<size_t>(stage);
    if (at < s) return stages.down[at];
    return at < s + middle ? stages.mid : stages.up[s - 1 - (at - s - middle)];
  };
  for (const Op& op : program(config)) {
    std::vector<Layer>& layers = list(op.stage);
    if (op.kind == Op::Kind::resnet) {
      layers.push_back(
          {.resnet = op.path, .in = op.in, .part = {op.part}, .kept = there[static_cast<size_t>(op.part)]});
    } else if (op.kind == Op::Kind::enter || op.kind == Op::Kind::transformer) {
      layers.back().attention = op.path;
      layers.back().depth = op.depth;
    }
    if (op.kind != Op::Kind::transformer && op.kind != Op::Kind::block) continue;
    Layer& layer = layers.back();
    if (there[static_cast<size_t>(op.part)]) {
      layer.attends = true;
      if (op.depth > 0) layer.left.push_back(static_cast<int64_t>(layer.blocks.size()));
    }
    layer.blocks.push_back({op.part});
  }
  return stages;
}

int64_t width_at(const Config& config, size_t stage, size_t position, size_t count) {
  const auto width = [&](size_t i) { return config.channels[i]; };
  const size_t inner = std::min(stage + 1, config.channels.size() - 1), outer = stage == 0 ? 0 : stage - 1;
  return (position == 0 ? width(inner) : width(stage)) +
         (position + 1 == count ? width(outer) : width(stage));
}

}  // namespace lamina::unet
