// What a stock U-Net would be made of: which layer's ResNet and whose transformer stand at each of its
// places.
#pragma once

#include <algorithm>
#include <vector>

#include "lamina/family/impl/unet_stages.h"

namespace lamina::unet {

// A place of a stock stage: the layer whose ResNet stands there, and the one whose transformer does.
struct Place {
  const Layer* resnet = nullptr;
  const Layer* attention = nullptr;  // null: a transformer of depth 0 that adds nothing
  int64_t depth() const { return attention ? static_cast<int64_t>(attention->left.size()) : 0; }
};

struct Side {
  std::vector<Place> places = {};
  bool attends() const {
    return std::ranges::any_of(places, [](const Place& place) { return place.attention != nullptr; });
  }
  std::vector<int64_t> depths() const {
    std::vector<int64_t> depths;
    for (const Place& place : places) depths.push_back(place.depth());
    return depths;
  }
};

struct Wanted {
  std::vector<Side> down = {}, up = {};  // outermost first
  Side mid = {};                         // none, one or two places; the transformer stands at the first
  Mid kind = Mid::none;
  bool exact = true;
};

// The config that says it; what the source's own keys say already is left as it is written there.
Json config_of(const Json& source, const Wanted& wanted);

}  // namespace lamina::unet
