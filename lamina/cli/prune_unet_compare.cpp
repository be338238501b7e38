// What stands beside the chosen plan: other plans, frontiers, the last latents at equal seeds, and how far
// the sum of single losses can be trusted.
#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/prune_unet_search.h"

namespace lamina::cli {

namespace {

using laptop::Choice;
using laptop::Cover;
using laptop::Criterion;

// Plans beside the chosen one, each with its loss on held-out samples.
class Others {
 public:
  Others(const UnetTask& task, UnetFound found, PlanLosses& losses)
      : task_(task), found_(std::move(found)), losses_(losses) {}

  UnetFound with(const Cover& cover) && {
    const UnetOptions& options = task_.options;
    for (PlanRow& plan : found_.others) losses_.measure(plan);
    if (options.compare == "none" || options.method == "bk-sdm") return std::move(found_);
    for (laptop::Order order : {laptop::Order::loss, laptop::Order::ratio}) {
      const std::optional<Choice> choice = laptop::greedy(cover, order);
      if (choice)
        add(order == laptop::Order::loss ? "greedy, least loss first" : "greedy, least loss a saving first",
            laptop::removed(cover, *choice), options.layout);
    }
    if (options.layout != "any") add_any();
    add_nearest();
    add_judged_otherwise();
    add_random();
    add_handcrafted();
    return std::move(found_);
  }

 private:
  PlanRow row(std::string name, std::vector<int> removed, const std::string& layout) const {
    return row_of(task_, found_, std::move(name), std::move(removed), layout);
  }
  Cover free_cover(const std::vector<double>& values) const {
    return cover_for(task_, found_, "any", values);
  }
  void add(std::string name, std::vector<int> removed, const std::string& layout) {
    found_.others.push_back(row(std::move(name), std::move(removed), layout));
    losses_.measure(found_.others.back());
  }
  void add_exact(std::string name, const Cover& cover, const std::string& layout) {
    const laptop::Exact exact = laptop::exact(cover);
    if (!exact.best.empty()) add(std::move(name), laptop::removed(cover, exact.best[0]), layout);
  }

  // The price of the layout.
  void add_any() { add_exact("exact, any layout", free_cover(found_.values), "any"); }

  // What a stock config could say instead, where it cannot say the chosen plan.
  void add_nearest() {
    if (found_.chosen.expressible || task_.options.layout != "any" || !found_.beside.empty()) return;
    const unet::Near near = unet::nearest(task_.subject.opened().checkpoint.config, task_.subject.blueprint(),
                                          laptop::sites_of(found_.candidates, found_.chosen.removed),
                                          {.wiring = unet::Wiring::stock});
    add("nearest with a stock config", indices_of(found_.candidates, near.removed), "stock");
  }

  // By the error of the clean picture, or by the output where that is the criterion.
  void add_judged_otherwise() {
    const bool clean = found_.criterion == Criterion::clean;
    const std::string& layout = task_.options.layout;
    add_exact(clean ? kByOutput : kByClean,
              cover_for(task_, found_, layout,
                        values_by(task_, found_, clean ? Criterion::output : Criterion::clean)),
              layout);
  }

  void add_random() {
    const int64_t count = task_.options.random_plans;
    std::vector<PlanRow> plans;
    for (int64_t k = 0; k < count; ++k) {
      const auto seed = static_cast<uint64_t>(task_.options.seed + 100 + k);
      const Cover cover = free_cover(laptop::drawn(found_.candidates.size(), seed));
      const std::optional<Choice> choice = laptop::random_choice(cover, seed);
      if (!choice) continue;
      plans.push_back(row("", laptop::removed(cover, *choice), "any"));
      losses_.measure(plans.back());
      task_.tick("random plans", k + 1, count, plans.back().joint);
    }
    if (plans.empty()) return;
    std::ranges::sort(plans, {}, &PlanRow::joint);
    plans[plans.size() / 2].name = fmt::format("random, median of {}", plans.size());
    PlanRow best = plans.front();
    best.name = fmt::format("random, best of {}", plans.size());
    found_.others.push_back(best);
    found_.others.push_back(plans[plans.size() / 2]);
  }

  // BK-SDM's cut, and ours at each of its budgets.
  void add_handcrafted() {
    const std::string& name = task_.options.cut;
    std::vector<int> removed;
    try {
      removed = indices_of(found_.candidates, laptop::handcrafted(task_.subject.blueprint(), name));
    } catch (const Error&) {
      return;  // stages of other sizes: there is no such cut
    }
    PlanRow cut = row(name + ", its config", removed, "stock");
    add(name + ", parts skipped", removed, "any");
    const std::vector<int64_t> saved = cut.saved;
    if (cut.expressible) {
      found_.others.push_back(std::move(cut));
      losses_.measure(found_.others.back());
    }
    for (size_t a = 0; a < found_.prices.axes.size(); ++a) {
      Cover cover = free_cover(found_.values);
      std::ranges::fill(cover.least, 0);
      cover.least[a] = saved[a];
      add_exact(fmt::format("exact, at its {}", found_.prices.axes[a]), cover, "any");
    }
  }

