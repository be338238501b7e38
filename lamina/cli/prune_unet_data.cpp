// Opening what is pruned, and making the samples that it is judged on.
#include <algorithm>
#include <cstring>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/prune_unet.h"
#include "lamina/models/registry.h"
#include "lamina/scene/scene.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// The schedule of Stable Diffusion's own training, for a U-Net that stands alone.
Json usual_scheduler() {
  return {{"_class_name", "DDIMScheduler"}, {"beta_end", 0.012},         {"beta_schedule", "scaled_linear"},
          {"beta_start", 0.00085},          {"clip_sample", false},      {"num_train_timesteps", 1000},
          {"prediction_type", "epsilon"},   {"set_alpha_to_one", false}, {"steps_offset", 1},
          {"timestep_spacing", "leading"}};
}

constexpr int64_t kUsualLatent = 64, kUsualTokens = 77, kUsualFactor = 8;

// "32x48": height and width.
std::pair<int64_t, int64_t> latent_size(const std::string& text, int64_t usual) {
  if (text.empty()) return {usual, usual};
  const std::vector<std::string> sides = split(text, 'x');
  std::vector<int64_t> numbers;
  for (const std::string& side : sides) {
    char* end = nullptr;
    const long long value = std::strtoll(side.c_str(), &end, 10);
    if (side.empty() || *end != '\0' || value < 1 || value > 4096) break;
    numbers.push_back(value);
  }
  if (sides.size() != 2 || numbers.size() != 2)
    fail("--latent {}: height and width are expected, such as 32x32", in_quotes(text));
  return {numbers[0], numbers[1]};
}

struct Given {
  Tensor clean;  // [n, channels, height, width]
  Conditions told;
  std::optional<Conditions> untold;
  std::string source;
};

Conditions noise_conditions(const Subject& subject, int64_t count, uint64_t seed) {
  const unet::Config& config = subject.config;
  Conditions made{.text = random_normal({count, kUsualTokens, config.context[0]}, seed)};
  if (config.added_time_width > 0) {
    const int64_t width = config.added_width - 6 * config.added_time_width;
    const auto height = static_cast<double>(kUsualFactor * subject.height),
               across = static_cast<double>(kUsualFactor * subject.width);
    const Tensor ids = at::tensor(std::vector<double>{height, across, 0, 0, height, across}).to(at::kFloat);
    made.added = {{"text_embeds", random_normal({count, width}, seed + 1)},
                  {"time_ids", ids.unsqueeze(0).repeat({count, 1})}};
  }
  return made;
}

// A U-Net without text encoder and autoencoder: normal numbers for latents and texts.
Given of_noise(const Subject& subject, int64_t count, uint64_t seed) {
  Given given{
      .clean = random_normal({count, subject.config.in_channels, subject.height, subject.width}, seed),
      .told = noise_conditions(subject, count, seed + 1),
      .untold = noise_conditions(subject, count, seed + 1),
      .source = fmt::format("{} normal latents with normal texts", count)};
  given.untold->text = at::zeros_like(given.untold->text);
  return given;
}

std::string caption_at(const std::vector<std::string>& captions, int64_t index) {
  return captions[static_cast<size_t>(index) % captions.size()];
}

// Pictures as latents, one by one: an autoencoder at full size wants much memory.
Tensor encoded(const Subject& subject, const std::vector<lamina::Picture>& pictures, const Watch& watch) {
  const vae::Autoencoder& vae = subject.painter->autoencoder();
  const int64_t height = subject.height * vae.factor(), width = subject.width * vae.factor();
  std::vector<Tensor> latents;
  for (const lamina::Picture& picture : pictures) {
    if (watch.stop.stop_requested()) throw Stopped{};
    latents.push_back(vae.encode(pixels_of(resized(flat(picture), width, height))));
    watch.report({.phase = "encode",
                  .done = static_cast<double>(latents.size()),
                  .total = static_cast<double>(pictures.size()),
                  .detail = ""});
  }
  return at::cat(latents, 0);
}

struct Captioned {
  std::vector<lamina::Picture> pictures;
  std::vector<std::string> captions;
};

