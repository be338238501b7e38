// lamina scenes: what a text-to-image pipeline makes of captions of generated scenes.
#include <fmt/format.h>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/session.h"
#include "lamina/eval/scene_trial.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

struct ScenesFlags {
  fs::path pipeline, grid;
  std::vector<fs::path> scorers;
  std::string split = "test";
  int64_t count = 256, first = 0, shown = 48, columns = 8;
  uint64_t scene_seed = 0;
  DrawScenes draw = {};
  int threads = 1;
  bool json = false, quiet = false;
};

scene::Split split_of(const std::string& name) {
  for (const scene::Split split :
       {scene::Split::train, scene::Split::validation, scene::Split::test, scene::Split::novel}) {
    if (scene::split_name(split) == name) return split;
  }
  fail("--split {}: train, validation, test and novel are possible", in_quotes(name));
}

struct Scorer {
  std::string name;
  Opened opened;
  std::unique_ptr<Model> model;
};

std::vector<Scorer> scorers_at(const std::vector<fs::path>& paths) {
  std::vector<Scorer> scorers;
  for (const fs::path& path : paths) {
    Scorer& scorer = scorers.emplace_back(
        Scorer{.name = shown(path.lexically_normal()), .opened = open(path), .model = {}});
    scorer.model = build_model(scorer.opened);
  }
  return scorers;
}

std::string percent(const Rate& rate) {
  if (rate.asked == 0) return "-";
  const auto [low, high] = rate.interval();
  return fmt::format("{:.1f} % ({:.1f}-{:.1f})", 100 * rate.share(), 100 * low, 100 * high);
}

std::string table(const SceneReport& report, const ScenesFlags& flags) {
  std::string text;
  for (const ScorerView& view : report.scorers) {
    text += fmt::format("{}, on {} captions of the split {}\n", view.name, report.pictures, flags.split);
    text += fmt::format("  {:<9} {:<22} {}\n", "", flags.pipeline.empty() ? "" : "drawn", "real pictures");
    const auto drawn = named_rates(view.drawn), real = named_rates(view.real);
    for (size_t i = 0; i < drawn.size(); ++i)
      text += fmt::format("  {:<9} {:<22} {}\n", drawn[i].first,
                          flags.pipeline.empty() ? "" : percent(drawn[i].second), percent(real[i].second));
    if (!flags.pipeline.empty())
      text += fmt::format("  Frechet distance {:.3f}; of other real pictures of the same captions {:.3f}\n",
                          view.distance, view.floor);
  }
  if (report.agreement.asked > 0 && !flags.pipeline.empty())
    text +=
        fmt::format("the scorers agree on every answer for {} of what is drawn\n", percent(report.agreement));
  return text;
}

void write_grid(const Tensor& pixels, const SceneTrial& trial, const ScenesFlags& flags) {
  const int64_t some = std::min(flags.shown, pixels.size(0));
  std::string captions;
  for (int64_t i = 0; i < some; ++i)
    captions += fmt::format("{}. {}\n", i + 1, trial.captions[static_cast<size_t>(i)]);
  std::vector<Picture> pictures;
  for (Picture& picture : pictures_of(pixels.narrow(0, 0, some))) {
    Picture large = blank(3 * picture.width, 3 * picture.height);
    for (int64_t y = 0; y < large.height; ++y) {
      for (int64_t x = 0; x < large.width; ++x) std::copy_n(picture.at(x / 3, y / 3), 3, large.at(x, y));
    }
    pictures.push_back(std::move(large));
  }
  write_png(flags.grid, grid(pictures, flags.columns), {{"captions", captions}});
}

