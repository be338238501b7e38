// `lamina heal` of a pipeline: what was asked for, and what goes together.
#pragma once

#include <filesystem>
#include <string>

#include "lamina/cli/training.h"
#include "lamina/heal/features.h"

namespace lamina::cli {

inline constexpr std::string_view kAlikeTimes = "one";  // of --semantic-times
inline constexpr std::string_view kScenes = "scenes";   // of --pictures: generated ones

struct PipelineFlags {
  std::filesystem::path pipeline, out, teacher, plan, scorer;
  std::string pictures, features = "teacher-norm", scale = "one", frozen, targets, weights, incubate;
  int64_t scenes = 100000, held_out = 64, size = 0;
  uint64_t scene_seed = 0;
  int64_t rank = 0;
  double alpha = 32, average = 0, dropped = 0.1, joint_share = 0.25;
  std::string semantic_times = "alpha-bar";
  TeachingOptions teaching = {};
};

void add_flags(CLI::App& app, PipelineFlags& flags);
// Throws Error for flags that do not go together.
void check_flags(const CLI::App& app, const PipelineFlags& flags, const TrainingFlags& training);
// What the flags say of the teacher, but for the semantic term's networks.
TeachingOptions teaching_of(const PipelineFlags& flags, const TrainOptions& options);

}  // namespace lamina::cli
