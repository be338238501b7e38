// What is counted about a cut, and the card that goes with every folder that is written, whether a search
// made the plan or a person did.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lamina/export/export.h"
#include "lamina/report/model_card.h"

namespace lamina::cli {

// Tokens that FLOPs are given for: as many as a usual prompt has, and no more than the model was made for.
int64_t usual_context(const Blueprint& blueprint);

struct Counted {
  int64_t parameters = 0;
  double flops = 0;      // a token, at `usual_context`
  int64_t kv_bytes = 0;  // a token, float16
};
Counted counted(const Blueprint& blueprint, const Plan& plan);  // what the plan leaves

// Parameters, weight file (when something was written), FLOPs and key-value cache: before and after.
std::vector<report::Figure> counted_figures(const Opened& opened, const Plan& plan, const Written* written);

// "smaller" of "runs/smaller/".
std::string folder_name(const std::filesystem::path& path);
// "SmolLM2-135M-Instruct": the folder's or the file's name.
std::string model_name(const Opened& opened);

// "3 of 60 parts cut, 1 neuron clamped"; without `parts` of "sub-layers cut".
std::string done_by(const Plan& plan, size_t parts = 0);

// The card of one written folder, with what can be counted; `summary` and measured figures are the caller's.
report::ModelCard card_of(const Opened& opened, const Plan& plan, const Written& written,
                          std::string command);

// One line an edit: "down_blocks.0.attentions.1 (d0.a1), score 0.13".
std::vector<std::string> plan_lines(const Plan& plan, const Blueprint& blueprint);

// README.md of a folder that holds a denoiser, a pipeline or a U-Net alone, as it stands there: what opens it
// is read off it. `said` is all else: title, model it was made of, what was done and measured. Throws Error
// when the folder's tensors are not those that its config declares.
std::string denoiser_card(const std::filesystem::path& folder, report::ModelCard said);

// "Open it elsewhere": what was written and what opens it; `otherwise` where nothing was.
report::Section open_section(const std::vector<Written>& written, std::string otherwise);

std::string today();  // "2026-01-31", UTC
std::string processor_name();

}  // namespace lamina::cli
