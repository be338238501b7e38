// What a model says of every token of some texts: the one pass over the data that calibration and loss tails
// are read from. Logits are made a tile at a time; nothing of size tokens x vocabulary is held.
#pragma once

#include <vector>

#include "lamina/base/progress.h"
#include "lamina/eval/pass.h"

namespace lamina {

struct TokenScore {
  int32_t sample = 0, position = 0, token = 0;  // which token was predicted
  double loss = 0;                              // -ln p(token), nats
  double entropy = 0;                           // of the distribution, nats
  double confidence = 0;                        // probability of the likeliest token
  bool right = false;                           // which was this one
};

// All tokens of the samples but the first of each, in order.
std::vector<TokenScore> token_scores(const Model& model, const Samples& samples, Tap& base,
                                     const Watch& watch = {});

// The same for what the head reads, [tokens, width]: row t predicts ids[t + 1].
std::vector<TokenScore> token_scores(const Linear& head, const Tensor& hidden,
                                     const std::vector<int32_t>& ids);

}  // namespace lamina
