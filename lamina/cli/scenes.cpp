// lamina scenes: what a text-to-image pipeline makes of captions of generated scenes.
#include <fmt/format.h>

#include <chrono>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/hash.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/draw_faster.h"
#include "lamina/cli/scenes_against.h"
#include "lamina/cli/session.h"
#include "lamina/eval/scene_trial.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

struct ScenesFlags {
  fs::path pipeline, grid, against;
  std::vector<fs::path> scorers;
  std::string split = "test";
  int64_t count = 256, first = 0, shown = 48, columns = 8;
  uint64_t scene_seed = 0;
  DrawScenes draw = {};
  FasterFlags faster = {};
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

// A new denoiser for every way down, so that none begins with what another left, and the time of its calls.
class Timed : public Denoiser {
 public:
  explicit Timed(std::function<std::unique_ptr<Denoiser>()> make) : make_(std::move(make)) {}
  Tensor operator()(const Inputs& inputs, int64_t call, int64_t calls) override {
    using Clock = std::chrono::steady_clock;
    if (call == 0) now_ = make_();
    calls_ = calls;
    const auto begun = Clock::now();
    Tensor said = (*now_)(inputs, call, calls);
    seconds_ += std::chrono::duration<double>(Clock::now() - begun).count();
    return said;
  }
  double seconds() const { return seconds_; }
  int64_t calls() const { return calls_; }  // of one way down

 private:
  std::function<std::unique_ptr<Denoiser>()> make_;
  std::unique_ptr<Denoiser> now_;
  double seconds_ = 0;
  int64_t calls_ = 0;
};

struct DrawnBy {
  Tensor pixels = {};
  double denoiser_seconds = 0;
  int64_t calls = 0;
  std::optional<Spent> spent = {};
};

DrawnBy drawn_by(const Painter& painter, const std::vector<std::string>& captions, const ScenesFlags& flags,
                 const FasterFlags& ways, const Watch& watch) {
  const FasterCalls faster(ways, {});
  Timed denoiser([&] { return faster.denoiser(painter); });
  DrawScenes draw = flags.draw;
  draw.watch = watch;
  const DrawnScenes drawn = draw_scenes(painter, denoiser, captions, draw);
  return {.pixels = drawn.pixels,
          .denoiser_seconds = denoiser.seconds(),
          .calls = denoiser.calls(),
          .spent =
              faster.spent(painter, denoiser.calls(),
                           {.height = drawn.latents.size(2), .width = drawn.latents.size(3)}, draw.guidance)};
}

// How the pictures came to be.
Json json_of(const DrawnBy& drawn, const ScenesFlags& flags) {
  Json json = {{"pipeline", shown(flags.pipeline)}, {"steps", flags.draw.steps},
               {"guidance", flags.draw.guidance},   {"scheduler", flags.draw.solver},
               {"seed", flags.draw.seed},           {"calls", drawn.calls},
               {"batch", flags.draw.batch},         {"denoiser_seconds", drawn.denoiser_seconds}};
  json.update(to_json(flags.faster));
  if (drawn.spent) json["multiply_adds"] = {{"plain", drawn.spent->plain}, {"own", drawn.spent->own}};
  return json;
}

std::string text_of(const DrawnBy& drawn) {
  std::string text = fmt::format("U-Net        {}, {} calls a picture\n",
                                 human_seconds(drawn.denoiser_seconds), drawn.calls);
  if (drawn.spent)
    text += fmt::format("multiply-adds a picture {} in place of {}: {:.1f} % saved\n",
                        human_count(drawn.spent->own), human_count(drawn.spent->plain),
                        100 * (1 - drawn.spent->own / drawn.spent->plain));
  return text;
}

// Latents of one picture.
std::vector<int64_t> latent_of(const Painter& painter) {
  const Json& config = painter.denoiser_opened().checkpoint.config;
  const std::string what = painter.denoiser_opened().checkpoint.what();
  const int64_t side = json_integer(config, "sample_size", what, {1, 512});
  return {json_integer_or(config, "in_channels", 4, what, {1, 4096}), side, side};
}

int64_t side_of(const Painter& painter) {
  return painter.autoencoder().factor() * latent_of(painter).back();
}

// What is asked for and from which noise: the same for every way to draw that may be compared.
Json identity(const ScenesFlags& flags, const SceneTrial& trial, const Painter* painter) {
  std::string captions;
  for (const std::string& caption : trial.captions) captions += caption + "\n";
  Json json = {{"pictures", flags.count},
               {"split", flags.split},
               {"scenes_seed", flags.scene_seed},
               {"first", flags.first},
               {"captions_sha256", sha256_hex(captions)}};
  if (!painter) return json;
  json["seed"] = flags.draw.seed;
  json["latent"] = latent_of(*painter);
  const std::string solver =
      flags.draw.solver.empty() ? solver_of(painter->scheduler_config()) : flags.draw.solver;
  if (solver == "ddpm") json["noise_batch"] = flags.draw.batch;  // its own noise is that of a batch
  return json;
}

class ScenesRun {
 public:
  ScenesRun(const ScenesFlags& flags, Terminal& terminal)
      : flags_(flags), terminal_(terminal), scorers_(scorers_at(flags.scorers)) {
    for (const Scorer& scorer : scorers_) named_.push_back({scorer.name, *scorer.model});
    scene::Options scenes{.seed = flags.scene_seed, .split = split_of(flags.split), .side = 32};
    if (!flags.pipeline.empty()) {
      painter_ = open_painter(flags.pipeline);
      scenes.side = side_of(*painter_);
    }
    trial_ = scene_trial(scenes, flags.first, flags.count);
    json_ = identity(flags, trial_, painter_.get());
    if (!flags.against.empty()) open_other();  // before hours are spent on what cannot be compared
  }

