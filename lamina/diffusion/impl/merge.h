// Token merging. Private to the room.
#pragma once

#include "lamina/model/model.h"

namespace lamina {

// Self-attention among fewer tokens (Bolya and Hoffman, 2023). Of every cell of 2 x 2 the first token stays;
// of the others, the `share` of all tokens that are likest to one that stays (cosine) becomes part of it: a
// mean goes into the attention, and what comes out is copied back. Nothing is drawn by chance. Tokens are
// compared behind the norm, where tomesd compares in front of it.
class Merging : public MapAttention {
 public:
  explicit Merging(double share) : share_(share) {}
  Tensor operator()(const MapQuery& query) const override;
  // How many of the tokens of a map are merged away.
  static int64_t count(int64_t height, int64_t width, double share);

 private:
  double share_;
};

}  // namespace lamina
