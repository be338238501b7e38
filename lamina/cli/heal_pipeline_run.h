// What a run over a pipeline's denoiser was, as its report and its summary need it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lamina/cli/training.h"
#include "lamina/heal/features.h"
#include "lamina/report/model_card.h"

namespace lamina::cli {

struct HealedPipeline {
  std::string name, command;
  bool taught = false;
  int64_t parameters = 0, learning = 0;
  std::string pictures, held_out;  // what was learnt from, in words
  Trained trained;
  double average = 0;  // the decay; 0: none was kept
  // On pictures that were held out: the task's mean squared error, and that to what the teacher says.
  struct Seen {
    double task = 0;
    std::optional<double> to_teacher = {};
  };
  Seen before, after;
  std::vector<FeatureTap> taps = {};
  std::vector<double> mean_squares = {};
  // Of --incubate: each stage inside the teacher, and at last all of them together.
  struct Stage {
    std::string name;
    int64_t steps = 0;
    double before = 0, after = 0;  // distance to the teacher
  };
  std::string incubation = {};  // "sequential"; empty: all learnt at once
  std::vector<Stage> stages = {};
  double seconds = 0;
  Settings settings = {};
};

// Of each term in the loss, the largest first: means over all steps. One that a stage has no map for counts
// as none there, so that they add up to 1.
std::vector<std::pair<std::string, double>> shares_of(const HealedPipeline& run);
report::Report report_of(const HealedPipeline& run);
report::ModelCard card_of(const HealedPipeline& run);  // but for what opens it
Json incubation_json(const HealedPipeline& run);
std::string summary_of(const HealedPipeline& run, const std::filesystem::path& target);

}  // namespace lamina::cli
