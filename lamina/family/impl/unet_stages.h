// The program of a U-Net by stage and layer, with what of each is left: what layouts are reckoned on.
#pragma once

#include <string>
#include <vector>

#include "lamina/family/unet.h"

namespace lamina::unet {

// A ResNet and the transformer behind it.
struct Layer {
  std::string resnet;              // path
  int64_t in = 0;                  // channels that its ResNet reads
  Site part = {};                  // the ResNet
  bool kept = true;                // the ResNet
  std::string attention = {};      // path of the transformer; empty: there is none
  std::vector<Site> blocks = {};   // its parts: one, or one a block
  int64_t depth = 0;               // its blocks, as the config has them
  std::vector<int64_t> left = {};  // numbers of the blocks that are left
  bool attends = false;            // something of the transformer is left

  bool gone() const { return !kept && !attends; }
};

struct Stages {
  std::vector<std::vector<Layer>> down, up;  // both outermost first
  std::vector<Layer> mid;                    // none, one ResNet, or two with a transformer behind the first
};

// `removed` and what the blueprint says is gone.
Stages stages_of(const Config& config, const Blueprint& blueprint, const std::vector<Site>& removed);

// Channels that a ResNet at place `position` of `count` reads on the way up in `stage`.
int64_t width_at(const Config& config, size_t stage, size_t position, size_t count);

// All parts of a layer.
std::vector<Site> parts_of(const Layer& layer);

}  // namespace lamina::unet
