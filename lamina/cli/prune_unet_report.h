// Pieces of the report of a cut denoiser.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lamina/cli/prune_unet.h"

namespace lamina::cli {

std::string label_of(const UnetRun& run, size_t candidate);
// Percent of an axis' whole that stays.
double share_kept(const UnetRun& run, const std::vector<int64_t>& saved, size_t axis);

// The network with what the plan does to each part, and what it does beside cutting; no table where nothing.
report::Network network_of(const UnetRun& run);
std::vector<report::Element> edit_tables(const UnetRun& run);
// "2 attentions see windows and 3 convolutions inherit kernels"; empty where nothing.
std::string edits_text(const UnetRun& run);

// How far the sum can be trusted, where it was asked.
std::optional<report::Section> study_section(const UnetRun& run);
report::Section limits_section(const UnetRun& run);

}  // namespace lamina::cli
