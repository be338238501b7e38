// Making a model forget a concept by turning round the weight rows that point at it: after TARS (Davies,
// Iacovides and Mandic 2024, arXiv 2412.10257). Experimental: prompt, noise, number of rounds and whether
// norm gains are folded are not public, so they are options here.
#pragma once

#include <cstdint>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/model/model.h"

namespace lamina::neurons {

struct EraseOptions {
  int64_t edits = 1;        // rows to turn round, those with the largest cosines
  double least_cosine = 0;  // and no row below this
  double enough = 0.99;     // refine the direction until the concept has this probability
  int64_t rounds = 200;     // or so many rounds
  int64_t tries = 32;       // perturbations a round
  double noise = 0.3;       // their length, as a share of the direction's
  int64_t seed = 0;
};

struct ErasedRow {
  Site site;
  int block = 0;
  int64_t neuron = 0;
  NeuronVector vector = NeuronVector::up;
  double cosine = 0;
  double norm = 0;
};

struct Erasure {
  Plan plan;  // Replace edits, the largest cosine first
  std::vector<ErasedRow> rows;
  std::vector<float> direction;   // t, [width]
  double p_start = 0, p_end = 0;  // of the concept, read from the residual before and after refining
  int64_t rounds = 0;
};

// `prompt` leads to the concept; `concept_tokens` spell it. Throws Error when no row reaches `least_cosine`.
Erasure erase(const Model& model, const Checkpoint& checkpoint, const std::vector<int32_t>& prompt,
              const std::vector<int32_t>& concept_tokens, const EraseOptions& options, const Watch& watch);

}  // namespace lamina::neurons
