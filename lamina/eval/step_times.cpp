#include "lamina/eval/step_times.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "lamina/base/error.h"

namespace lamina {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTries = 4;
// A step as long as this is interrupted in any case: to try it again would not help.
constexpr double kLong = 25;

double milliseconds_since(Clock::time_point from) {
  return std::chrono::duration<double, std::milli>(Clock::now() - from).count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double once(const std::function<void()>& work) {
  const auto from = Clock::now();
  work();
  return milliseconds_since(from);
}

// Of what gives its milliseconds.
double quickest(const std::function<double()>& timed) {
  double least = timed();
  for (int k = 1; k < kTries && least < kLong; ++k) least = std::min(least, timed());
  return least;
}

double step_milliseconds(const Model& model, const Stream& before, Site site, Tap& tap) {
  Stream stream = before;
  return once([&] { model.step(stream, site, tap); });
}

double saved_once(const Model& model, const Stream& before, const StepChange& change) {
  Tap none;
  double whole = INFINITY, with = INFINITY;
  for (int k = 0; k < kTries; ++k) {
    const bool first = k % 2 == 0;  // each is as often the first
    if (first) whole = std::min(whole, step_milliseconds(model, before, change.site, none));
    with = std::min(with, step_milliseconds(model, before, change.site, *change.tap));
    if (!first) whole = std::min(whole, step_milliseconds(model, before, change.site, none));
    if (std::max(whole, with) >= kLong) break;
  }
  return whole - with;
}

}  // namespace

std::vector<double> milliseconds_saved(const Model& model, std::span<const StepChange> changes,
                                       const Inputs& inputs, int repeats, std::string_view phase,
                                       const Watch& watch) {
  const InferenceMode evaluating;
  std::vector<size_t> order(changes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) { return changes[i].site.index; });
  std::vector<double> saved(changes.size());
  Tap none;
  model.run(inputs, none);  // has the weights in memory
  Stream stream = model.begin(inputs);
  int at = 0;
  for (size_t n = 0; n < order.size(); ++n) {
    const StepChange& change = changes[order[n]];
    for (; at < change.site.index; ++at) model.step(stream, {at}, none);
    std::vector<double> differences;
    for (int k = 0; k < repeats; ++k) {
      if (watch.stop.stop_requested()) throw Stopped{};
      differences.push_back(saved_once(model, stream, change));
    }
    saved[order[n]] = median(std::move(differences));
    watch.report({.phase = std::string(phase),
                  .done = static_cast<double>(n + 1),
                  .total = static_cast<double>(order.size()),
                  .detail = model.blueprint().part(change.site).label()});
  }
  return saved;
}

double milliseconds_by_steps(const Model& model, const Inputs& inputs, int repeats, const Watch& watch) {
  const InferenceMode evaluating;
  Tap none;
  const int parts = static_cast<int>(model.blueprint().parts.size());
  std::vector<double> sums;
  for (int k = 0; k < repeats; ++k) {
    Stream stream;
    double sum = quickest([&] { return once([&] { stream = model.begin(inputs); }); });
    for (int at = 0; at < parts; ++at) {
      if (watch.stop.stop_requested()) throw Stopped{};
      sum += quickest([&] { return step_milliseconds(model, stream, {at}, none); });
      model.step(stream, {at}, none);
    }
    sums.push_back(sum + quickest([&] { return once([&] { model.finish(stream, none); }); }));
    watch.report({.phase = "milliseconds of a pass",
                  .done = static_cast<double>(k + 1),
                  .total = static_cast<double>(repeats),
                  .detail = ""});
  }
  return median(std::move(sums));
}

PassTurns passes_by_turns(std::span<const Model* const> models, const Inputs& inputs, int repeats,
                          const Watch& watch) {
  if (models.empty()) fail("passes are measured of models, and there is none");
  const InferenceMode evaluating;
  std::vector<std::vector<double>> taken(models.size()), shares(models.size());
  std::vector<double> turn(models.size());
  for (int k = 0; k <= repeats; ++k) {
    for (size_t n = 0; n < models.size(); ++n) {
      if (watch.stop.stop_requested()) throw Stopped{};
      const size_t m = k % 2 == 0 ? n : models.size() - 1 - n;  // none is always the first behind another
      turn[m] = once([&] { models[m]->run(inputs); });
    }
    if (k == 0) continue;  // warms up
    for (size_t m = 0; m < models.size(); ++m) {
      taken[m].push_back(turn[m]);
      shares[m].push_back(turn[m] / turn[0]);
    }
    watch.report({.phase = "milliseconds of the plan",
                  .done = static_cast<double>(k),
                  .total = static_cast<double>(repeats),
                  .detail = ""});
  }
  PassTurns turns;
  for (size_t m = 0; m < models.size(); ++m) {
    turns.milliseconds.push_back(median(std::move(taken[m])));
    turns.shares.push_back(median(std::move(shares[m])));
  }
  return turns;
}

}  // namespace lamina
