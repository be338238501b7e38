#include "lamina/methods/asdm/propose_times.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/methods/asdm/regional.h"

namespace lamina::asdm {

namespace {

using Clock = std::chrono::steady_clock;

// Of a repeat the quickest of so many steps counts: they are shorter than the turns that other processes get.
constexpr int kTries = 4;

double milliseconds_since(Clock::time_point from) {
  return std::chrono::duration<double, std::milli>(Clock::now() - from).count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double step_milliseconds(const Model& model, const Stream& before, Site site, Tap& tap) {
  Stream stream = before;
  const auto from = Clock::now();
  model.step(stream, site, tap);
  return milliseconds_since(from);
}

// That the step takes less by with `tap`.
double step_saved(const Model& model, const Stream& before, Site site, Tap& tap) {
  Tap none;
  double whole = INFINITY, with = INFINITY;
  for (int k = 0; k < kTries; ++k) {
    const bool first = k % 2 == 0;  // each is as often the first
    if (first) whole = std::min(whole, step_milliseconds(model, before, site, none));
    with = std::min(with, step_milliseconds(model, before, site, tap));
    if (!first) whole = std::min(whole, step_milliseconds(model, before, site, none));
  }
  return whole - with;
}

}  // namespace

std::vector<double> milliseconds_saved(const Model& model, std::span<const Regional> edits,
                                       const Inputs& inputs, int repeats, const Watch& watch) {
  const InferenceMode evaluating;
  std::vector<size_t> order(edits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) { return model.blueprint().site(edits[i].site).index; });
  std::vector<double> saved(edits.size());
  Tap none;
  Stream stream = model.begin(inputs);
  int at = 0;
  for (size_t n = 0; n < order.size(); ++n) {
    if (watch.stop.stop_requested()) throw Stopped{};
    const Regional& edit = edits[order[n]];
    const Site site = model.blueprint().site(edit.site);
    for (; at < site.index; ++at) model.step(stream, {at}, none);
    Preview windows(model.blueprint(), {.edits = {edit}});
    std::vector<double> differences;
    for (int k = 0; k < repeats; ++k) differences.push_back(step_saved(model, stream, site, windows));
    saved[order[n]] = median(std::move(differences));
    watch.report({.phase = "milliseconds of windows",
                  .done = static_cast<double>(n + 1),
                  .total = static_cast<double>(order.size()),
                  .detail = edit.site});
  }
  return saved;
}

double milliseconds_by_steps(const Model& model, const Inputs& inputs, int repeats, const Watch& watch) {
  const InferenceMode evaluating;
  Tap none;
  const int parts = static_cast<int>(model.blueprint().parts.size());
  const auto quickest = [](const auto& work) {
    double least = INFINITY;
    for (int k = 0; k < kTries; ++k) {
      const auto from = Clock::now();
      work();
      least = std::min(least, milliseconds_since(from));
    }
    return least;
  };
  std::vector<double> sums;
  for (int k = 0; k < repeats; ++k) {
    if (watch.stop.stop_requested()) throw Stopped{};
    double sum = quickest([&] { model.begin(inputs); });
    Stream stream = model.begin(inputs);
    for (int at = 0; at < parts; ++at) {
      double least = INFINITY;
      for (int t = 0; t < kTries; ++t) least = std::min(least, step_milliseconds(model, stream, {at}, none));
      sum += least;
      model.step(stream, {at}, none);
    }
    sums.push_back(sum + quickest([&] { model.finish(stream, none); }));
  }
  return median(std::move(sums));
}

Turns passes_by_turns(std::span<const Model* const> models, const Inputs& inputs, int repeats,
                      const Watch& watch) {
  if (models.empty()) fail("passes are measured of models, and there is none");
  const InferenceMode evaluating;
  std::vector<std::vector<double>> taken(models.size()), shares(models.size());
  std::vector<double> turn(models.size());
  for (int k = 0; k <= repeats; ++k) {
    for (size_t n = 0; n < models.size(); ++n) {
      if (watch.stop.stop_requested()) throw Stopped{};
      const size_t m = k % 2 == 0 ? n : models.size() - 1 - n;  // none is always the first behind another
      const auto from = Clock::now();
      models[m]->run(inputs);
      turn[m] = milliseconds_since(from);
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
  Turns turns;
  for (size_t m = 0; m < models.size(); ++m) {
    turns.milliseconds.push_back(median(std::move(taken[m])));
    turns.shares.push_back(median(std::move(shares[m])));
  }
  return turns;
}

}  // namespace lamina::asdm
