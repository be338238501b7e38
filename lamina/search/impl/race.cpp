#include "lamina/search/impl/race.h"

#include <algorithm>
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

Divergence::Term Race::evaluate(int unit, size_t sample, double limit) {
  const InferenceMode evaluating;
  const int first = units_[static_cast<size_t>(unit)].sites.front().index,
            sites = static_cast<int>(gone_.size());
  std::map<int, Stream>& kept = trajectory_[static_cast<size_t>(unit)][sample];
  const bool resumes = !kept.empty();
  int at = resumes ? kept.rbegin()->first : first;
  Stream stream = resumes ? kept.rbegin()->second : prefix_[sample][static_cast<size_t>(first)];
  Tap none;
  double flops = 0;
  int64_t steps = 0;
  const auto tokens = static_cast<double>(samples_[sample].size());
  for (; at < sites; ++at) {
    if (at > first && at % stride_ == 0) kept.insert_or_assign(at, stream);
    if (skips(unit, {at})) continue;
    model_.step(stream, {at}, none);
    // Attention's own products count as they are: half of tokens x tokens.
    flops += tokens * model_.blueprint().flops_per_token({at}, static_cast<int64_t>(tokens + 1) / 2);
    ++steps;
  }
  const Tensor hidden = model_.read_out(stream, none).squeeze(0);
  const Divergence::Term term = divergence_.term(sample, hidden, limit);
  const std::lock_guard lock(mutex_);
  work_.matrix_flops +=
      flops + static_cast<double>(term.tokens) * 2.0 *
                  static_cast<double>(model_.blueprint().vocabulary * model_.blueprint().width);
  work_.part_tokens += steps * static_cast<int64_t>(tokens);
  work_.head_tokens += term.tokens;
  work_.evaluations += 1;
  return term;
}

std::vector<Step::Candidate> Race::run(const std::vector<int>& candidates, const Run& run) {
  const size_t count = samples_.size();
  std::vector<Racer> racers;
  for (int unit : candidates) {
    Racer racer{.unit = unit,
                .terms = std::vector<std::optional<double>>(count),
                .order = std::vector<size_t>(count)};
    std::iota(racer.order.begin(), racer.order.end(), size_t{0});
    const std::vector<double>& last = last_terms_[static_cast<size_t>(unit)];
    // The sample that counted most last time goes first, so that a loser crosses the line early.
    std::ranges::stable_sort(racer.order,
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
      if (racer.running || racer.out || racer.order.empty()) continue;
      if (!lowest || racer.bound < lowest->bound) lowest = &racer;
    }
    return lowest && lowest->bound <= best * (1 + run.near) ? lowest : nullptr;
  };
  const auto work = [&] {
    std::unique_lock lock(mutex);
    for (;;) {
      Racer* racer = nullptr;
      changed.wait(lock, [&] { return failure || (racer = next()) || busy == 0; });
      if (failure || !racer) break;
      racer->running = true;
      ++busy;
      const size_t sample = racer->order.back();
      const double limit = best * (1 + run.near) - racer->bound;
      lock.unlock();
      try {
        const Divergence::Term term = evaluate(racer->unit, sample, limit);
        lock.lock();
        racer->order.pop_back();
        racer->bound += term.value;
        if (term.complete) racer->terms[sample] = term.value;
        racer->out = !term.complete;
        if (racer->order.empty() && term.complete) {
          double score = 0;  // in sample order, whatever the order they ran in
          for (const auto& value : racer->terms) score += *value;
          racer->bound = score;
          best = std::min(best, score);
        }
        run.tick(evaluations += 1, best);
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
    const bool complete = racer.order.empty() && !racer.out;
    scores.push_back({racer.unit, racer.bound, complete});
    std::vector<double>& last = last_terms_[static_cast<size_t>(racer.unit)];
    last.resize(count);
    for (size_t s = 0; s < count; ++s) {
      if (racer.terms[s]) last[s] = *racer.terms[s];
    }
  }
  return scores;
}

}  // namespace lamina
