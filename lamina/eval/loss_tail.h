// The tail of the losses: a model without norms may be as good as another on the mean and fall apart on a few
// tokens that it hardly met. Mean, median, 99.9th percentile and maximum belong together.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "lamina/eval/token_scores.h"

namespace lamina {

struct LossTail {
  double mean = 0, median = 0, permille = 0, most = 0;  // permille: the 99.9th percentile
  TokenScore worst = {};
  int64_t tokens = 0;
};

LossTail loss_tail(std::span<const TokenScore> scores);
LossTail loss_tail(const Model& model, const Samples& samples, Tap& base, const Watch& watch = {});

// Text unlike any other, valid UTF-8, the same for the same seed: runs of control characters, form feeds and
// vertical tabs, runs of tabs, and characters of one to four bytes drawn at random.
std::string strange_text(int64_t bytes, uint64_t seed = 1);

struct UnseenOptions {
  int64_t count = 4;  // samples
  int64_t length = 64;
  uint64_t seed = 1;
};
// `seen` as it is, but for one token in eight, which is one that does not occur in it. Empty when every token
// of the vocabulary does.
Samples unseen_tokens(const Samples& seen, int64_t vocabulary, const UnseenOptions& options = {});

}  // namespace lamina
