#include "lamina/search/method.h"

#include <algorithm>
#include <numeric>

#include "lamina/base/error.h"

namespace lamina {

Plan plan_of(const Blueprint& blueprint, const GreedyResult& result) {
  Plan plan;
  for (const Step& step : result.steps) {
    for (Site site : result.units[static_cast<size_t>(step.unit)].sites)
      plan.edits.push_back(Cut{blueprint.part(site).path, step.score});
  }
  return plan;
}

Proposal lowest(const MethodInput& input, Units units, const std::vector<double>& scores, int64_t remove) {
  GreedyResult result{.units = units_of(input.model.blueprint(), units), .steps = {}, .work = {}};
  const auto count = static_cast<int64_t>(result.units.size());
  if (remove < 1 || remove >= count)
    fail("{} units were to be removed of {}; ask for 1 to {}", remove, count, count - 1);
  std::vector<int> order(result.units.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](int unit) { return scores[static_cast<size_t>(unit)]; });
  for (int64_t k = 0; k < remove; ++k) {
    Step step{.unit = order[static_cast<size_t>(k)],
              .score = scores[static_cast<size_t>(order[static_cast<size_t>(k)])],
              .candidates = {}};
    for (size_t u = 0; u < scores.size() && k == 0; ++u)
      step.candidates.push_back({static_cast<int>(u), scores[u], true});
    result.steps.push_back(std::move(step));
  }
  return {plan_of(input.model.blueprint(), result), std::move(result)};
}

}  // namespace lamina