Captioned painted_scenes(const Subject& subject, int64_t count, uint64_t seed) {
  Captioned made;
  const int64_t side = subject.height * subject.painter->autoencoder().factor();
  for (int64_t i = 0; i < count; ++i) {
    const scene::Scene one = scene::scene_at(static_cast<uint64_t>(i),
                                             {.seed = seed, .split = scene::Split::validation, .side = side});
    made.pictures.push_back(scene::painted(one));
    made.captions.push_back(scene::caption(one));
  }
  return made;
}

// NAME.png with its caption in NAME.txt.
Captioned pictures_in(const fs::path& folder, int64_t count) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".png") files.push_back(entry.path());
  std::ranges::sort(files);
  if (static_cast<int64_t>(files.size()) < count)
    fail("--pictures {}: holds {} PNG files where {} are needed (--samples and --heldout)", folder.string(),
         files.size(), count);
  Captioned read;
  for (int64_t i = 0; i < count; ++i) {
    const fs::path& file = files[static_cast<size_t>(i)];
    fs::path text = file;
    text.replace_extension(".txt");
    read.pictures.push_back(read_png(file).picture);
    read.captions.emplace_back(trim(read_file(text, size_t{1} << 20)));
  }
  return read;
}

// Latents that the pipeline draws itself, kept beside the journal.
Tensor drawn(const Subject& subject, const UnetOptions& options, const Conditions& told,
             const Conditions& untold, const fs::path& kept, const Watch& watch) {
  const int64_t count = told.text.size(0);
  const std::unique_ptr<Denoiser> denoiser = plain(subject.model());
  std::vector<Tensor> latents;
  const auto row = [](const Conditions& conditions, int64_t i) {
    Conditions one{.text = conditions.text.narrow(0, i, 1)};
    for (const auto& [name, tensor] : conditions.added) one.added[name] = tensor.narrow(0, i, 1);
    return one;
  };
  for (int64_t i = 0; i < count; ++i) {
    const fs::path file = kept / fmt::format("latent-{}.f32", i);
    const std::vector<int64_t> sizes = {1, subject.config.in_channels, subject.height, subject.width};
    if (fs::exists(file)) {
      const std::string bytes = read_file(file);
      const Tensor read = at::empty(sizes, at::kFloat);
      if (bytes.size() != read.nbytes())
        fail("{}: has the wrong size; run again without --resume", file.string());
      std::memcpy(read.data_ptr(), bytes.data(), bytes.size());
      latents.push_back(read);
      continue;
    }
    if (watch.stop.stop_requested()) throw Stopped{};
    const auto seed = static_cast<uint64_t>(options.seed) + 1000 + static_cast<uint64_t>(i);
    Watch quiet = watch;
    quiet.tick = {};
    latents.push_back(sample(*denoiser, subject.scheduler, row(told, i), row(untold, i),
                             {.steps = options.draw_steps,
                              .guidance = options.cfg,
                              .noise = starting_noise(1, at::IntArrayRef(sizes).slice(1), seed),
                              .seed = seed,
                              .watch = quiet})
                          .to(at::kFloat)
                          .contiguous());
    write_file(file, {static_cast<const char*>(latents.back().const_data_ptr()), latents.back().nbytes()});
    watch.report({.phase = "draw",
                  .done = static_cast<double>(i + 1),
                  .total = static_cast<double>(count),
                  .detail = ""});
  }
  return at::cat(latents, 0);
}

}  // namespace

std::string Subject::name() const {
  const fs::path normal = path.lexically_normal();
  return shown(normal.has_filename() ? normal.filename() : normal.parent_path().filename());
}

