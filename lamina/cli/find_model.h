// What a path names for the verbs that cut: a model, or the one component of a diffusers pipeline that is
// meant.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "lamina/checkpoint/pipeline.h"
#include "lamina/export/export.h"
#include "lamina/family/family.h"

namespace lamina::cli {

struct Found {
  Opened opened;
  std::optional<Pipeline> pipeline = {};
  std::string component = {};  // of the pipeline

  // What is written is then a pipeline too.
  ExportOptions exporting(const Watch& watch) const;
};

// Whether it is the folder of a diffusers pipeline or of a U-Net.
bool is_denoiser(const std::filesystem::path& path);

// Of a pipeline its U-Net, where no component is named. Throws Error that lists the components.
Found find_model(const std::filesystem::path& path, const std::string& component = {});

}  // namespace lamina::cli