  int run() {
    DrawnBy drawn;
    if (painter_) drawn = drawn_by(*painter_, trial_.captions, flags_, flags_.faster, terminal_.watch());
    const Tensor& seen = painter_ ? drawn.pixels : trial_.real;
    if (!flags_.grid.empty()) write_grid(seen, trial_, flags_);
    const SceneReport report = scene_report(named_, trial_, seen);
    json_.update(to_json(report));
    if (painter_) json_.update(json_of(drawn, flags_));
    std::optional<SceneComparison> comparison;
    if (!flags_.against.empty()) comparison = comparison_of(drawn, report);
    terminal_.clear();
    if (!flags_.json) {
      print(table(report, flags_));
      if (painter_) print(text_of(drawn));
      if (comparison) print(text_of(*comparison));
      if (!flags_.grid.empty()) print(fmt::format("pictures     {}\n", shown(flags_.grid)));
      return Status::ok;
    }
    if (!flags_.grid.empty()) {
      const int64_t some = std::min(flags_.shown, flags_.count);
      json_["captions"] = std::vector<std::string>(trial_.captions.begin(), trial_.captions.begin() + some);
    }
    if (comparison) json_["against"] = to_json(*comparison);
    print(json_.dump(2) + "\n");
    return Status::ok;
  }

 private:
  static std::unique_ptr<Painter> open_painter(const fs::path& folder) {
    return std::make_unique<Painter>(open_pipeline(folder), Painter::Options{});
  }

  void open_other() {
    const std::string what = shown(flags_.against);
    if (!fs::is_directory(flags_.against)) {
      other_ = parse_json(read_file(flags_.against), what);
      check_same_run(json_, other_, what);
      std::vector<std::string> asked;
      for (const Scorer& scorer : scorers_) asked.push_back(scorer.name);
      check_scorers(other_, asked, what);
      return;
    }
    other_painter_ = open_painter(flags_.against);
    if (side_of(*other_painter_) != side_of(*painter_))
      fail("{}: draws pictures of {} pixels, {} of {}; runs are compared on pictures of one size", what,
           side_of(*other_painter_), shown(flags_.pipeline), side_of(*painter_));
    other_ = identity(flags_, trial_, other_painter_.get());
    check_same_run(json_, other_, what);
  }

