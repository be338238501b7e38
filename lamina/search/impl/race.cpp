#include "lamina/search/impl/race.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <limits>
#include <numeric>
#include <thread>

#include "lamina/base/error.h"

namespace lamina {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

Race::Race(const Model& model, const Divergence& divergence, const std::vector<std::vector<int32_t>>& samples,
           const std::vector<Unit>& units, Options options)
    : model_(model),
      divergence_(divergence),
      samples_(samples),
      units_(units),
      options_(options),
      gone_(model.blueprint().parts.size()),
      prefix_(samples.size()),
      trajectory_(units.size(), std::vector<std::map<int, Stream>>(samples.size())),
      last_terms_(units.size()) {
  for (size_t i = 0; i < gone_.size(); ++i) gone_[i] = !model.blueprint().parts[i].present;
  const uint64_t stream_bytes =
      samples[0].size() * static_cast<uint64_t>(model.blueprint().width) * c10::elementSize(model.dtype());
  const uint64_t sites = gone_.size();
  const uint64_t all = stream_bytes * samples.size() * sites * (sites + 1) / 2;
  stride_ = static_cast<int>(std::max<uint64_t>(1, (all + options.cache_bytes - 1) / options.cache_bytes));
  for (size_t s = 0; s < samples.size(); ++s) start(s);
}

bool Race::skips(int unit, Site site) const {
  return gone_[static_cast<size_t>(site.index)] ||
         std::ranges::find(units_[static_cast<size_t>(unit)].sites, site) !=
             units_[static_cast<size_t>(unit)].sites.end();
}

void Race::start(size_t sample) {
  Tap none;
  const Tensor ids =
      at::tensor(std::vector<int64_t>(samples_[sample].begin(), samples_[sample].end()), at::kLong)
          .unsqueeze(0);
  std::vector<Stream>& prefix = prefix_[sample];
  prefix = {model_.begin({.ids = ids})};
  for (int i = 0; i < static_cast<int>(gone_.size()); ++i) {
    Stream next = prefix.back();
    if (!gone_[static_cast<size_t>(i)]) model_.step(next, {i}, none);
    prefix.push_back(std::move(next));
  }
}

void Race::remove(int unit) {
  const std::vector<Site>& sites = units_[static_cast<size_t>(unit)].sites;
  for (Site site : sites) gone_[static_cast<size_t>(site.index)] = true;
  const int first = sites.front().index;
  Tap none;
  for (std::vector<Stream>& prefix : prefix_) {
    for (int i = first; i < static_cast<int>(gone_.size()); ++i) {
      Stream next = prefix[static_cast<size_t>(i)];
      if (!gone_[static_cast<size_t>(i)]) model_.step(next, {i}, none);
      prefix[static_cast<size_t>(i) + 1] = std::move(next);
    }
  }
  // A candidate's pass is the same as before up to the first part that has gone; later streams are of another
  // model.
  for (auto& by_sample : trajectory_) {
    for (auto& streams : by_sample) streams.erase(streams.upper_bound(first), streams.end());
  }
  for (auto& streams : trajectory_[static_cast<size_t>(unit)]) streams.clear();
}

double Race::Racer::bound() const {
  return std::accumulate(least.begin(), least.end(), 0.0);  // in sample order, whatever the order they ran in
}

int Race::start_of(int unit, size_t sample) const {
  const std::map<int, Stream>& kept = trajectory_[static_cast<size_t>(unit)][sample];
  return kept.empty() ? units_[static_cast<size_t>(unit)].sites.front().index : kept.rbegin()->first;
}

std::vector<size_t> Race::together(const Racer& racer, double limit) const {
  std::vector<size_t> samples = {racer.to_walk.back()};
  const std::vector<double>& last = last_terms_[static_cast<size_t>(racer.unit)];
  if (last.empty()) return samples;
  double expected = racer.bound() + last[samples[0]];
  for (size_t k = racer.to_walk.size() - 1; k-- > 0 && expected <= limit; expected += last[samples.back()]) {
    const size_t next = racer.to_walk[k];
    if (start_of(racer.unit, next) != start_of(racer.unit, samples[0])) break;
    samples.push_back(next);
  }
  return samples;
}

std::vector<Tensor> Race::walk(int unit, const std::vector<size_t>& samples) {
  const int first = units_[static_cast<size_t>(unit)].sites.front().index,
            sites = static_cast<int>(gone_.size());
  std::vector<std::map<int, Stream>>& kept = trajectory_[static_cast<size_t>(unit)];
  int at = start_of(unit, samples[0]);
  std::vector<Tensor> residuals;
  Stream stream;
  for (size_t sample : samples) {
    stream = kept[sample].empty() ? prefix_[sample][static_cast<size_t>(at)] : kept[sample].rbegin()->second;
    residuals.push_back(stream.x);
  }
  stream.x = at::cat(residuals, 0);
  Tap none;
  double flops = 0;
  int64_t steps = 0;
  const auto tokens = static_cast<double>(samples_[0].size()), count = static_cast<double>(samples.size());
  for (; at < sites; ++at) {
    if (at > first && at % stride_ == 0) {
      for (size_t k = 0; k < samples.size(); ++k) {
        Stream one = stream;
        one.x = stream.x.narrow(0, static_cast<int64_t>(k), 1);
        kept[samples[k]].insert_or_assign(at, std::move(one));
      }
    }
    if (skips(unit, {at})) continue;
    model_.step(stream, {at}, none);
    // Attention's own products count as they are: half of tokens x tokens.
    flops += count * tokens * model_.blueprint().flops_per_token({at}, static_cast<int64_t>(tokens + 1) / 2);
    ++steps;
  }
  const Tensor hidden = model_.read_out(stream, none).contiguous();
  const std::lock_guard lock(mutex_);
  work_.matrix_flops += flops;
  work_.part_tokens += steps * static_cast<int64_t>(count * tokens);
  work_.evaluations += static_cast<int64_t>(samples.size());
  return hidden.unbind(0);
}

Divergence::Term Race::finish(size_t sample, const Tensor& hidden, double limit) {
  const Divergence::Term term = divergence_.term(sample, hidden, limit);
  const std::lock_guard lock(mutex_);
  count_head(term.tokens, model_.blueprint().vocabulary);
  work_.head_tokens += term.tokens;
  return term;
}

void Race::count_head(int64_t tokens, int64_t words) {
  work_.matrix_flops += 2.0 * static_cast<double>(tokens * words * model_.blueprint().width);
}

// Hidden states wait for their turn at the head; where they do not fit, samples go through it at once.
std::optional<Divergence::Bound> Race::bound_here() {
  const auto tokens = static_cast<int64_t>(samples_.size() * samples_[0].size());
  const uint64_t waiting = units_.size() * static_cast<uint64_t>(tokens * model_.blueprint().width) *
                           c10::elementSize(model_.dtype());
  if (waiting > options_.cache_bytes / 2) return std::nullopt;
  Tap none;
  std::vector<Tensor> near;
  for (const std::vector<Stream>& prefix : prefix_)
    near.push_back(model_.read_out(prefix.back(), none).squeeze(0).contiguous());
  std::optional<Divergence::Bound> bound = divergence_.bound(near);
  if (bound) count_head(tokens, model_.blueprint().vocabulary + bound->words());
  return bound;
}

std::vector<Step::Candidate> Race::run(const std::vector<int>& candidates, const Run& run) {
  const size_t count = samples_.size();
  const std::optional<Divergence::Bound> bound = bound_here();
  std::vector<Racer> racers;
  for (int unit : candidates) {
    Racer racer{.unit = unit,
                .least = std::vector<double>(count),
                .hidden = std::vector<Tensor>(count),
                .to_walk = std::vector<size_t>(count),
                .to_finish = {}};
    std::iota(racer.to_walk.begin(), racer.to_walk.end(), size_t{0});
    const std::vector<double>& last = last_terms_[static_cast<size_t>(racer.unit)];
    // The sample that counted most last time goes first, so that a loser crosses the line early.
    std::ranges::stable_sort(racer.to_walk,
                             [&](size_t a, size_t b) { return last.empty() ? a > b : last[a] < last[b]; });
    racers.push_back(std::move(racer));
  }

  double best = kInfinity, evaluations = 0;
  std::exception_ptr failure;
  std::mutex mutex;
  std::condition_variable changed;
  int busy = 0;
  const auto next = [&]() -> Racer* {
    Racer* lowest = nullptr;
    for (Racer& racer : racers) {
      if (racer.running || racer.out || racer.finished()) continue;
      if (!lowest || racer.bound() < lowest->bound()) lowest = &racer;
    }
    return lowest && lowest->bound() <= best * (1 + run.near) ? lowest : nullptr;
  };
  // By what the last step saw, no better score is to be hoped for.
  double hoped = kInfinity;
  for (const Racer& racer : racers) {
    const std::vector<double>& last = last_terms_[static_cast<size_t>(racer.unit)];
    if (!last.empty()) hoped = std::min(hoped, std::accumulate(last.begin(), last.end(), 0.0));
  }
  // One move of a racer, with the lock open while it computes.
  const auto move = [&](Racer& racer, std::unique_lock<std::mutex>& lock) {
    const bool walks = !racer.to_walk.empty();
    const std::vector<size_t> moved =
        walks ? together(racer, (std::isfinite(best) ? best : hoped) * (1 + run.near))
              : std::vector<size_t>{racer.to_finish.back()};
    // What is left for each of them when the others are worth at least what is known of them.
    const double left = best * (1 + run.near) - racer.bound();
    lock.unlock();
    const InferenceMode evaluating;
    const std::vector<Tensor> hidden =
        walks ? walk(racer.unit, moved) : std::vector<Tensor>{racer.hidden[moved[0]]};
    std::vector<std::optional<Divergence::Term>> terms(moved.size());
    std::vector<double> least(moved.size());
    for (size_t k = 0; k < moved.size(); ++k) {
      if (walks && bound) {
        least[k] = (*bound)(moved[k], hidden[k]);
        const std::lock_guard counting(mutex_);
        count_head(hidden[k].size(0), bound->words());
      } else {
        terms[k] = finish(moved[k], hidden[k], left + racer.least[moved[k]]);
        if (!terms[k]->complete) break;
      }
    }
    lock.lock();
    for (size_t k = 0; k < moved.size(); ++k) {
      const size_t sample = moved[k];
      if (walks && bound) {
        racer.to_walk.pop_back();
        racer.least[sample] = least[k];
        racer.hidden[sample] = hidden[k];
        racer.to_finish.push_back(sample);
      } else if (terms[k]) {
        (walks ? racer.to_walk : racer.to_finish).pop_back();
        racer.hidden[sample] = Tensor();
        racer.out = racer.out || !terms[k]->complete;
        racer.least[sample] =
            terms[k]->complete ? terms[k]->value : std::max(racer.least[sample], terms[k]->value);
      }
    }
    // Where much is still to be learnt goes first.
    if (walks && racer.to_walk.empty())
      std::ranges::stable_sort(racer.to_finish, {}, [&](size_t s) { return racer.least[s]; });
    if (racer.finished() && !racer.out) best = std::min(best, racer.bound());
    if (walks) run.tick(evaluations += static_cast<double>(moved.size()), best, racer.unit);
  };
  const auto work = [&] {
    std::unique_lock lock(mutex);
    for (;;) {
      Racer* racer = nullptr;
      changed.wait(lock, [&] { return failure || (racer = next()) || busy == 0; });
      if (failure || !racer) break;
      racer->running = true;
      ++busy;
      try {
        move(*racer, lock);
      } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        if (!failure) failure = std::current_exception();
      }
      racer->running = false;
      --busy;
      changed.notify_all();
    }
  };
  if (options_.threads <= 1) {
    work();
  } else {
    std::vector<std::jthread> workers;
    for (int i = 0; i < options_.threads; ++i) {
      workers.emplace_back([&] {
        use_threads(1);
        work();
      });
    }
  }
  if (failure) std::rethrow_exception(failure);

  std::vector<Step::Candidate> scores;
  for (const Racer& racer : racers) {
    scores.push_back({racer.unit, racer.bound(), racer.finished() && !racer.out});
    std::vector<double>& last = last_terms_[static_cast<size_t>(racer.unit)];
    last.resize(count);
    for (size_t s = 0; s < count; ++s) {
      if (racer.least[s] > 0) last[s] = racer.least[s];
    }
  }
  return scores;
}

}  // namespace lamina
