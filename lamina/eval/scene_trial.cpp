#include "lamina/eval/scene_trial.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/eval/picture_score.h"

namespace lamina {

namespace {

Json rates_json(const SceneScore& score) {
  Json json = Json::object();
  for (const auto& [name, rate] : named_rates(score)) {
    const auto [low, high] = rate.interval();
    json[name] = {
        {"right", rate.right}, {"asked", rate.asked}, {"share", rate.share()}, {"interval", {low, high}}};
  }
  return json;
}

Json json_of(const Marks& marks) {
  Json json = Json::object();
  for (const auto& [name, each] : marks) json[name] = each;
  return json;
}

}  // namespace

SceneTrial scene_trial(const scene::Options& options, int64_t first, int64_t count) {
  if (count < 1) fail("a trial of {} scenes was asked for; 1 or more are possible", count);
  SceneTrial trial;
  std::vector<Tensor> real, again;
  for (int64_t i = first; i < first + count; ++i) {
    const scene::Scene scene = scene::scene_at(static_cast<uint64_t>(i), options);
    trial.said.push_back(scene.said);
    trial.captions.push_back(scene::caption(scene));
    real.push_back(pixels_of(scene::painted(scene)));
    // Seeds of their own: what a scene of the split is made from is none of them.
    const uint64_t seed = ~(options.seed + static_cast<uint64_t>(i));
    again.push_back(pixels_of(scene::painted(scene::placed(scene.said, seed, options.side))));
  }
  trial.real = at::cat(real);
  trial.again = at::cat(again);
  return trial;
}

DrawnScenes draw_scenes(const Painter& painter, Denoiser& denoiser, const std::vector<std::string>& captions,
                        const DrawScenes& options) {
  const InferenceMode guard;
  const Json& config = painter.denoiser_opened().checkpoint.config;
  const std::string what = painter.denoiser_opened().checkpoint.what();
  const IntegerRange size{1, 4096};
  const int64_t side = json_integer(config, "sample_size", what, size),
                channels = json_integer_or(config, "in_channels", 4, what, size);
  const int64_t pixels = side * painter.autoencoder().factor(), count = std::ssize(captions);
  std::vector<Tensor> latents, pictures;
  for (int64_t first = 0; first < count; first += options.batch) {
    const int64_t some = std::min(options.batch, count - first);
    const std::vector<std::string> asked(captions.begin() + first, captions.begin() + first + some);
    const uint64_t seed = options.seed + static_cast<uint64_t>(first);
    latents.push_back(sample(denoiser, painter.scheduler_config(), painter.conditions(asked, pixels, pixels),
                             painter.unconditional(some, pixels, pixels),
                             {.steps = options.steps,
                              .guidance = options.guidance,
                              .solver = options.solver,
                              .noise = starting_noise(some, {channels, side, side}, seed),
                              .seed = seed,
                              .watch = {.tick = {}, .stop = options.watch.stop}}));
    pictures.push_back(painter.decode(latents.back()).clamp(-1, 1));
    options.watch.report({"draw", static_cast<double>(first + some), static_cast<double>(count), ""});
  }
  return {.latents = at::cat(latents), .pixels = at::cat(pictures)};
}

SceneReport scene_report(const std::vector<NamedScorer>& scorers, const SceneTrial& trial,
                         const Tensor& drawn) {
  SceneReport report;
  report.pictures = drawn.size(0);
  std::vector<std::vector<std::vector<int64_t>>> answers;
  for (const NamedScorer& scorer : scorers) {
    const ScorerPass of_drawn = scorer_pass(scorer.model, drawn),
                     of_real = scorer_pass(scorer.model, trial.real),
                     of_again = scorer_pass(scorer.model, trial.again);
    report.scorers.push_back({.name = scorer.name,
                              .drawn = scene_score(of_drawn.answers, trial.said),
                              .real = scene_score(of_real.answers, trial.said),
                              .distance = frechet_distance(of_drawn.features, of_real.features),
                              .floor = frechet_distance(of_again.features, of_real.features),
                              .drawn_marks = scene_marks(of_drawn.answers, trial.said),
                              .real_marks = scene_marks(of_real.answers, trial.said),
                              .features = of_drawn.features});
    answers.push_back(of_drawn.answers);
  }
  if (answers.size() > 1) report.agreement = agreement(answers[0], answers[1]);
  return report;
}

Json to_json(const SceneReport& report) {
  Json json = {{"pictures", report.pictures}, {"scorers", Json::object()}};
  for (const ScorerView& view : report.scorers)
    json["scorers"][view.name] = {
        {"drawn", rates_json(view.drawn)},
        {"real", rates_json(view.real)},
        {"frechet_distance", view.distance},
        {"frechet_floor", view.floor},
        {"marks", {{"drawn", json_of(view.drawn_marks)}, {"real", json_of(view.real_marks)}}}};
  if (report.agreement.asked > 0) json["agreement"] = report.agreement.share();
  return json;
}

}  // namespace lamina
