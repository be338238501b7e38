#include "lamina/search/greedy.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/search/impl/race.h"

namespace lamina {

namespace {

template <class T>
using Names = std::pair<std::string_view, T>;
constexpr Names<Units> kUnits[] = {
    {"both", Units::both}, {"attention", Units::attention}, {"mlp", Units::mlp}, {"block", Units::block}};
constexpr Names<Search> kSearches[] = {
    {"cached", Search::cached}, {"naive", Search::naive}, {"one-shot", Search::one_shot}};

// Scores closer than this are told apart by the naive evaluation.
constexpr double kNear = 1e-6;

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Tensor ids_tensor(const std::vector<int32_t>& ids) {
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0);
}

// The first of the smallest, in canonical order.
const Step::Candidate& smallest(const std::vector<Step::Candidate>& candidates) {
  return *std::ranges::min_element(candidates, {},
                                   [](const Step::Candidate& c) { return std::pair(!c.complete, c.score); });
}

}  // namespace

std::string_view units_name(Units units) {
  return std::ranges::find(kUnits, units, &Names<Units>::second)->first;
}
std::string_view search_name(Search search) {
  return std::ranges::find(kSearches, search, &Names<Search>::second)->first;
}

Units units_from_name(std::string_view name) {
  const auto it = std::ranges::find(kUnits, name, &Names<Units>::first);
  if (it == std::end(kUnits))
    fail("{} is no kind of unit; both, attention, mlp and block are", in_quotes(name));
  return it->second;
}

Search search_from_name(std::string_view name) {
  const auto it = std::ranges::find(kSearches, name, &Names<Search>::first);
  if (it == std::end(kSearches))
    fail("{} is no way to search; cached, naive and one-shot are", in_quotes(name));
  return it->second;
}

std::vector<Unit> units_of(const Blueprint& blueprint, Units units) {
  std::vector<Unit> all;
  for (Site site : blueprint.present()) {
    const Part& part = blueprint.part(site);
    if (units == Units::block) {
      if (all.empty() || all.back().block != part.block)
        all.push_back({.sites = {}, .block = part.block, .label = fmt::format("B{}", part.block)});
      all.back().sites.push_back(site);
    } else if (units == Units::both || (units == Units::attention) == (part.kind == Kind::attention)) {
      all.push_back({.sites = {site}, .block = part.block, .label = part.label()});
    }
  }
  return all;
}

Schedule Schedule::frozen(int units, double share) {
  return {static_cast<int>(units * share / 2) + 1, static_cast<int>(units * share) + 1};
}

Divergence dense_reference(const Model& model, const std::vector<std::vector<int32_t>>& samples,
                           Divergence::Options options) {
  std::vector<Tensor> hidden;
  Tap none;
  for (const std::vector<int32_t>& ids : samples) {
    Stream stream = model.begin({.ids = ids_tensor(ids)});
    for (Site site : model.blueprint().present()) model.step(stream, site, none);
    hidden.push_back(model.read_out(stream, none).squeeze(0).contiguous());
    if (!at::isfinite(hidden.back()).all().item<bool>())
      fail(
          "the model's own output on the calibration text is not finite; its weights hold NaN or infinity, "
          "or are too "
          "large for float32");
  }
  return Divergence(model.head(), std::move(hidden), samples, options);
}

double score_without(const Model& model, const Divergence& divergence,
                     const std::vector<std::vector<int32_t>>& samples, const std::vector<Site>& sites) {
  Skip skip(model.blueprint());
  for (Site site : sites) skip.add(site);
  double score = 0;
  for (size_t s = 0; s < samples.size(); ++s) {
    Stream stream = model.begin({.ids = ids_tensor(samples[s])});
    for (Site site : model.blueprint().present()) model.step(stream, site, skip);
    score +=
        divergence.term(s, model.read_out(stream, skip).squeeze(0), std::numeric_limits<double>::infinity())
            .value;
  }
  return score;
}

