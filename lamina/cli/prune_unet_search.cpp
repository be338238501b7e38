// From samples to a cut: the order of the pieces, and how long each took.
#include "lamina/cli/prune_unet_search.h"

#include <chrono>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::cli {

using Clock = std::chrono::steady_clock;

void check_asked(const Subject& subject, const UnetOptions& options) {
  const Blueprint& blueprint = subject.blueprint();
  const std::vector<Site> all = blueprint.present();
  if (all.empty()) fail("{}: has no part that could go", subject.name());
  const bool asks = laptop::criterion_from_name(options.criterion) == laptop::Criterion::score;
  if (asks && options.scorer.empty()) fail("--criterion score: asks a scorer; name its folder with --scorer");
  if (laptop::criterion_from_name(options.criterion) == laptop::Criterion::trajectory && !subject.painter)
    fail("--criterion trajectory: sees pictures, and {} draws none alone; give the whole pipeline",
         subject.name());
  if (!options.scorer.empty() && !subject.painter)
    fail("--scorer: sees pictures, and {} draws none alone; give the whole pipeline", subject.name());
  if (!options.scorer.empty()) open(options.scorer);
  if (options.method == "bk-sdm") laptop::handcrafted(blueprint, options.cut);
  if (const auto layout = layout_from_name(options.layout))
    unet::choices(subject.opened().checkpoint.config, blueprint, *layout);
  const int64_t whole = blueprint.parameters(), most = unet::parameters_saved(blueprint, all),
                least = least_of(options.params, "params", whole);
  least_of(options.macs, "macs", whole);
  least_of(options.ms, "ms", whole);
  if (least > most)
    fail("--params {}: when all goes that can, {:.1f} % of the parameters stay", options.params,
         100 * (1 - static_cast<double>(most) / static_cast<double>(whole)));
  const int budgets = !options.params.empty() + !options.macs.empty() + !options.ms.empty();
  if (options.solver == "dynamic" && budgets > 1)
    fail("--solver dynamic: is for one budget; exact solves several at once");
}

UnetFound find_cut(const Subject& subject, const UnetData& data, const UnetOptions& options,
                   UnetJournal& journal, const Watch& watch) {
  const UnetTask task{subject, data, options, journal, watch};
  UnetFound found = scored(task);
  Clock::time_point started = Clock::now();
  const auto lap = [&](std::string phase) {
    const auto now = Clock::now();
    found.seconds.emplace_back(std::move(phase), std::chrono::duration<double>(now - started).count());
    started = now;
  };
  found.times = times_of(task, found);
  lap("milliseconds of the parts");
  found.prices = prices_of(task, found);
  const std::vector<int64_t>& whole = found.prices.whole;
  found.least = {least_of(options.params, "params", whole[0]), least_of(options.macs, "macs", whole[1]),
                 least_of(options.ms, "ms", whole[2])};
  found.values = values_by(task, found, found.criterion);
  lap("criterion");
  const laptop::Cover cover = cover_for(task, found, options.layout, found.values);
  PlanLosses losses(task, found.candidates);
  found = options.method == "asdm" ? choose_asdm(task, std::move(found), losses)
                                   : choose(task, std::move(found), cover, losses);
  lap("plans");
  found = with_other_plans(task, std::move(found), cover, losses);
  lap("plans beside it");
  found = with_frontiers(task, std::move(found));
  lap("frontiers");
  found = with_trajectories(task, std::move(found));
  lap("trajectories");
  found = with_study(task, std::move(found), losses);
  lap("study of the sum");
  found.true_losses = losses.measured();
  return found;
}

}  // namespace lamina::cli