  SceneComparison comparison_of(const DrawnBy& drawn, const SceneReport& report) {
    const std::string what = shown(flags_.against);
    if (!other_painter_) return compared(json_, other_, what);
    const DrawnBy theirs = drawn_by(*other_painter_, trial_.captions, flags_, {}, terminal_.watch());
    const SceneReport said = scene_report(named_, trial_, theirs.pixels);
    other_.update(to_json(said));
    return with_pictures(
        compared(json_, other_, what),
        {.pixels = drawn.pixels, .report = report, .denoiser_seconds = drawn.denoiser_seconds},
        {.pixels = theirs.pixels, .report = said, .denoiser_seconds = theirs.denoiser_seconds});
  }

  const ScenesFlags& flags_;
  Terminal& terminal_;
  std::vector<Scorer> scorers_;
  std::vector<NamedScorer> named_;
  std::unique_ptr<Painter> painter_, other_painter_;
  SceneTrial trial_;
  Json json_, other_;
};

int score_scenes(const ScenesFlags& flags) {
  Terminal terminal({.quiet = flags.quiet || flags.json});
  use_threads(thread_count(flags.threads));
  return ScenesRun(flags, terminal).run();
}

}  // namespace

int run_scenes(int argc, char** argv) {
  CLI::App app(
      "What a text-to-image pipeline makes of captions of generated scenes, as scorers see it: how often "
      "shape, colour, size, relation, count and ground are what the caption says, with 95 % intervals, "
      "beside "
      "the same scorers on real pictures of the same captions. Without PIPELINE the real pictures alone.\n"
      "--json says also which captions are right, a character each (1, 0, - where nothing is asked): what "
      "--against reads. Two ways to draw are told apart sooner caption by caption than by their two "
      "shares.\n\n"
      "Example: lamina scenes examples/scenes/pipeline --scorer examples/scenes/scorer-1 --grid out.png\n"
      "         lamina scenes examples/scenes/pipeline --scorer examples/scenes/scorer-1 --inherit deep:3\n"
      "         lamina scenes cut --scorer examples/scenes/scorer-1 --against examples/scenes/pipeline",
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
  add_faster_flags(app, flags.faster);
  app.add_option(
      "--against", flags.against,
      "what --json printed of another way to draw the same captions from the same noise, or another "
      "pipeline, which is drawn plainly now: the paired difference of the share of captions that "
      "are all right, with its 95 % interval; of a pipeline also PSNR and Frechet distance");
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
  check(flags.faster);
  if (flags.pipeline.empty() && flags.scorers.empty() && flags.grid.empty())
    fail("a PIPELINE is expected, and --scorer, a folder that reads captions back; lamina scenes --help");
  if (flags.scorers.empty() && flags.grid.empty() && flags.against.empty())
    fail("--scorer is expected, a folder that reads captions back, or --grid for the pictures alone");
  if (!(flags.draw.guidance >= 0 && flags.draw.guidance <= 1000))
    fail("--cfg {}: a number from 0 to 1000 is expected", flags.draw.guidance);
  for (const char* flag : {"--inherit", "--merge", "--switch", "--switch-at"})
    if (app.count(flag) > 0 && flags.pipeline.empty()) fail("{} goes with a PIPELINE", flag);
  if (!flags.against.empty() && flags.pipeline.empty()) fail("--against goes with a PIPELINE");
  if (!flags.against.empty() && flags.scorers.empty() && !fs::is_directory(flags.against))
    fail("--against a file compares what scorers say; name one with --scorer");
  if (app.count("--switch-at") > 0 && flags.faster.other_unet.empty()) fail("--switch-at goes with --switch");
  return score_scenes(flags);
}

}  // namespace lamina::cli
