// What a run over a pipeline's denoiser was, as its report and its summary need it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lamina/cli/training.h"
#include "lamina/heal/features.h"

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
  double seconds = 0;
  Settings settings = {};
};

report::Report report_of(const HealedPipeline& run);
std::string summary_of(const HealedPipeline& run, const std::filesystem::path& target);

}  // namespace lamina::cli