int score_scenes(const ScenesFlags& flags) {
  Terminal terminal({.quiet = flags.quiet || flags.json});
  use_threads(thread_count(flags.threads));
  const std::vector<Scorer> scorers = scorers_at(flags.scorers);
  scene::Options scenes{.seed = flags.scene_seed, .split = split_of(flags.split), .side = 32};
  Tensor drawn;
  std::optional<Painter> painter;
  if (!flags.pipeline.empty()) {
    painter.emplace(open_pipeline(flags.pipeline), Painter::Options{});
    const Opened& opened = painter->denoiser_opened();
    scenes.side = painter->autoencoder().factor() *
                  json_integer(opened.checkpoint.config, "sample_size", opened.checkpoint.what(), {1, 512});
  }
  const SceneTrial trial = scene_trial(scenes, flags.first, flags.count);
  if (painter) {
    DrawScenes draw = flags.draw;
    draw.watch = terminal.watch();
    drawn = draw_scenes(*painter, *plain(painter->denoiser()), trial.captions, draw).pixels;
  }
  const Tensor& seen = painter ? drawn : trial.real;
  if (!flags.grid.empty()) write_grid(seen, trial, flags);
  std::vector<NamedScorer> named;
  for (const Scorer& scorer : scorers) named.push_back({scorer.name, *scorer.model});
  const SceneReport report = scene_report(named, trial, seen);
  terminal.clear();
  if (flags.json) {
    Json json = to_json(report);
    json["split"] = flags.split;
    json["scenes_seed"] = flags.scene_seed;
    json["first"] = flags.first;
    if (!flags.grid.empty()) {
      const int64_t some = std::min(flags.shown, flags.count);
      json["captions"] = std::vector<std::string>(trial.captions.begin(), trial.captions.begin() + some);
    }
    if (painter) {
      json["pipeline"] = shown(flags.pipeline);
      json["steps"] = flags.draw.steps;
      json["guidance"] = flags.draw.guidance;
      json["scheduler"] = flags.draw.solver;
      json["seed"] = flags.draw.seed;
    }
    print(json.dump(2) + "\n");
  } else {
    print(table(report, flags));
    if (!flags.grid.empty()) print(fmt::format("pictures     {}\n", shown(flags.grid)));
  }
  return Status::ok;
}

}  // namespace

int run_scenes(int argc, char** argv) {
  CLI::App app(
      "What a text-to-image pipeline makes of captions of generated scenes, as scorers see it: how often "
      "shape, "
      "colour, size, relation, count and ground are what the caption says, with 95 % intervals, beside the "
      "same "
      "scorers on real pictures of the same captions. Without PIPELINE the real pictures alone.\n\n"
      "Example: lamina scenes examples/scenes/pipeline --scorer examples/scenes/scorer-1 --grid out.png",
      "scenes");
  ScenesFlags flags;
  app.add_option("PIPELINE", flags.pipeline, "folder with a model_index.json");
  app.add_option("--scorer", flags.scorers, "folder of a scorer; again for a second one");
  app.add_option("-n,--count", flags.count, "captions")->capture_default_str()->check(CLI::Range(2, 1 << 20));
  app.add_option("--first", flags.first, "the first scene of the split")->check(CLI::NonNegativeNumber);
  app.add_option("--split", flags.split,
                 "test, validation, train, or novel: pairs of colour and shape that training never saw")
      ->capture_default_str();
  app.add_option("--scenes-seed", flags.scene_seed, "of the scenes")->capture_default_str();
  app.add_option("--steps", flags.draw.steps, "of the solver")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--cfg", flags.draw.guidance, "guidance; 1: none")->capture_default_str();
  app.add_option("--scheduler", flags.draw.solver, "solver (default: the pipeline's own)");
  app.add_option("--seed", flags.draw.seed, "of the noise")->capture_default_str();
  app.add_option("--batch", flags.draw.batch, "pictures at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  app.add_option("--grid", flags.grid, "PNG file of the first pictures");
  app.add_option("--shown", flags.shown, "pictures in it")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  app.add_option("--columns", flags.columns, "of it")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--threads", flags.threads, "threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_flag("--json", flags.json, "one object on stdout");
  app.add_flag("-q,--quiet", flags.quiet, "no progress");
  parse(app, argc, argv);
  return score_scenes(flags);
}

}  // namespace lamina::cli
