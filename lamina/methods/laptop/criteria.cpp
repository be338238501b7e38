#include "lamina/methods/laptop/criteria.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "lamina/base/error.h"
#include "lamina/base/random.h"
#include "lamina/base/text.h"
#include "lamina/models/registry.h"
#include "lamina/tensor/autograd.h"

namespace lamina::laptop {

namespace {

struct Name {
  Criterion criterion;
  std::string_view name;
};
constexpr Name kNames[] = {{Criterion::output, "output"},         {Criterion::task, "task"},
                           {Criterion::guided, "guided"},         {Criterion::time_weighted, "time-weighted"},
                           {Criterion::clean, "clean"},           {Criterion::influence, "influence"},
                           {Criterion::magnitude, "magnitude"},   {Criterion::taylor, "taylor"},
                           {Criterion::trajectory, "trajectory"}, {Criterion::score, "score"},
                           {Criterion::random, "random"}};

std::vector<double> plain_means(const BatchScores::PerSample& values) {
  std::vector<double> list;
  for (const Mean& m : means(values)) list.push_back(std::max(0.0, m.value));
  return list;
}

// What was made under inference mode cannot be kept for a gradient; a copy can.
Inputs copied(const Inputs& inputs) {
  Inputs copy{.sample = inputs.sample.clone(), .time = inputs.time.clone(), .text = inputs.text.clone()};
  for (const auto& [name, tensor] : inputs.added) copy.added[name] = tensor.clone();
  return copy;
}

// |x0' - x0|^2 for each |said' - said|^2 at this time.
double clean_share(const NoiseSchedule& schedule, double time) {
  const double bar = schedule.alpha_bar.at(static_cast<size_t>(time));
  switch (schedule.prediction) {
    case Prediction::epsilon:
      return (1 - bar) / bar;
    case Prediction::v:
      return 1 - bar;
    case Prediction::sample:
      break;
  }
  return 1;
}

}  // namespace

std::string_view criterion_name(Criterion criterion) {
  return std::ranges::find(kNames, criterion, &Name::criterion)->name;
}

std::vector<std::string> criterion_names() {
  std::vector<std::string> names;
  for (const Name& entry : kNames) names.emplace_back(entry.name);
  return names;
}

Criterion criterion_from_name(std::string_view name) {
  for (const Name& entry : kNames)
    if (entry.name == name) return entry.criterion;
  fail("{} is no criterion; {} are", in_quotes(name), fmt::join(criterion_names(), ", "));
}

bool reads_scores(Criterion criterion) {
  return criterion != Criterion::magnitude && criterion != Criterion::taylor &&
         criterion != Criterion::trajectory && criterion != Criterion::score &&
         criterion != Criterion::random;
}

std::vector<double> weighed(Criterion criterion, std::span<const double> losses,
                            std::span<const double> times, const NoiseSchedule& schedule) {
  const auto weight = [&](double time) {
    switch (criterion) {
      case Criterion::time_weighted:
        return (time + 1) / static_cast<double>(schedule.steps());
      case Criterion::clean:
        return clean_share(schedule, time);
      default:
        return 1.0;
    }
  };
  double sum = 0;
  for (double time : times) sum += weight(time);
  const double mean = sum / static_cast<double>(times.size());
  std::vector<double> values;
  for (size_t s = 0; s < losses.size(); ++s) values.push_back(losses[s] * weight(times[s]) / mean);
  return values;
}

std::optional<Criterion> loss_of_plans(Criterion criterion) {
  switch (criterion) {
    case Criterion::time_weighted:
    case Criterion::clean:
    case Criterion::trajectory:
      return criterion;
    case Criterion::score:
      return std::nullopt;
    default:
      return Criterion::output;
  }
}

std::vector<double> values_of(const Scores& scores, Criterion criterion, const NoiseSchedule& schedule) {
  switch (criterion) {
    case Criterion::output:
      return plain_means(scores.all.output);
    case Criterion::task:
      if (scores.all.task.empty())
        fail("the criterion task needs to know what the denoiser is to say, and these samples do not");
      return plain_means(scores.all.task);
    case Criterion::guided:
      if (scores.all.guided.empty())
        fail("the criterion guided needs samples with and without their text, and these have one");
      return plain_means(scores.all.guided);
    case Criterion::influence:
      return plain_means(scores.all.influence);
    case Criterion::time_weighted:
    case Criterion::clean: {
      BatchScores::PerSample values;
      for (const std::vector<double>& row : scores.all.output)
        values.push_back(weighed(criterion, row, scores.all.times, schedule));
      return plain_means(values);
    }
    case Criterion::magnitude:
    case Criterion::taylor:
    case Criterion::trajectory:
    case Criterion::score:
    case Criterion::random:
      break;
  }
  fail("the criterion {} is not made from scores", criterion_name(criterion));
}

std::vector<double> magnitudes(const Checkpoint& checkpoint, const Blueprint& blueprint,
                               std::span<const Site> candidates) {
  const InferenceMode evaluating;
  std::vector<double> squares(blueprint.parts.size(), 0), counts(blueprint.parts.size(), 0);
  for (const Slot& slot : blueprint.slots) {
    if (slot.part < 0) continue;
    const Stored* stored = checkpoint.find(slot.name);
    if (!stored) continue;
    const auto part = static_cast<size_t>(slot.part);
    squares[part] += load(*stored, at::kFloat).square().sum(at::kDouble).item<double>();
    counts[part] += static_cast<double>(stored->elements());
  }
  std::vector<double> values;
  for (Site site : candidates) {
    const auto part = static_cast<size_t>(site.index);
    values.push_back(counts[part] > 0 ? squares[part] / counts[part] : 0);
  }
  return values;
}

std::vector<double> taylor(const Opened& opened, std::span<const Site> candidates,
                           const Calibration& calibration, const Watch& watch) {
  const InferenceMode off(false);
  const Blueprint& blueprint = opened.blueprint;
  Weights::Options options;
  std::vector<std::pair<int, Tensor>> leaves;  // of which part
  for (const Slot& slot : blueprint.slots) {
    if (slot.part < 0) continue;
    const Tensor leaf = load(*opened.checkpoint.find(slot.name), at::kFloat).detach().set_requires_grad(true);
    options.trained[slot.name] = leaf;
    leaves.emplace_back(slot.part, leaf);
  }
  const std::unique_ptr<Model> model = build_model(opened, std::move(options));
  double done = 0;
  for (const CalibrationBatch& batch : calibration.batches) {
    if (watch.stop.stop_requested()) throw Stopped{};
    if (!batch.target.defined())
      fail("the criterion taylor needs to know what the denoiser is to say, and these samples do not");
    const Tensor loss =
        (model->run(copied(batch.inputs)) - batch.target.clone()).square().flatten(1).mean(1).sum();
    torch::autograd::backward({loss});
    watch.report({.phase = "gradients",
                  .done = ++done,
                  .total = static_cast<double>(calibration.batches.size()),
                  .detail = ""});
  }
  std::vector<double> sums(blueprint.parts.size(), 0);
  for (const auto& [part, leaf] : leaves) {
    if (leaf.grad().defined())
      sums[static_cast<size_t>(part)] += (leaf.grad() * leaf.detach()).sum(at::kDouble).item<double>();
  }
  std::vector<double> values;
  for (Site site : candidates)
    values.push_back(std::abs(sums[static_cast<size_t>(site.index)]) /
                     static_cast<double>(calibration.samples()));
  return values;
}

std::vector<double> drawn(size_t candidates, uint64_t seed) {
  SplitMix random(seed);
  std::vector<double> values;
  for (size_t i = 0; i < candidates; ++i) values.push_back(random.uniform());
  return values;
}

std::vector<double> changes_without(std::span<const Site> candidates,
                                    const std::function<double(std::span<const Site>)>& changed,
                                    const Watch& watch) {
  std::vector<double> values;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (watch.stop.stop_requested()) throw Stopped{};
    values.push_back(changed(candidates.subspan(i, 1)));
    watch.report({.phase = "pictures without parts",
                  .done = static_cast<double>(i + 1),
                  .total = static_cast<double>(candidates.size()),
                  .detail = ""});
  }
  return values;
}

std::vector<double> score_drops(std::span<const Site> candidates,
                                const std::function<double(std::span<const Site>)>& score,
                                const Watch& watch) {
  const double whole = score({});
  return changes_without(
      candidates, [&](std::span<const Site> removed) { return std::max(0.0, whole - score(removed)); },
      watch);
}

}  // namespace lamina::laptop
