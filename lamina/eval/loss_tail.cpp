#include "lamina/eval/loss_tail.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lamina/base/error.h"
#include "lamina/base/random.h"
#include "lamina/eval/bootstrap.h"

namespace lamina {

namespace {

std::string utf8(int64_t code) {
  std::string text;
  const auto more = [&](int64_t shift) { text += static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xc0 | (code >> 6));
    more(0);
  } else if (code < 0x10000) {
    text += static_cast<char>(0xe0 | (code >> 12));
    more(6);
    more(0);
  } else {
    text += static_cast<char>(0xf0 | (code >> 18));
    more(12);
    more(6);
    more(0);
  }
  return text;
}

// One of `length` bytes in UTF-8, drawn evenly.
std::string character(SplitMix& random, int64_t length) {
  for (;;) {
    const int64_t code = length == 1   ? 1 + random.below(0x7f)
                         : length == 2 ? 0x80 + random.below(0x780)
                         : length == 3 ? 0x800 + random.below(0xf800)
                                       : 0x10000 + random.below(0x100000);
    if (code < 0xd800 || code > 0xdfff) return utf8(code);
  }
}

}  // namespace

LossTail loss_tail(std::span<const TokenScore> scores) {
  if (scores.empty()) fail("there are no losses; give a text of at least two tokens");
  LossTail tail{.tokens = std::ssize(scores)};
  std::vector<double> losses;
  // What is not a number is worse than any loss.
  for (const TokenScore& score : scores)
    losses.push_back(std::isnan(score.loss) ? std::numeric_limits<double>::infinity() : score.loss);
  for (double loss : losses) tail.mean += loss;
  tail.mean /= static_cast<double>(losses.size());
  tail.worst = scores[static_cast<size_t>(std::ranges::max_element(losses) - losses.begin())];
  std::ranges::sort(losses);
  tail.median = quantile(losses, 0.5);
  tail.permille = quantile(losses, 0.999);
  tail.most = losses.back();
  return tail;
}

LossTail loss_tail(const Model& model, const Samples& samples, Tap& base, const Watch& watch) {
  return loss_tail(token_scores(model, samples, base, watch));
}

std::string strange_text(int64_t bytes, uint64_t seed) {
  SplitMix random(seed);
  std::string text;
  while (std::ssize(text) < bytes) {
    const int64_t run = 1 + random.below(16);
    switch (random.below(4)) {
      case 0:  // control characters, all but the null that ends texts elsewhere
        for (int64_t i = 0; i < run; ++i) text += static_cast<char>(1 + random.below(31));
        text += '\x7f';
        break;
      case 1:
        for (int64_t i = 0; i < run; ++i) text += random.below(2) == 0 ? '\f' : '\v';
        break;
      case 2:
        text.append(static_cast<size_t>(run), '\t');
        text += '\n';
        break;
      default:
        for (int64_t i = 0; i < run; ++i) text += character(random, 1 + random.below(4));
    }
  }
  return text;
}

Samples unseen_tokens(const Samples& seen, int64_t vocabulary, const UnseenOptions& options) {
  std::vector<char> met(static_cast<size_t>(vocabulary));
  for (const std::vector<int32_t>& sample : seen) {
    for (int32_t id : sample) met.at(static_cast<size_t>(id)) = 1;
  }
  std::vector<int32_t> absent;
  for (int64_t id = 0; id < vocabulary; ++id) {
    if (!met[static_cast<size_t>(id)]) absent.push_back(static_cast<int32_t>(id));
  }
  Samples samples;
  if (absent.empty() || seen.empty()) return samples;
  SplitMix random(options.seed);
  for (int64_t s = 0; s < options.count; ++s) {
    std::vector<int32_t> sample = seen[static_cast<size_t>(s % std::ssize(seen))];
    if (std::ssize(sample) > options.length) sample.resize(static_cast<size_t>(options.length));
    // The first token stays: many tokenizers put one of their own there.
    bool changed = false;
    for (size_t t = 1; t < sample.size(); ++t) {
      const bool last = t + 1 == sample.size();
      if (random.below(8) != 0 && !(last && !changed)) continue;
      sample[t] = absent[static_cast<size_t>(random.below(std::ssize(absent)))];
      changed = true;
    }
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace lamina
