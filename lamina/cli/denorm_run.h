// What denorm does around its method, and where the results go.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lamina/cli/session.h"
#include "lamina/cli/training.h"
#include "lamina/eval/analyses.h"
#include "lamina/eval/t_test.h"
#include "lamina/methods/denorm/compare.h"
#include "lamina/methods/denorm/denorm.h"

namespace lamina::cli {

// One model of the table. The base and the base with all norms frozen at once were not trained.
struct DenormArm {
  std::string name;   // "base", "frozen", "vanilla", "staged", "one-shot", "taper"
  std::string title;  // "fine-tuned with its norms"
  bool norm_free = false;
  std::optional<Trained> trained = {};
  std::vector<double> losses = {};  // of the validation samples, in their order; empty: it broke
  denorm::Removals gone = {};       // with the steps at which they went
  std::vector<denorm::Wait> waits = {};
  denorm::ScaleHistory history = {};
  std::vector<double> drifts = {};  // by path
  std::vector<Edit> edits = {};     // what freezes its norms
  std::optional<Analyses> analyses = {};
};

// The folded model against the one with frozen norms, on the same text.
struct DenormProof {
  double float32 = report::not_measured;  // greatest difference of a logit, the folder as written
  double float64 = report::not_measured;  // the same function folded in memory, in float64
  double largest_logit = 0;
  int64_t tokens = 0;
  std::vector<std::string> norms_left = {};  // by the blueprint of what was written
};

struct Speed {
  std::string what;              // "decoding, one text"
  double before = 0, after = 0;  // tokens a second
  Mean log_ratio = {};
};

struct DenormRun {
  const Opened& base;
  const Tokenizer& tokenizer;
  std::string mode;  // the arm that is written
  TrainOptions training;
  Json options;  // everything the flags said
  const TextData& data;
  int64_t validation_samples = 0;
  Plan plan = {};
  std::string command = {};
  std::string model_sha256 = {};
  bool analysed = false;
  Watch watch = {};
};

struct DenormOutcome {
  std::vector<DenormArm> arms = {};
  DenormProof proof = {};
  std::vector<Speed> speeds = {};
  std::vector<std::string> prompts = {}, before = {}, after = {};
  int64_t parameters_before = 0, parameters_after = 0;

  const DenormArm* find(std::string_view name) const;
};

// Empty unless the loss on the last residual's scale was larger than that on the text when the arm began:
// lambda multiplies a square, and what suits one model drowns the text of another.
std::string scale_loss_said(const Trained& trained);
void write_denorm_results(const DenormRun& run, const DenormOutcome& outcome,
                          const std::vector<Written>& written, const Opened& healed,
                          const std::filesystem::path& folder);
std::string denorm_summary(const DenormRun& run, const DenormOutcome& outcome,
                           const std::vector<Written>& written, const std::filesystem::path& target);
Json denorm_json(const DenormRun& run, const DenormOutcome& outcome, const std::vector<Written>& written,
                 const std::filesystem::path& target);

}  // namespace lamina::cli