GreedyResult greedy(const Model& model, const std::vector<std::vector<int32_t>>& samples,
                    const GreedyOptions& options, const GreedyHooks& hooks) {
  const InferenceMode evaluating;
  if (samples.empty() || samples[0].empty()) fail("the calibration text gave no sample");
  for (const auto& ids : samples) {
    if (ids.size() != samples[0].size())
      fail("calibration samples must be of one length, but one has {} tokens and one {}", samples[0].size(),
           ids.size());
  }
  GreedyResult result{.units = units_of(model.blueprint(), options.units), .steps = {}, .work = {}};
  const int blocks = model.blueprint().blocks;
  const auto eligible = [&](const Unit& unit) {
    return unit.block >= options.first_barrier && unit.block < blocks - options.last_barrier;
  };
  const auto count = std::ranges::count_if(result.units, eligible);
  size_t parts = 0;
  for (const Unit& unit : result.units) parts += unit.sites.size();
  const bool all_could_go = parts == model.blueprint().present().size() && count == std::ssize(result.units);
  const int64_t most = all_could_go ? count - 1 : count;  // one part at least stays
  if (options.remove < 1 || options.remove > most) {
    fail("{} units were to be removed, but {} of this model can go ({} in all); ask for 1 to {}",
         options.remove, most, result.units.size(), most);
  }

  const auto started = Clock::now();
  const Divergence divergence =
      dense_reference(model, samples, {.metric = options.metric, .bound_from = options.bound_from});
  result.dense = options.metric == Metric::ppl ? divergence.dense() : 0;
  std::optional<Race> race;
  if (options.search == Search::cached)
    race.emplace(model, divergence, samples, result.units,
                 Race::Options{.threads = options.threads, .cache_bytes = options.cache_bytes});

  std::vector<Site> gone;
  std::vector<bool> alive(result.units.size(), true);
  const auto remove = [&](Step step) {
    alive[static_cast<size_t>(step.unit)] = false;
    for (Site site : result.units[static_cast<size_t>(step.unit)].sites) gone.push_back(site);
    result.steps.push_back(std::move(step));
  };
  const auto candidates_now = [&] {
    std::vector<int> candidates;
    for (size_t i = 0; i < result.units.size(); ++i) {
      if (alive[i] && eligible(result.units[i]) &&
          options.schedule.open(result.units[i], static_cast<int>(result.steps.size())))
        candidates.push_back(static_cast<int>(i));
    }
    return candidates;
  };
  const auto naive_score = [&](int unit) {
    std::vector<Site> without = gone;
    for (Site site : result.units[static_cast<size_t>(unit)].sites) without.push_back(site);
    return score_without(model, divergence, samples, without);
  };

  for (const Step& step : hooks.done) {
    if (step.unit < 0 || step.unit >= static_cast<int>(alive.size()) ||
        !alive[static_cast<size_t>(step.unit)])
      fail("the earlier run's steps do not fit this model; start again without --resume");
    if (race) race->remove(step.unit);
    remove(step);
  }
  const double per_step = static_cast<double>(samples.size());
  double total = 0, done = 0;
  for (int k = static_cast<int>(result.steps.size()); k < options.remove; ++k)
    total += per_step * static_cast<double>(result.units.size() - static_cast<size_t>(k));
  while (static_cast<int>(result.steps.size()) < options.remove) {
    const auto step_started = Clock::now();
    const std::vector<int> candidates = candidates_now();
    if (candidates.empty())
      fail("the frozen front leaves no unit to remove after {} steps; lower --freeze", result.steps.size());
    Step step;
    const auto tick = [&](double evaluations, double best, int tried) {
      std::vector<StackCell> stack;
      for (const Part& part : model.blueprint().parts)
        stack.push_back(part.present ? StackCell::kept : StackCell::cut);
      for (Site site : gone) stack[static_cast<size_t>(site.index)] = StackCell::cut;
      for (Site site : result.units[static_cast<size_t>(tried)].sites)
        stack[static_cast<size_t>(site.index)] = StackCell::tried;
      hooks.watch.report(
          {"search", done + std::min(evaluations, per_step * static_cast<double>(candidates.size())), total,
           fmt::format("step {} of {}{}", result.steps.size() + 1, options.remove,
                       std::isfinite(best) ? fmt::format(", best {:.4g}", best) : ""),
           std::move(stack)});
      if (hooks.watch.stop.stop_requested()) throw Stopped{};
    };
    if (options.search == Search::cached) {
      step.candidates = race->run(candidates, {.near = kNear, .tick = tick});
    } else {
      double best = std::numeric_limits<double>::infinity();
      for (int unit : candidates) {
        step.candidates.push_back({unit, naive_score(unit), true});
        best = std::min(best, step.candidates.back().score);
        result.work.evaluations += static_cast<int64_t>(samples.size());
        tick(static_cast<double>(step.candidates.size()) * per_step, best, unit);
      }
    }
    done += per_step * static_cast<double>(result.units.size() - result.steps.size());
    result.work.full_evaluations += static_cast<int64_t>(candidates.size() * samples.size());

    if (options.search == Search::one_shot) {
      std::vector<Step::Candidate> order = step.candidates;
      std::ranges::stable_sort(order, {}, &Step::Candidate::score);
      for (const Step::Candidate& candidate : order) {
        if (static_cast<int>(result.steps.size()) == options.remove) break;
        Step one{.unit = candidate.unit,
                 .score = candidate.score,
                 .candidates = result.steps.empty() ? step.candidates : std::vector<Step::Candidate>{},
                 .seconds = since(step_started)};
        if (hooks.on_step) hooks.on_step(one);
        remove(std::move(one));
      }
      break;
    }

    const Step::Candidate* best = &smallest(step.candidates);
    if (!best->complete || !std::isfinite(best->score))
      fail("after {} removals no candidate leaves a model with finite output; ask for fewer",
           result.steps.size());
    std::vector<Step::Candidate*> near;
    for (Step::Candidate& candidate : step.candidates) {
      if (candidate.complete && candidate.score <= best->score * (1 + kNear)) near.push_back(&candidate);
    }
    if (near.size() > 1 && options.search == Search::cached) {
      for (Step::Candidate* candidate : near) candidate->score = naive_score(candidate->unit);
      best = *std::ranges::min_element(near, {}, [](const Step::Candidate* c) { return c->score; });
    }
    step.unit = best->unit;
    step.score = best->score;
    step.seconds = since(step_started);
    if (race) race->remove(step.unit);
    if (hooks.on_step) hooks.on_step(step);
    remove(std::move(step));
  }
  if (race) {
    const Work work = race->work();
    result.work.matrix_flops = work.matrix_flops;
    result.work.part_tokens = work.part_tokens;
    result.work.head_tokens = work.head_tokens;
    result.work.evaluations = work.evaluations;
  }
  result.work.seconds = since(started);
  return result;
}

}  // namespace lamina
