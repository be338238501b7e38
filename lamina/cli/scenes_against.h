// Two ways to draw the same captions from the same noise, compared caption by caption: what `lamina scenes`
// says of one is held against what it said of another.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/eval/scene_trial.h"

namespace lamina::cli {

// Throws Error unless both objects, as `lamina scenes PIPELINE --json` prints them, are of the same captions
// and the same noise. `what` names the second.
void check_same_run(const Json& ours, const Json& theirs, const std::string& what);
// Throws Error unless it has the marks of these scorers.
void check_scorers(const Json& theirs, const std::vector<std::string>& scorers, const std::string& what);

struct SceneDifference {
  std::string scorer;
  PairedShares all;                     // every answer is right; ours is the first
  std::optional<double> distance = {};  // Frechet's, from ours to theirs
};
struct SceneComparison {
  std::string other;
  std::vector<SceneDifference> scorers;  // of ours
  // Where both are drawn now: decibels of each picture, infinite where they are equal, and the denoisers'
  // time.
  std::vector<double> psnr = {};
  double our_seconds = 0, their_seconds = 0;
};
// By the marks in both. Throws Error where theirs has not our scorers, or where they say something else of
// the real pictures and so are other networks.
SceneComparison compared(const Json& ours, const Json& theirs, const std::string& what);
// Adds what the pictures themselves tell.
struct DrawnView {
  const Tensor& pixels;
  const SceneReport& report;
  double denoiser_seconds = 0;
};
SceneComparison with_pictures(SceneComparison comparison, const DrawnView& ours, const DrawnView& theirs);

Json to_json(const SceneComparison& comparison);
std::string text_of(const SceneComparison& comparison);

}  // namespace lamina::cli
