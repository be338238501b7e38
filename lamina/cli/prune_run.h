// What prune measures around its method, and where the results go: plan, report, model card, terminal.
#pragma once

#include <string>
#include <vector>

#include "lamina/cli/session.h"
#include "lamina/eval/perplexity.h"
#include "lamina/export/export.h"
#include "lamina/methods/neurons/lost.h"
#include "lamina/methods/registry.h"

namespace lamina::cli {

struct PruneRun {
  const Session& session;
  const Method& method;
  MethodOptions options;
  Plan plan;
  GreedyResult evidence;
  std::vector<std::vector<int32_t>> samples;
  NamedText calibration, heldout;
  std::string command;
  std::string model_sha256;
  std::string baselines;  // none, quick, all
  double gemm_flops = 0;  // a second, of one core, measured before the search
  Watch watch;
};

struct Side {  // before or after
  int64_t parameters = 0;
  int64_t kv_bytes = 0;  // a token, float16
  Perplexity heldout;
  double tokens_per_second = 0;
  std::vector<std::string> answers;
};

// Held-out perplexity of a plan that keeps growing, on a shorter protocol than the headline's.
struct Curve {
  std::string name;
  std::vector<int> removed;    // parts
  std::vector<double> values;  // perplexity
};

struct PruneOutcome {
  std::vector<std::string> prompts;
  Side before, after;
  std::vector<Curve> curves;            // the method first
  std::vector<Curve> random;            // one a seed
  PerplexityOptions headline, curve;    // the two protocols
  std::vector<neurons::LostPart> lost;  // of the feed-forwards cut; empty: none, or too dear (`lost_note`)
  std::string lost_note;
  std::vector<std::pair<std::string, double>> seconds;       // by phase
  std::vector<std::pair<std::string, std::string>> refused;  // forms that this plan cannot take, and why
};

// FLOPs a second of one core in matrix products of the search's shape.
double gemm_speed(const Model& model, int64_t tokens);

PruneOutcome measure(const PruneRun& run);
// Writes plan.json, report.html, report.json and a model card beside every folder form.
void finish(const PruneRun& run, const PruneOutcome& outcome, const std::vector<Written>& written,
            const std::filesystem::path& folder);
std::string summary_text(const PruneRun& run, const PruneOutcome& outcome,
                         const std::vector<Written>& written, const std::filesystem::path& target);
Json summary_json(const PruneRun& run, const PruneOutcome& outcome, const std::vector<Written>& written,
                  const std::filesystem::path& target);

}  // namespace lamina::cli