  const UnetTask& task_;
  UnetFound found_;
  PlanLosses& losses_;
};

std::vector<laptop::Predictor> predictors_of(const UnetTask& task, const UnetFound& found) {
  std::vector<laptop::Predictor> predictors;
  for (const std::string& name : laptop::criterion_names()) {
    const Criterion criterion = laptop::criterion_from_name(name);
    const auto& all = found.scores.all;
    if ((criterion == Criterion::task || criterion == Criterion::taylor) && all.task.empty()) continue;
    if (criterion == Criterion::guided && all.guided.empty()) continue;
    if (criterion == Criterion::score && task.options.scorer.empty()) continue;
    if (criterion == Criterion::trajectory && !task.subject.painter) continue;
    predictors.push_back(laptop::sum_of(name, values_by(task, found, criterion)));
  }
  predictors.push_back(laptop::squared_norms("(sum of norms)^2", values_by(task, found, Criterion::output)));
  predictors.push_back(laptop::superposition(found.scores));
  return predictors;
}

// Parts spread over the ranks of what they are worth, so that cheap and dear ones are among them.
std::vector<int> spread(const std::vector<double>& values, int64_t asked) {
  std::vector<int> ranked(values.size()), few;
  for (size_t i = 0; i < ranked.size(); ++i) ranked[i] = static_cast<int>(i);
  std::ranges::sort(ranked, {}, [&](int i) { return values[static_cast<size_t>(i)]; });
  const auto count = std::min<size_t>(ranked.size(), static_cast<size_t>(asked));
  for (size_t k = 0; k < count; ++k) few.push_back(ranked[k * ranked.size() / count]);
  return few;
}

}  // namespace

UnetFound with_other_plans(const UnetTask& task, UnetFound found, const Cover& cover, PlanLosses& losses) {
  return Others(task, std::move(found), losses).with(cover);
}

UnetFound with_frontiers(const UnetTask& task, UnetFound found) {
  constexpr int64_t kPoints = 48;
  std::vector<std::string> layouts = {"any"};
  if (layout_from_name(task.options.layout)) layouts.push_back(task.options.layout);
  for (size_t a = 0; a < found.prices.axes.size(); ++a) {
    for (const std::string& layout : layouts) {
      const Cover cover = cover_for(task, found, layout, found.values);
      const laptop::Frontier frontier(cover, {.axis = a});
      found.frontiers.push_back({.name = layout == "any" ? "any plan" : layout,
                                 .axis = a,
                                 .exact = frontier.exact(),
                                 .points = frontier.sampled(kPoints)});
    }
  }
  return found;
}

UnetFound with_trajectories(const UnetTask& task, UnetFound found) {
  if (task.options.trajectory <= 0) return found;
  std::vector<PlanRow*> rows;
  if (found.beside.empty()) rows.push_back(&found.chosen);  // else skipping its parts is not what it does
  for (PlanRow& other : found.others)
    if (!other.name.starts_with("random") && !other.name.starts_with("greedy")) rows.push_back(&other);
  Trajectories trajectories(task, found.candidates, Trajectories::Prompts::shown);
  int64_t done = 0;
  for (PlanRow* plan : rows) {
    plan->trajectory = trajectories.of(plan->removed, plan->layout);
    task.tick("trajectories", ++done, static_cast<int64_t>(rows.size()), NAN);
  }
  return found;
}

UnetFound with_study(const UnetTask& task, UnetFound found, PlanLosses& losses) {
  const UnetOptions& options = task.options;
  const laptop::Truth truth = [&](std::span<const int> removed) {
    PlanRow row{.name = {}, .removed = {removed.begin(), removed.end()}};
    losses.measure(row);
    return row.joint;
  };
  if (options.study > 0) {
    const auto parts = static_cast<int>(found.candidates.size());
    found.study = laptop::study(parts, predictors_of(task, found), truth,
                                {.plans = options.study,
                                 .least = std::min(2, parts),
                                 .most = std::min(14, parts),
                                 .seed = static_cast<uint64_t>(options.seed)},
                                task.watch);
  }
  if (options.subsets > 0) {
    std::vector<int64_t> weights;
    for (Site site : found.candidates) weights.push_back(found.prices.saved(std::span(&site, 1))[0]);
    const std::vector<double> budgets = {0.25, 0.5, 0.75};
    found.subsets = laptop::brute_force(spread(found.values, options.subsets), found.values, weights, budgets,
                                        truth, task.watch);
  }
  return found;
}

}  // namespace lamina::cli
