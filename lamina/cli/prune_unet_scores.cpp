// What each part of a denoiser is worth and what goes with it: scores, criteria, milliseconds, prices.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <map>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/prune_unet_search.h"
#include "lamina/eval/scene_trial.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

namespace {

using Clock = std::chrono::steady_clock;
using laptop::Criterion;

// The scores of one batch, measured, as the journal keeps them.
Json measured_scores(const UnetTask& task, std::span<const Site> candidates, size_t batch) {
  const auto batches = static_cast<double>(task.data.scoring.batches.size());
  Watch inside = task.watch;
  inside.tick = [&](const Tick& tick) {
    task.watch.report({.phase = "scores",
                       .done = static_cast<double>(batch) + tick.done / tick.total,
                       .total = batches,
                       .detail = tick.detail});
  };
  const auto from = Clock::now();
  const std::clock_t processor = std::clock();
  const laptop::BatchScores scores =
      laptop::score(task.subject.model(), candidates, task.data.scoring.batches[batch],
                    {.rows = task.options.rows, .guidance = task.options.cfg}, inside);
  const double spent = std::chrono::duration<double>(Clock::now() - from).count();
  const double worked = static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC;
  return {{"scores", laptop::to_json(scores)}, {"seconds", spent}, {"processor", worked}};
}

// By how much less sure a scorer is of what captions say, of pictures that are drawn without each part.
std::vector<double> picture_drops(const UnetTask& task, std::span<const Site> candidates) {
  const UnetOptions& options = task.options;
  const Painter& painter = *task.subject.painter;
  const std::unique_ptr<Model> scorer = build_model(open(options.scorer));
  const SceneTrial trial = scene_trial({.seed = static_cast<uint64_t>(options.seed),
                                        .split = scene::Split::validation,
                                        .side = painter.autoencoder().factor() * task.subject.height},
                                       0, options.scored_pictures);
  const auto sure = [&](std::span<const Site> removed) {
    Skip skip = without(task.subject.model(), removed);
    Tapped denoiser(task.subject.model(), skip);
    DrawScenes drawing{.steps = options.trajectory_steps, .guidance = options.cfg};
    drawing.watch.stop = task.watch.stop;
    return scene_likelihood(*scorer, draw_scenes(painter, denoiser, trial.captions, drawing).pixels,
                            trial.said);
  };
  return laptop::score_drops(candidates, sure, task.watch);
}

}  // namespace

int64_t least_of(const std::string& text, std::string_view flag, int64_t whole) {
  if (text.empty()) return 0;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || std::string_view(end) != "%" || !(value > 0) || value > 100)
    fail("--{} {}: a share that is kept at most is expected, such as 50%", flag, in_quotes(text));
  return whole - static_cast<int64_t>(std::floor(static_cast<double>(whole) * value / 100));
}

UnetFound scored(const UnetTask& task) {
  UnetFound found{.criterion = laptop::criterion_from_name(task.options.criterion),
                  .candidates = laptop::candidates_of(task.subject.blueprint())};
  std::vector<laptop::BatchScores> scores;
  double seconds = 0, processor_seconds = 0;
  for (size_t b = 0; b < task.data.scoring.batches.size(); ++b) {
    const std::string key = fmt::format("scores {}", b);
    if (!task.journal.find(key)) {
      if (task.watch.stop.stop_requested()) throw Stopped{};
      task.journal.add(key, measured_scores(task, found.candidates, b));
    }
    const Json& done = *task.journal.find(key);
    scores.push_back(
        laptop::batch_scores_from_json(done.at("scores"), found.candidates.size(), "the journal"));
    seconds += done.at("seconds").get<double>();
    processor_seconds += done.at("processor").get<double>();
  }
  found.scores = laptop::gathered(found.candidates, scores);
  found.seconds.emplace_back("scores", seconds);  // of runs that were resumed too
  found.seconds.emplace_back("scores, of the processor", processor_seconds);
  return found;
}