Subject open_subject(const fs::path& path, const UnetOptions& options) {
  use_threads(static_cast<int>(options.threads));
  Subject subject{.path = path};
  if (is_pipeline(path)) {
    subject.pipeline = open_pipeline(path);
    subject.painter = std::make_unique<Painter>(*subject.pipeline, Painter::Options{});
    subject.schedule = subject.painter->schedule();
    subject.scheduler = subject.painter->scheduler_config();
  } else {
    subject.alone = open(path);
    subject.alone_model = build_model(*subject.alone);
    subject.scheduler = usual_scheduler();
    subject.schedule = noise_schedule(subject.scheduler, "the usual schedule");
  }
  subject.config = unet::read_config(subject.opened().checkpoint.config, subject.opened().checkpoint.what());
  std::tie(subject.height, subject.width) =
      latent_size(options.latent, subject.config.sample_size > 0 ? subject.config.sample_size : kUsualLatent);
  return subject;
}

std::vector<std::string> captions_from(const fs::path& file) {
  std::vector<std::string> captions;
  for (const std::string& line : split(read_file(file, size_t{64} << 20), '\n'))
    if (!trim(line).empty()) captions.emplace_back(trim(line));
  if (captions.empty()) fail("{}: holds no caption; one a line is expected", file.string());
  return captions;
}

UnetData make_data(const Subject& subject, const UnetOptions& options,
                   const std::vector<std::string>& captions, const fs::path& kept, const Watch& watch) {
  const InferenceMode evaluating;
  const int64_t count = options.samples + options.heldout;
  const auto seed = static_cast<uint64_t>(options.seed);
  UnetData data;
  Given given;
  if (!subject.painter) {
    given = of_noise(subject, count, seed);
  } else {
    const int64_t factor = subject.painter->autoencoder().factor(), height = factor * subject.height,
                  width = factor * subject.width;
    std::optional<Captioned> pictures;
    if (options.of_scenes())
      pictures = painted_scenes(subject, count, seed);
    else if (options.pictures != "drawn")
      pictures = pictures_in(options.pictures, count);
    for (int64_t i = 0; i < count; ++i)
      data.captions.push_back(pictures ? pictures->captions[static_cast<size_t>(i)]
                                       : caption_at(captions, i));
    given.told = subject.painter->conditions(data.captions, height, width);
    given.untold = subject.painter->unconditional(count, height, width);
    given.clean = pictures ? encoded(subject, pictures->pictures, watch)
                           : drawn(subject, options, given.told, *given.untold, kept, watch);
    given.source = options.of_scenes() ? fmt::format("{} painted scenes with their captions", count)
                   : pictures          ? fmt::format("{} pictures with their captions", count)
                                       : fmt::format("{} latents that the pipeline drew for captions", count);
  }
  const auto part = [&](int64_t first, int64_t n, uint64_t own_seed) {
    const auto cut = [&](const Conditions& conditions) {
      Conditions some{.text = conditions.text.narrow(0, first, n)};
      for (const auto& [name, tensor] : conditions.added) some.added[name] = tensor.narrow(0, first, n);
      return some;
    };
    std::optional<Conditions> untold;
    if (given.untold) untold = cut(*given.untold);
    return laptop::calibration(subject.schedule, given.clean.narrow(0, first, n), cut(given.told), untold,
                               {.batch = options.batch, .seed = own_seed, .source = given.source});
  };
  data.scoring = part(0, options.samples, seed + 10);
  data.heldout = part(options.samples, options.heldout, seed + 20);
  if (laptop::criterion_from_name(options.criterion) != laptop::Criterion::guided) {
    for (auto* calibration : {&data.scoring, &data.heldout})  // half the passes, where nobody asks
      for (laptop::CalibrationBatch& batch : calibration->batches) batch.unguided.reset();
  }
  const auto prompts = [&](int64_t first, int64_t count) {
    const auto rows = [&](const Conditions& conditions) {
      Conditions some{.text = conditions.text.narrow(0, first, count)};
      for (const auto& [name, tensor] : conditions.added) some.added[name] = tensor.narrow(0, first, count);
      return some;
    };
    return UnetData::Prompts{.told = rows(given.told),
                             .untold = rows(given.untold ? *given.untold : given.told)};
  };
  data.shown = prompts(options.samples, std::min(options.trajectory, options.heldout));
  data.tried = prompts(0, std::min(options.scored_pictures, options.samples));
  return data;
}

}  // namespace lamina::cli
