#include "lamina/methods/blockpruner/blockpruner.h"

namespace lamina::blockpruner {

Proposal propose(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks) {
  GreedyResult result = greedy(input.model, input.samples,
                               {.remove = static_cast<int>(options.remove),
                                .units = units_from_name(options.units),
                                .metric = Metric::ppl,
                                .schedule = {},
                                .search = search_from_name(options.search),
                                .threads = static_cast<int>(options.threads)},
                               hooks);
  return {plan_of(input.model.blueprint(), result), std::move(result)};
}

}  // namespace lamina::blockpruner
