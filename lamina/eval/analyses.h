// What is measured of a model whose norms were removed and of those that it is compared with, in one go, and
// how several models (arms) stand side by side in a report. Identities, which must hold to rounding, and
// findings, which depend on data, stand in tables of their own.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/base/progress.h"
#include "lamina/data/tokenizer.h"
#include "lamina/eval/attribution.h"
#include "lamina/eval/calibration.h"
#include "lamina/eval/loss_tail.h"
#include "lamina/eval/neuron_effects.h"
#include "lamina/eval/patching.h"
#include "lamina/eval/sinks.h"
#include "lamina/report/report.h"

namespace lamina {

// The same for all arms. What is empty is not measured; `text` is needed.
struct AnalysisData {
  Samples text;                        // in-domain
  Samples strange = {};                // out of domain
  Samples unseen = {};                 // in-domain with tokens that it does not have (unseen_tokens)
  std::vector<PromptPair> pairs = {};  // for attribution patching
};

struct AnalysisDataOptions {
  int64_t samples = 8;
  int64_t length = 256;
  int64_t pairs = 4;
  uint64_t seed = 1;
};
// Samples of `text` and `strange` (empty: `strange_text`), unseen tokens, prompt pairs. A text too short for
// so many samples gives fewer; Error when it gives none. `length` is cut to the model's context.
AnalysisData analysis_data(std::string_view text, std::string_view strange, const Tokenizer& tokenizer,
                           const Model& model, const AnalysisDataOptions& options);

struct AnalysisOptions {
  AttributionOptions attribution = {};
  CalibrationErrorOptions calibration = {};
  NeuronEffectOptions neurons = {};
  SinkOptions sinks = {};
};

struct Analyses {
  Calibration calibration;
  LossTail text;
  std::optional<LossTail> strange = {}, unseen = {};
  Attribution attribution;
  NeuronEffects neurons;
  Sinks sinks;
  Patching patching = {};
};

Analyses analyse(const Model& model, const AnalysisData& data, const AnalysisOptions& options, Tap& base,
                 const Watch& watch = {});

struct Arm {
  std::string name;  // "original", "fine-tuned", "norm-free"
  Analyses analyses;
};

Json to_json(const Analyses& analyses);
// "Identities", "Loss and calibration", "Tails", "Neurons", "Sinks", "Attribution patching".
std::vector<report::Section> analysis_sections(const std::vector<Arm>& arms);
// The two tables that fit a terminal: identities, findings.
std::vector<report::Table> analysis_tables(const std::vector<Arm>& arms);
// Sentences that must not be overlooked: a tail more than ten times the first arm's, an arm whose loss is not
// a number.
std::vector<std::string> analysis_warnings(const std::vector<Arm>& arms);

}  // namespace lamina
