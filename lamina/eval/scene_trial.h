// A text-to-image pipeline on captions of generated scenes: what it draws, and what scorers make of it beside
// real pictures of the same captions.
#pragma once

#include <string>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/base/progress.h"
#include "lamina/diffusion/pipeline.h"
#include "lamina/eval/scene_score.h"

namespace lamina {

// Scenes [first, first + count): what is asked for, and real pictures of it, two for each caption.
struct SceneTrial {
  std::vector<scene::Said> said;
  std::vector<std::string> captions;
  Tensor real, again;  // [count, 3, side, side]
};
SceneTrial scene_trial(const scene::Options& options, int64_t first, int64_t count);

struct DrawScenes {
  int64_t steps = 20;
  double guidance = 4;
  std::string solver = {};  // empty: the pipeline's own
  uint64_t seed = 0;        // picture i begins with the noise of seed + i, whatever the batch
  int64_t batch = 32;
  Watch watch = {};
};
struct DrawnScenes {
  Tensor latents;  // [captions, channels, height, width]
  Tensor pixels;   // [captions, 3, height, width] in [-1, 1]
};
// Of the size that the denoiser's config says. Throws Error where it says none.
DrawnScenes draw_scenes(const Painter& painter, Denoiser& denoiser, const std::vector<std::string>& captions,
                        const DrawScenes& options);

struct ScorerView {
  std::string name;
  SceneScore drawn, real;
  // Frechet's, of what is drawn to the real pictures, and of the second real ones to the first.
  double distance = 0, floor = 0;
  Marks drawn_marks = {}, real_marks = {};
  Tensor features = {};  // of what is drawn, as scorer_pass has them
};
struct SceneReport {
  int64_t pictures = 0;
  std::vector<ScorerView> scorers;
  Rate agreement;  // of the first two scorers on what is drawn
};
struct NamedScorer {
  std::string name;
  const Model& model;
};
SceneReport scene_report(const std::vector<NamedScorer>& scorers, const SceneTrial& trial,
                         const Tensor& drawn);
Json to_json(const SceneReport& report);

}  // namespace lamina
