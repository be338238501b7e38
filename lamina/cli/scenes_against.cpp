#include "lamina/cli/scenes_against.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/eval/bootstrap.h"
#include "lamina/eval/picture_score.h"

namespace lamina::cli {

namespace {

const Json& inside(const Json& object, const std::string& key, const std::string& what) {
  if (!object.is_object() || !json_has(object, key))
    fail("{}: says no {}; what `lamina scenes PIPELINE --scorer SCORER --json` of this version prints does",
         what, in_quotes(key));
  return object.at(key);
}

// "drawn" or "real".
std::string marks_of_all(const Json& run, const std::string& scorer, const std::string& pictures,
                         const std::string& what) {
  const Json& scorers = inside(run, "scorers", what);
  if (!json_has(scorers, scorer))
    fail("{}: the scorer {} was not asked there; runs are compared by the scorers of both", what,
         in_quotes(scorer));
  const Json& marks = inside(inside(scorers.at(scorer), "marks", what), pictures, what);
  return json_string(marks, "all", what);
}

std::string points(double share) {
  return fmt::format("{:+.1f}", 100 * share);
}

struct Alike {
  Estimate psnr = {};  // of the pictures that differ
  int64_t equal = 0, all = 0;
};

Alike alike(const std::vector<double>& psnr) {
  std::vector<double> finite;
  std::ranges::copy_if(psnr, std::back_inserter(finite), [](double value) { return std::isfinite(value); });
  return {.psnr = finite.empty() ? Estimate{} : mean_of(finite),
          .equal = std::ssize(psnr) - std::ssize(finite),
          .all = std::ssize(psnr)};
}

const ScorerView* view_named(const SceneReport& report, const std::string& name) {
  const auto found = std::ranges::find(report.scorers, name, &ScorerView::name);
  return found == report.scorers.end() ? nullptr : &*found;
}

}  // namespace

void check_same_run(const Json& ours, const Json& theirs, const std::string& what) {
  for (const char* key :
       {"pictures", "split", "scenes_seed", "first", "captions_sha256", "seed", "latent", "noise_batch"}) {
    // The last is there only where the solver draws noise of its own.
    if (std::string_view(key) == "noise_batch" && !(json_has(ours, key) && json_has(theirs, key))) continue;
    const Json &here = inside(ours, key, "this run"), &there = inside(theirs, key, what);
    if (here != there)
      fail("{}: {} is {} there and {} here; runs are compared on the same captions and the same noise", what,
           key, in_quotes(there.dump()), in_quotes(here.dump()));
  }
}

void check_scorers(const Json& theirs, const std::vector<std::string>& scorers, const std::string& what) {
  for (const std::string& scorer : scorers) marks_of_all(theirs, scorer, "drawn", what);
}

SceneComparison compared(const Json& ours, const Json& theirs, const std::string& what) {
  SceneComparison comparison{.other = what, .scorers = {}};
  for (const auto& [name, view] : inside(ours, "scorers", "this run").items()) {
    if (marks_of_all(ours, name, "real", "this run") != marks_of_all(theirs, name, "real", what))
      fail("{}: the scorer {} says something else of the real pictures there; it is another network", what,
           in_quotes(name));
    comparison.scorers.push_back({.scorer = name,
                                  .all = paired_shares(marks_of_all(ours, name, "drawn", "this run"),
                                                       marks_of_all(theirs, name, "drawn", what))});
  }
  return comparison;
}

SceneComparison with_pictures(SceneComparison comparison, const DrawnView& ours, const DrawnView& theirs) {
  comparison.psnr = psnr_of_each(ours.pixels, theirs.pixels);
  comparison.our_seconds = ours.denoiser_seconds;
  comparison.their_seconds = theirs.denoiser_seconds;
  for (SceneDifference& difference : comparison.scorers) {
    const ScorerView *here = view_named(ours.report, difference.scorer),
                     *there = view_named(theirs.report, difference.scorer);
    if (here && there) difference.distance = frechet_distance(here->features, there->features);
  }
  return comparison;
}

Json to_json(const SceneComparison& comparison) {
  Json json = {{"other", comparison.other}, {"scorers", Json::object()}};
  for (const SceneDifference& one : comparison.scorers) {
    const auto [low, high] = one.all.interval();
    Json& view = json["scorers"][one.scorer];
    view = {{"difference", one.all.difference()},
            {"interval", {low, high}},
            {"asked", one.all.asked},
            {"right_here_alone", one.all.first_alone},
            {"right_there_alone", one.all.second_alone}};
    if (one.distance) view["frechet_distance"] = *one.distance;
  }
  if (comparison.psnr.empty()) return json;
  const Alike pictures = alike(comparison.psnr);
  json["equal_pictures"] = pictures.equal;
  if (pictures.equal < pictures.all)
    json["psnr"] = {{"mean", pictures.psnr.value}, {"interval", {pictures.psnr.low, pictures.psnr.high}}};
  json["denoiser_seconds"] = comparison.their_seconds;
  return json;
}

std::string text_of(const SceneComparison& comparison) {
  std::string text = fmt::format("against {}, on the same captions and noise\n", comparison.other);
  for (const SceneDifference& one : comparison.scorers) {
    const auto [low, high] = one.all.interval();
    text +=
        fmt::format("  {}: all right {} points ({} to {}); {} of {} are right here alone, {} there alone\n",
                    one.scorer, points(one.all.difference()), points(low), points(high), one.all.first_alone,
                    one.all.asked, one.all.second_alone);
    if (one.distance) text += fmt::format("  Frechet distance between both {:.3f}\n", *one.distance);
  }
  if (comparison.psnr.empty()) return text;
  const Alike pictures = alike(comparison.psnr);
  if (pictures.equal == pictures.all)
    text += "  every picture is the same\n";
  else
    text += fmt::format("  PSNR {:.1f} dB ({:.1f}-{:.1f}), {} of {} pictures the same\n", pictures.psnr.value,
                        pictures.psnr.low, pictures.psnr.high, pictures.equal, pictures.all);
  return text + fmt::format("  U-Net {} here, {} there\n", human_seconds(comparison.our_seconds),
                            human_seconds(comparison.their_seconds));
}

}  // namespace lamina::cli
