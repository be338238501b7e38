#include "lamina/methods/baselines/baselines.h"

#include <cmath>
#include <random>

namespace lamina::baselines {

Proposal random(const MethodInput& input, const MethodOptions& options, const GreedyHooks&) {
  const Units units = units_from_name(options.units);
  std::mt19937_64 engine(static_cast<uint64_t>(options.seed));
  std::vector<double> scores;
  // 53 bits of the engine, not a library distribution: those differ between standard libraries.
  for (size_t i = 0; i < units_of(input.model.blueprint(), units).size(); ++i)
    scores.push_back(static_cast<double>(engine() >> 11) * 0x1p-53);
  return lowest(input, units, scores, options.remove);
}

Proposal last(const MethodInput& input, const MethodOptions& options, const GreedyHooks&) {
  const Units units = units_from_name(options.units);
  std::vector<double> scores;
  for (size_t i = 0; i < units_of(input.model.blueprint(), units).size(); ++i)
    scores.push_back(-static_cast<double>(i));
  return lowest(input, units, scores, options.remove);
}

Proposal magnitude(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks) {
  const Units units = units_from_name(options.units);
  const Blueprint& blueprint = input.model.blueprint();
  std::vector<double> scores;
  for (const Unit& unit : units_of(blueprint, units)) {
    double sum = 0, count = 0;
    for (const Slot& slot : blueprint.slots) {
      if (slot.axes.size() != 2 || std::ranges::find(unit.sites, Site{slot.part}) == unit.sites.end())
        continue;
      if (hooks.watch.stop.stop_requested()) throw Stopped{};
      const Tensor weight = load(*input.checkpoint.find(slot.name), at::kFloat);
      sum += weight.abs().sum(at::kDouble).item<double>();
      count += static_cast<double>(weight.numel());
    }
    scores.push_back(sum / std::max(1.0, count));
  }
  return lowest(input, units, scores, options.remove);
}

}  // namespace lamina::baselines
