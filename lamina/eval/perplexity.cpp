#include "lamina/eval/perplexity.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <thread>

#include "lamina/base/error.h"
#include "lamina/eval/impl/divergence_rows.h"

namespace lamina {

namespace {

struct Window {
  int64_t begin, end;  // tokens
  int64_t first;       // the first token that is scored here
  double nll = 0;      // summed
};

constexpr int64_t kTile = 128;

double negative_log_likelihood(const Model& model, const std::vector<int32_t>& ids, const Window& window,
                               Tap& tap) {
  const InferenceMode evaluating;
  const Tensor tokens =
      at::tensor(std::vector<int64_t>(ids.begin() + window.begin, ids.begin() + window.end), at::kLong)
          .unsqueeze(0);
  Stream stream = model.begin({.ids = tokens});
  for (Site site : model.blueprint().present()) model.step(stream, site, tap);
  const Tensor hidden = model.read_out(stream, tap).squeeze(0);
  double sum = 0;
  // Position t predicts token t + 1.
  for (int64_t at = window.first - 1; at < window.end - 1; at += kTile) {
    const int64_t count = std::min(kTile, window.end - 1 - at);
    const Tensor logits = model.head()(hidden.narrow(0, at - window.begin, count)).contiguous();
    for (int64_t r = 0; r < count; ++r) {
      const auto target = static_cast<int64_t>(ids[static_cast<size_t>(at + r + 1)]);
      const auto score = [&]<class T>(const T* row) {
        return Rows<T>::log_sum_exp(row, logits.size(1)) - static_cast<double>(row[target]);
      };
      sum += logits.scalar_type() == at::kDouble ? score(logits.const_data_ptr<double>() + r * logits.size(1))
                                                 : score(logits.const_data_ptr<float>() + r * logits.size(1));
    }
  }
  return sum;
}

}  // namespace

Perplexity perplexity(const Model& model, const std::vector<int32_t>& all, const PerplexityOptions& options,
                      Tap& tap, const Watch& watch) {
  std::vector<int32_t> ids = all;
  if (options.max_tokens > 0 && static_cast<int64_t>(ids.size()) > options.max_tokens)
    ids.resize(static_cast<size_t>(options.max_tokens));
  const auto count = static_cast<int64_t>(ids.size());
  if (count < 2) fail("perplexity needs at least two tokens, and the text has {}", count);
  if (options.stride < 1 || options.length < 2 || options.stride > options.length)
    fail("a window of {} tokens cannot move by {}; the stride is 1 to the length", options.length,
         options.stride);

  std::vector<Window> windows;
  for (int64_t begin = 0, scored = 1; scored < count; begin += options.stride) {
    const int64_t end = std::min(begin + options.length, count);
    // Where windows do not overlap, the first token of each has nothing before it and is not scored.
    if (const int64_t first = std::max(scored, begin + 1); first < end)
      windows.push_back({begin, end, first});
    scored = end;
  }
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  double done = 0;
  const auto work = [&] {
    for (size_t i = next++; i < windows.size(); i = next++) {
      try {
        if (watch.stop.stop_requested()) throw Stopped{};
        windows[i].nll = negative_log_likelihood(model, ids, windows[i], tap);
        const std::lock_guard lock(mutex);
        watch.report({"perplexity", ++done, static_cast<double>(windows.size()), ""});
      } catch (...) {
        const std::lock_guard lock(mutex);
        failure = std::current_exception();
        next = windows.size();
      }
    }
  };
  if (options.threads <= 1) {
    work();
  } else {
    std::vector<std::jthread> workers;
    for (int t = 0; t < options.threads; ++t) {
      workers.emplace_back([&] {
        use_threads(1);
        work();
      });
    }
  }
  if (failure) std::rethrow_exception(failure);

  Perplexity result{.windows = static_cast<int64_t>(windows.size())};
  double sum = 0;
  for (const Window& window : windows) {
    sum += window.nll;
    result.tokens += window.end - window.first;
  }
  result.nll = sum / static_cast<double>(result.tokens);
  result.value = std::exp(result.nll);
  // Windows score different numbers of tokens: the error is that of a ratio of two sums.
  double squares = 0;
  for (const Window& window : windows) {
    const double off = window.nll - result.nll * static_cast<double>(window.end - window.first);
    squares += off * off;
  }
  const auto n = static_cast<double>(windows.size());
  result.stderr_nll = n > 1 ? std::sqrt(n / (n - 1) * squares) / static_cast<double>(result.tokens) : 0;
  return result;
}

}  // namespace lamina
