// Which neurons a cut takes away: those of the feed-forwards that a plan removes, read through the LM head.
#pragma once

#include <vector>

#include "lamina/methods/neurons/map.h"

namespace lamina::neurons {

// One feed-forward that goes.
struct LostPart {
  Site site;
  int64_t neurons = 0;
  double median_kurtosis = 0;  // of the up rows' scores; 3 is what noise has
  double above = 0;            // share of neurons with a kurtosis above `kLabelled`
  struct Neuron {
    int64_t index = 0;
    double kurtosis = 0;
    std::vector<atlas::Label> reads,
        writes;  // first labels of the up row (its likelier pole) and the down column
  };
  std::vector<Neuron> labelled;  // by kurtosis, the highest first
};

inline constexpr double kLabelled = 4;

struct LostOptions {
  int64_t neurons = 6;  // named a part
  int64_t labels = 3;   // of each
  Watch watch = {};
};
// FLOPs that it takes: the caller decides whether they are worth it.
double lost_flops(const Blueprint& blueprint, const std::vector<Site>& sites);
// Sites without neurons are left out.
std::vector<LostPart> lost(Source source, const std::vector<Site>& sites, const LostOptions& options);

}  // namespace lamina::neurons
