#include "lamina/methods/laptop/score.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/eval/step_times.h"

namespace lamina::laptop {

namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// One after another along the batch, which is the first axis of all that a denoiser's Stream holds.
Stream joined(const std::vector<Stream>& streams) {
  if (streams.size() == 1) return streams[0];
  const auto all = [&](const auto& of) {
    std::vector<Tensor> list;
    for (const Stream& stream : streams) list.push_back(of(stream));
    return at::cat(list, 0);
  };
  Stream stream = streams[0];
  stream.x = all([](const Stream& s) { return s.x; });
  for (auto& [name, tensor] : stream.shared)
    tensor = all([&key = name](const Stream& s) { return s.shared.at(key); });
  for (size_t i = 0; i < stream.stack.size(); ++i)
    stream.stack[i] = all([i](const Stream& s) { return s.stack[i]; });
  return stream;
}

std::vector<double> per_sample(const Tensor& elements) {
  const Tensor means = elements.flatten(1).mean(1).to(at::kDouble).contiguous();
  return {means.data_ptr<double>(), means.data_ptr<double>() + means.numel()};
}

// How far a part turns the residual, sample by sample.
class Turning : public Tap {
 public:
  explicit Turning(size_t parts) : values_(parts) {}
  void saw(Site site, const Tensor& before, const Tensor& after) override {
    const Tensor a = before.flatten(1).to(at::kDouble), b = after.flatten(1).to(at::kDouble);
    const Tensor cosine = (a * b).sum(1) / (a.norm(2, {1}) * b.norm(2, {1})).clamp_min(1e-30);
    const Tensor turned = (1 - cosine).contiguous();
    values_[static_cast<size_t>(site.index)] = {turned.data_ptr<double>(),
                                                turned.data_ptr<double>() + turned.numel()};
  }
  const std::vector<double>& of(Site site) const { return values_[static_cast<size_t>(site.index)]; }

 private:
  std::vector<std::vector<double>> values_;
};

// Where rows with and without the part run the same steps again: behind it, or, where it is all that is left
// within a wrapper, behind the wrapper.
int rejoins(const Blueprint& blueprint, Site site) {
  for (const Wrapper& wrapper : blueprint.wrappers) {
    if (std::ranges::find(wrapper.parts, site.index) == wrapper.parts.end()) continue;
    const auto left = std::ranges::count_if(
        wrapper.parts, [&](int part) { return blueprint.parts[static_cast<size_t>(part)].present; });
    if (left == 1) return wrapper.parts.back() + 1;
  }
  return site.index + 1;
}

// The walk of the whole model, and the candidates that start from it.
class Walk {
 public:
  Walk(const Model& model, std::span<const Site> candidates, int64_t rows, const Watch& watch)
      : model_(model), candidates_(candidates), rows_(rows), watch_(watch) {}

  // Answers of the whole model, and of each candidate. `tap` sees the walk of the whole model.
  struct Answers {
    Tensor whole = {};
    std::vector<Tensor> without = {};
  };
  Answers answers(const Inputs& inputs, Tap& tap) const {
    const int64_t batch = inputs.sample.size(0);
    if (rows_ == 0) return full_passes(inputs, tap);
    const auto lanes = static_cast<size_t>(std::max<int64_t>(1, rows_ / batch));
    const auto parts = static_cast<int>(model_.blueprint().parts.size());
    Answers answers;
    Stream whole = model_.begin(inputs);
    int at = 0;
    for (size_t first = 0; first < candidates_.size(); first += lanes) {
      if (watch_.stop.stop_requested()) throw Stopped{};
      const auto group = candidates_.subspan(first, std::min(lanes, candidates_.size() - first));
      // The whole model goes on to the group's last candidate, its rows along with it.
      std::vector<Stream> starts;
      for (Site site : group) {
        for (; at < site.index; ++at) model_.step(whole, {at}, tap);
        starts.push_back(whole);
      }
      for (Tensor& answer : together(group, std::move(starts), batch))
        answers.without.push_back(std::move(answer));
      report(answers.without.size());
    }
    for (; at < parts; ++at) model_.step(whole, {at}, tap);
    answers.whole = model_.finish(whole, tap);
    return answers;
  }

