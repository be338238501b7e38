// What `lamina train` does with a file that says "kind": "scorer", "autoencoder" or "denoiser": networks on
// generated scenes, and the text-to-image pipeline that they make together.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "lamina/cli/training.h"

namespace lamina::cli {

struct SceneTraining {
  std::filesystem::path config, out;
  std::optional<uint64_t> seed;  // in place of the file's
  std::optional<int64_t> steps;
  std::string command = {};
};

// Whether the file is one of these.
bool trains_on_scenes(const std::filesystem::path& config);
int train_on_scenes(Group& group, const SceneTraining& training, const TrainingFlags& flags);

}  // namespace lamina::cli
