// Which parts of a denoiser go: covers, solvers, and the best plans of the sum ranked again by their loss.
#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/prune_unet_search.h"

namespace lamina::cli {

namespace {

using laptop::Choice;
using laptop::Cover;

// What stays when all goes that can, of each budget.
std::string limits_of(const UnetFound& found, const Cover& cover) {
  std::string limits;
  for (size_t a = 0; a < found.least.size(); ++a) {
    if (found.least[a] <= 0) continue;
    int64_t most = 0;
    for (const laptop::Group& group : cover.groups)
      most += std::ranges::max(group, {}, [a](const laptop::Option& o) { return o.saved[a]; }).saved[a];
    limits += fmt::format("{}{:.1f} % of the {}", limits.empty() ? "" : ", ",
                          100 * (1 - static_cast<double>(most) / static_cast<double>(found.prices.whole[a])),
                          found.prices.axes[a]);
  }
  return limits;
}

struct Solved {
  Choice choice;
  bool proven = true;
};

Solved solved(const UnetTask& task, const UnetFound& found, const Cover& cover) {
  const std::string& solver = task.options.solver;
  std::optional<Choice> choice;
  bool proven = true;
  if (solver == "dynamic") {
    const auto axis = static_cast<size_t>(
        std::ranges::find_if(found.least, [](int64_t least) { return least > 0; }) - found.least.begin());
    choice = laptop::Frontier(cover, {.axis = axis}).at(found.least[axis]);
  } else if (solver == "greedy-loss" || solver == "greedy-ratio") {
    choice = laptop::greedy(cover, solver == "greedy-loss" ? laptop::Order::loss : laptop::Order::ratio);
  } else {
    const laptop::Exact exact = laptop::exact(cover, {});
    proven = exact.proven;
    if (!exact.best.empty()) choice = exact.best[0];
  }
  if (!choice)
    fail("the budgets cannot be held; what stays when all goes that can: {}", limits_of(found, cover));
  return {.choice = *choice, .proven = proven};
}

// The best plans of the sum by their true loss, and the neighbours of the first of them.
Choice ranked_again(const UnetTask& task, std::span<const Site> candidates, const Cover& cover,
                    const Choice& start, laptop::Criterion by, PlanLosses& losses) {
  const UnetOptions& options = task.options;
  Trajectories trajectories(task, {candidates.begin(), candidates.end()}, Trajectories::Prompts::tried);
  const auto loss_of = [&](const Choice& choice) {
    const std::vector<int> removed = laptop::removed(cover, choice);
    return by == laptop::Criterion::trajectory ? trajectories.of(removed, options.layout)
                                               : losses.scored(removed, options.layout, by);
  };
  const laptop::Exact near = laptop::exact(cover, {.best = options.rerank, .nodes = 4'000'000});
  Choice best = start;
  double least = loss_of(best);
  int64_t done = 0;
  for (const Choice& choice : near.best) {
    const double loss = loss_of(choice);
    if (loss < least) least = loss, best = choice;
    task.tick("rank again", ++done, static_cast<int64_t>(near.best.size()), least);
  }
  if (options.refine <= 0) return best;
  done = 0;
  const auto truth = [&](const Choice& choice) {
    const double loss = loss_of(choice);
    least = std::min(least, loss);
    task.tick("neighbours", ++done, options.refine, least);
    return loss;
  };
  return laptop::refine(cover, best, truth, {.evaluations = options.refine}).choice;
}

}  // namespace

UnetFound choose(const UnetTask& task, UnetFound found, const Cover& cover, PlanLosses& losses) {
  const UnetOptions& options = task.options;
  const auto row = [&](std::string name, std::vector<int> removed) {
    return row_of(task, found, std::move(name), std::move(removed), options.layout);
  };
  if (options.method == "bk-sdm") {
    const std::vector<Site> sites = laptop::handcrafted(task.subject.blueprint(), options.cut);
    found.chosen = row(options.cut, indices_of(found.candidates, sites));
  } else if (options.method == "random") {
    const std::optional<Choice> choice = laptop::random_choice(cover, static_cast<uint64_t>(options.seed));
    if (!choice)
      fail("the budgets cannot be held; what stays when all goes that can: {}", limits_of(found, cover));
    found.chosen = row("random", laptop::removed(cover, *choice));
  } else {
    auto [best, proven] = solved(task, found, cover);
    found.proven = proven;
    found.others.push_back(row(options.solver + ", by the sum", laptop::removed(cover, best)));
    const std::optional<laptop::Criterion> by = laptop::loss_of_plans(found.criterion);
    if (options.rerank > 0 && by) best = ranked_again(task, found.candidates, cover, best, *by, losses);
    found.chosen = row("chosen", laptop::removed(cover, best));
  }
  losses.measure(found.chosen);
  return found;
}

}  // namespace lamina::cli