 private:
  // What the walk is held against.
  Answers full_passes(const Inputs& inputs, Tap& tap) const {
    Answers answers{.whole = model_.run(inputs, tap), .without = {}};
    for (Site site : candidates_) {
      if (watch_.stop.stop_requested()) throw Stopped{};
      Skip skip(model_.blueprint());
      skip.add(site);
      answers.without.push_back(model_.run(inputs, skip));
      report(answers.without.size());
    }
    return answers;
  }

  void report(size_t done) const {
    watch_.report({.phase = "scores",
                   .done = static_cast<double>(done),
                   .total = static_cast<double>(candidates_.size()),
                   .detail = model_.blueprint().part(candidates_[done - 1]).label()});
  }

  // From where each starts to the end; they join when they come to stand at the same part.
  std::vector<Tensor> together(std::span<const Site> group, std::vector<Stream> starts, int64_t batch) const {
    const auto parts = static_cast<int>(model_.blueprint().parts.size());
    Tap none;
    std::optional<Stream> joint;
    int at = 0;
    const auto carry = [&](int to) {
      for (; joint && at < to; ++at) model_.step(*joint, {at}, none);
      at = to;
    };
    for (size_t i = 0; i < group.size(); ++i) {
      Skip skip(model_.blueprint());
      skip.add(group[i]);
      const int meets = rejoins(model_.blueprint(), group[i]);
      Stream own = std::move(starts[i]);
      for (int part = group[i].index; part < meets; ++part) model_.step(own, {part}, skip);
      carry(std::max(at, meets));
      for (int part = meets; part < at; ++part) model_.step(own, {part}, none);
      joint = joint ? joined({*joint, own}) : std::move(own);
    }
    carry(parts);
    const Tensor answer = model_.finish(*joint, none);
    return group.size() == 1 ? std::vector<Tensor>{answer} : answer.split(batch, 0);
  }

  const Model& model_;
  std::span<const Site> candidates_;
  int64_t rows_;
  const Watch& watch_;
};

void append(BatchScores::PerSample& to, const BatchScores::PerSample& from) {
  if (to.empty()) to.resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) to[i].insert(to[i].end(), from[i].begin(), from[i].end());
}

// Mean ranks, from 0.
std::vector<double> ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) { return values[i]; });
  std::vector<double> ranks(values.size());
  for (size_t i = 0; i < order.size();) {
    size_t end = i + 1;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    for (size_t j = i; j < end; ++j) ranks[order[j]] = static_cast<double>(i + end - 1) / 2;
    i = end;
  }
  return ranks;
}

double as_double(const Json& json) {
  return json.is_null() ? kUnknown : json.get<double>();
}

}  // namespace

std::vector<Site> candidates_of(const Blueprint& blueprint) {
  return blueprint.present();
}

BatchScores score(const Model& model, std::span<const Site> candidates, const CalibrationBatch& batch,
                  const ScoreOptions& options, const Watch& watch) {
  const InferenceMode evaluating;
  const Walk walk(model, candidates, options.rows, watch);
  Turning turning(model.blueprint().parts.size());
  const Walk::Answers told = walk.answers(batch.inputs, turning);
  std::optional<Walk::Answers> untold;
  Tap none;
  if (batch.unguided) untold = walk.answers(*batch.unguided, none);

  BatchScores scores;
  const Tensor times = batch.inputs.time.to(at::kDouble).contiguous();
  scores.times.assign(times.data_ptr<double>(), times.data_ptr<double>() + times.numel());
  Tensor before;
  if (batch.target.defined()) before = (told.whole - batch.target).square().flatten(1).mean(1);
  std::vector<Tensor> moves;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const Tensor d = told.without[i] - told.whole;
    moves.push_back(d.flatten());
    scores.output.push_back(per_sample(d.square()));
    if (before.defined()) {
      const Tensor error = (told.without[i] - batch.target).square().flatten(1).mean(1);
      scores.task.push_back(per_sample((error - before).unsqueeze(1)));
    }
    if (untold) {
      const Tensor u = untold->without[i] - untold->whole;
      scores.guided.push_back(per_sample((u + options.guidance * (d - u)).square()));
    }
    scores.influence.push_back(turning.of(candidates[i]));
  }
  const Tensor all = at::stack(moves);
  const Tensor products =
      (at::mm(all, all.t()).to(at::kDouble) / static_cast<double>(all.size(1))).contiguous();
  scores.products.assign(products.data_ptr<double>(), products.data_ptr<double>() + products.numel());
  return scores;
}

