#include "lamina/methods/sleb/sleb.h"

namespace lamina::sleb {

Proposal propose(const MethodInput& input, const MethodOptions& options, const GreedyHooks& hooks) {
  GreedyResult result = greedy(input.model, input.samples,
                               {.remove = static_cast<int>(options.remove),
                                .units = Units::block,
                                .metric = Metric::ppl,
                                .schedule = {},
                                .search = search_from_name(options.search),
                                .first_barrier = 1,
                                .last_barrier = 1,
                                .threads = static_cast<int>(options.threads)},
                               hooks);
  return {plan_of(input.model.blueprint(), result), std::move(result)};
}

}  // namespace lamina::sleb
