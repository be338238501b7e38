// Attribution patching (Nanda, 2023) against activation patching, on indirect object identification (Wang et
// al., 2022). For the residual before each block and each position p:
//   act(p)  = metric(corrupted run with the clean residual put in at p) - metric(corrupted run)
//   attr(p) = gradient of the metric in the corrupted run . (clean - corrupted residual at p)
// The metric is the logit of the clean prompt's answer minus that of the other name, at the last position.
// Both are means over the prompts, divided by metric(clean) - metric(corrupted), which is act before the
// first block where the prompts differ in one token alone.
#pragma once

#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/data/tokenizer.h"
#include "lamina/eval/pass.h"

namespace lamina {

struct PromptPair {
  std::vector<int32_t> clean, corrupted;  // of one length
  int32_t answer = 0, other = 0;          // of the clean prompt; the corrupted one's are the other way round
};

struct PromptOptions {
  int64_t count = 8;
  uint64_t seed = 1;
};
// "Then, A and B went to the PLACE. A gave a OBJECT to", corrupted by the other giver. Names, places and
// objects are such that all prompts have one length and differ in the same places.
std::vector<PromptPair> object_prompts(const Tokenizer& tokenizer, const PromptOptions& options = {});

struct Patching {
  struct Row {
    int block = 0;
    std::vector<double> activation, attribution;  // a position each, normalised
    double error = 0;                             // sum over positions of |attribution - activation|
  };
  std::vector<Row> rows = {};       // blocks with a part present
  double error = 0;                 // mean over rows
  double clean = 0, corrupted = 0;  // metric, means over pairs
  int64_t pairs = 0;                // 0: nothing was measured
  int64_t answered = 0;             // clean prompts whose metric is above 0
};

// Throws Error when the pairs are not all of one length. Records gradients of its own, whatever the caller's
// mode; leaves those of weights alone.
Patching patching(const Model& model, const std::vector<PromptPair>& pairs, Tap& base,
                  const Watch& watch = {});

}  // namespace lamina