Json to_json(const BatchScores& scores) {
  return {{"times", scores.times},   {"output", scores.output},       {"task", scores.task},
          {"guided", scores.guided}, {"influence", scores.influence}, {"products", scores.products}};
}

BatchScores batch_scores_from_json(const Json& json, size_t candidates, std::string_view what) {
  check_keys(json, {"times", "output", "task", "guided", "influence", "products"}, what);
  BatchScores scores;
  const auto numbers = [&](const Json& list, size_t count) {
    if (!list.is_array() || list.size() != count)
      fail("{}: {} numbers were expected; was this journal damaged?", what, count);
    std::vector<double> values;
    for (const Json& value : list) {
      if (!value.is_number() && !value.is_null()) fail("{}: {} is no number", what, value.dump());
      values.push_back(as_double(value));
    }
    return values;
  };
  const Json& times = json.at("times");
  scores.times = numbers(times, times.size());
  const auto table = [&](const char* key) {
    const Json& list = json.at(key);
    BatchScores::PerSample values;
    if (list.empty()) return values;
    if (list.size() != candidates)
      fail("{}: {} is of {} candidates, not {}", what, key, list.size(), candidates);
    for (const Json& row : list) values.push_back(numbers(row, scores.times.size()));
    return values;
  };
  scores.output = table("output");
  scores.task = table("task");
  scores.guided = table("guided");
  scores.influence = table("influence");
  scores.products = numbers(json.at("products"), candidates * candidates);
  return scores;
}

Scores gathered(std::vector<Site> candidates, std::span<const BatchScores> batches) {
  Scores scores{.candidates = std::move(candidates), .all = {}};
  BatchScores& all = scores.all;
  all.products.assign(scores.candidates.size() * scores.candidates.size(), 0);
  for (const BatchScores& batch : batches) {
    all.times.insert(all.times.end(), batch.times.begin(), batch.times.end());
    append(all.output, batch.output);
    append(all.task, batch.task);
    append(all.guided, batch.guided);
    append(all.influence, batch.influence);
    for (size_t i = 0; i < all.products.size(); ++i)
      all.products[i] += batch.products[i] * static_cast<double>(batch.times.size());
  }
  for (double& product : all.products) product /= static_cast<double>(std::max<size_t>(1, all.times.size()));
  return scores;
}

Mean mean(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  Mean m{.value = std::accumulate(values.begin(), values.end(), 0.0) / n, .error = kUnknown};
  if (values.size() < 2) return m;
  double squares = 0;
  for (double value : values) squares += (value - m.value) * (value - m.value);
  m.error = std::sqrt(squares / (n - 1) / n);
  return m;
}

std::vector<Mean> means(const BatchScores::PerSample& values) {
  std::vector<Mean> list;
  for (const std::vector<double>& row : values) list.push_back(mean(row));
  return list;
}

