// lamina verify of denoisers: a U-Net or a pipeline that was written, held against the one it was made of.
#pragma once

#include <filesystem>
#include <string>

#include "lamina/base/json.h"
#include "lamina/checkpoint/checkpoint.h"

namespace lamina::cli {

struct VerifyUnet {
  std::filesystem::path out, against = {}, plan = {};  // without `plan`, the one beside what was written
  std::string component = {};                          // of pipelines; empty: the U-Net
  int64_t samples = 2, side = 0;                       // of noise; 0: the U-Net's own
  int threads = 1;
};
// Whether `out` is a denoiser or a pipeline, or holds some.
bool holds_denoiser(const std::filesystem::path& out);
// An entry for each model that was written; with `against`, each has "ok": its tensors are those that the
// plan gives, number for number, it answers as the original does with the plan's parts skipped (wired anew,
// where the plan says so), and of a pipeline all else is as it was. Throws Error where there is no plan or no
// denoiser.
Json verified_denoisers(const VerifyUnet& asked);
std::string denoisers_text(const Json& entries);

// How far apart, of the largest number, answers may be for what the weights were stored as. `least`: where
// types are those that were meant.
double allowed_difference(const Checkpoint& meant, const Checkpoint& written, double least);

}  // namespace lamina::cli
