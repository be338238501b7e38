#include "lamina/methods/finercut/finercut.h"

namespace lamina::finercut {

Proposal propose(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks) {
  GreedyOptions greedy_options{.remove = static_cast<int>(options.remove),
                               .units = units_from_name(options.units),
                               .metric = metric_from_name(options.metric),
                               .schedule = {},
                               .search = search_from_name(options.search),
                               .threads = static_cast<int>(options.threads)};
  if (options.freeze) {
    const auto units = static_cast<int>(units_of(input.model.blueprint(), greedy_options.units).size());
    greedy_options.schedule = Schedule::frozen(units, *options.freeze);
  }
  GreedyResult result = greedy(input.model, input.samples, greedy_options, hooks);
  return {plan_of(input.model.blueprint(), result), std::move(result)};
}

}  // namespace lamina::finercut