std::vector<std::vector<double>> by_band(const Scores& scores, const BatchScores::PerSample& values,
                                         int count, int64_t steps) {
  const auto bands = static_cast<size_t>(count);
  std::vector<std::vector<double>> table(bands, std::vector<double>(values.size(), kUnknown));
  const std::vector<double>& times = scores.all.times;
  for (size_t b = 0; b < bands; ++b) {
    for (size_t c = 0; c < values.size(); ++c) {
      double sum = 0, n = 0;
      for (size_t s = 0; s < times.size(); ++s) {
        const double place = times[s] / static_cast<double>(steps) * static_cast<double>(count);
        if (std::clamp(static_cast<int>(place), 0, count - 1) != static_cast<int>(b)) continue;
        sum += values[c][s], n += 1;
      }
      if (n > 0) table[b][c] = sum / n;
    }
  }
  return table;
}

double rank_correlation(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size() || a.size() < 2) return kUnknown;
  const std::vector<double> x = ranks(a), y = ranks(b);
  const double middle = static_cast<double>(a.size() - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - middle) * (y[i] - middle);
    xx += (x[i] - middle) * (x[i] - middle);
    yy += (y[i] - middle) * (y[i] - middle);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : kUnknown;
}

double split_half(const BatchScores::PerSample& values) {
  if (values.empty() || values[0].size() < 2) return kUnknown;
  std::vector<double> halves[2];
  for (const std::vector<double>& row : values) {
    for (size_t half : {size_t{0}, size_t{1}}) {
      std::vector<double> part;
      for (size_t s = half; s < row.size(); s += 2) part.push_back(row[s]);
      halves[half].push_back(mean(part).value);
    }
  }
  return rank_correlation(halves[0], halves[1]);
}

double superposed(const Scores& scores, std::span<const int> removed) {
  double sum = 0;
  const size_t n = scores.candidates.size();
  for (int i : removed)
    for (int j : removed) sum += scores.all.products[static_cast<size_t>(i) * n + static_cast<size_t>(j)];
  return sum;
}

JointLoss::JointLoss(const Model& model, const Calibration& calibration, int64_t samples)
    : model_(model), calibration_(calibration) {
  const InferenceMode evaluating;
  int64_t seen = 0;
  for (const CalibrationBatch& batch : calibration.batches) {
    if (samples > 0 && seen >= samples) break;
    answers_.push_back(model.run(batch.inputs));
    seen += batch.inputs.sample.size(0);
  }
}

std::vector<double> JointLoss::of(const Model& model, Tap& tap) const {
  const InferenceMode evaluating;
  std::vector<double> losses;
  for (size_t b = 0; b < answers_.size(); ++b) {
    const Tensor said = model.run(calibration_.batches[b].inputs, tap);
    const std::vector<double> more = per_sample((said - answers_[b]).square());
    losses.insert(losses.end(), more.begin(), more.end());
  }
  return losses;
}

std::vector<double> JointLoss::of(std::span<const Site> removed) const {
  Skip skip(model_.blueprint());
  for (Site site : removed) skip.add(site);
  return of(model_, skip);
}

std::vector<double> JointLoss::of(const Model& other) const {
  Tap none;
  return of(other, none);
}

int64_t JointLoss::samples() const {
  int64_t count = 0;
  for (const Tensor& answer : answers_) count += answer.size(0);
  return count;
}

double JointLoss::mean_of(std::span<const Site> removed) const {
  return mean(of(removed)).value;
}

Times measured_times(const Model& model, std::span<const Site> candidates, const Inputs& inputs, int repeats,
                     const Watch& watch) {
  std::vector<Skip> skips;
  for (Site site : candidates) {
    skips.emplace_back(model.blueprint());
    skips.back().add(site);
  }
  std::vector<StepChange> changes;
  for (size_t i = 0; i < candidates.size(); ++i) changes.push_back({.site = candidates[i], .tap = &skips[i]});
  Times times{.saved = milliseconds_saved(model, changes, inputs, repeats, "milliseconds of parts", watch),
              .whole = milliseconds_by_steps(model, inputs, repeats, watch)};
  for (double& saved : times.saved) saved = std::max(0.0, saved);
  return times;
}

}  // namespace lamina::laptop
