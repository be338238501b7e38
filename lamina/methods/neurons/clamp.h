// What holding a neuron at a value does: to the next token, to a concept, to the text (Davies 2025, "Flash
// Interpretability", arXiv 2501.02688, the clamping experiments).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lamina/model/model.h"

namespace lamina::neurons {

struct TokenProbability {
  int32_t token = 0;
  double p = 0;
};

struct ClampInput {
  std::vector<int32_t> prompt;
  std::vector<int32_t> concept_tokens = {};  // the tokens that spell the concept; may be empty
  std::vector<int32_t> stop = {};
  int64_t tokens = 40;  // of the greedy continuation; 0: none
  int64_t next = 8;     // likeliest next tokens to list
};

// One pass over the prompt and the text that follows it.
struct Answer {
  std::vector<int32_t> ids;            // greedy continuation
  std::vector<TokenProbability> next;  // after the prompt, the likeliest first
  double concept_log_p = 0;  // log of the summed probability of the concept's tokens after the prompt
  double kl = 0;  // KL(unclamped || clamped) of the next token after the prompt, nats; 0 for the unclamped
  double mean_kl = 0;  // the same, mean over all positions of the prompt
};

// Called with each new token of a continuation; false stops it. May be empty.
using OnToken = std::function<bool(int32_t)>;

// The answer without any clamp.
struct Unclamped {
  Answer answer;
  Tensor log_p;  // [tokens, vocabulary], over the prompt
};
Unclamped unclamped(const Model& model, const ClampInput& input, const OnToken& on_token = {});

// The answer with these clamps held at every position, in prefill and decoding. Throws Error when a
// clamp matches no neuron.
Answer clamped_answer(const Model& model, const std::vector<Clamp>& clamps, const ClampInput& input,
                      const Unclamped& reference, const OnToken& on_token = {});

// Throws Error when a token is none of the model's.
void check_tokens(const Model& model, std::span<const int32_t> ids);

// KL(p || q) of two sets of log-probabilities [positions, vocabulary], in nats, float64 [positions]; rounding
// below 0 is taken off.
Tensor divergence_by_position(const Tensor& log_p, const Tensor& log_q);

// Mean, standard deviation, smallest and largest value of one neuron at one place on a text: the unit that
// clamp values are given in ("+10sd").
struct NeuronStatistics {
  double mean = 0, deviation = 0, smallest = 0, largest = 0;
  int64_t positions = 0;
};
NeuronStatistics neuron_statistics(const Model& model, Site site, int64_t neuron, NeuronPlace place,
                                   const std::vector<std::vector<int32_t>>& samples);

}  // namespace lamina::neurons