laptop::Times times_of(const UnetTask& task, const UnetFound& found) {
  if (!task.journal.find("times")) {
    const laptop::Times measured =
        laptop::measured_times(task.subject.model(), found.candidates, task.data.scoring.batches[0].inputs,
                               static_cast<int>(task.options.repeats), task.watch);
    task.journal.add("times", {{"saved", measured.saved}, {"whole", measured.whole}});
  }
  const Json& done = *task.journal.find("times");
  laptop::Times times{.saved = done.at("saved").get<std::vector<double>>(),
                      .whole = done.at("whole").get<double>()};
  // Blocks of one transformer do the same work: what differs is the clock.
  for (const Wrapper& wrapper : task.subject.blueprint().wrappers) {
    std::vector<size_t> inside;
    double sum = 0;
    for (size_t i = 0; i < found.candidates.size(); ++i) {
      if (std::ranges::find(wrapper.parts, found.candidates[i].index) == wrapper.parts.end()) continue;
      inside.push_back(i);
      sum += times.saved[i];
    }
    for (size_t i : inside) times.saved[i] = sum / static_cast<double>(inside.size());
  }
  return times;
}

laptop::Prices prices_of(const UnetTask& task, const UnetFound& found) {
  const Blueprint& blueprint = task.subject.blueprint();
  const unet::Shape2d shape = task.shape();
  const double whole_macs = unet::macs(task.subject.config, blueprint, shape).total();
  std::map<int, double> milliseconds;
  for (size_t i = 0; i < found.candidates.size(); ++i)
    milliseconds[found.candidates[i].index] = found.times.saved[i];
  const auto saved = [&config = task.subject.config, &blueprint, shape, whole_macs,
                      milliseconds](std::span<const Site> sites) {
    Blueprint without = blueprint;
    double ms = 0;
    for (Site site : sites) {
      without.parts[static_cast<size_t>(site.index)].present = false;
      if (const auto it = milliseconds.find(site.index); it != milliseconds.end()) ms += it->second;
    }
    return std::vector<int64_t>{
        unet::parameters_saved(blueprint, {sites.begin(), sites.end()}),
        static_cast<int64_t>(whole_macs - unet::macs(config, without, shape).total() + 0.5),
        static_cast<int64_t>(ms * 1e6)};
  };
  return {.axes = {"params", "macs", "ms"},
          .whole = {blueprint.parameters(), static_cast<int64_t>(whole_macs + 0.5),
                    static_cast<int64_t>(found.times.whole * 1e6)},
          .saved = saved};
}

std::vector<double> values_by(const UnetTask& task, const UnetFound& found, Criterion criterion) {
  if (laptop::reads_scores(criterion))
    return laptop::values_of(found.scores, criterion, task.subject.schedule);
  if (criterion == Criterion::random)
    return laptop::drawn(found.candidates.size(), static_cast<uint64_t>(task.options.seed));
  const Subject& subject = task.subject;
  if (criterion == Criterion::magnitude)
    return laptop::magnitudes(subject.opened().checkpoint, subject.blueprint(), found.candidates);
  const std::string name{laptop::criterion_name(criterion)};
  if (const Json* done = task.journal.find(name)) return done->get<std::vector<double>>();
  std::vector<double> values;
  if (criterion == Criterion::score) {
    values = picture_drops(task, found.candidates);
  } else if (criterion == Criterion::trajectory) {
    Trajectories trajectories(task, found.candidates, Trajectories::Prompts::tried);
    const auto changed = [&](std::span<const Site> removed) {
      return trajectories.of(indices_of(found.candidates, removed), "any");
    };
    values = laptop::changes_without(found.candidates, changed, task.watch);
  } else {
    values = laptop::taylor(subject.opened(), found.candidates, task.data.scoring, task.watch);
  }
  task.journal.add(name, values);
  return values;
}

}  // namespace lamina::cli
