#include "lamina/cli/train_scenes.h"

#include <fmt/format.h>

#include <cmath>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/fields.h"
#include "lamina/base/text.h"
#include "lamina/cli/session.h"
#include "lamina/diffusion/schedule.h"
#include "lamina/heal/ema.h"
#include "lamina/heal/from_config.h"
#include "lamina/heal/scene_batches.h"
#include "lamina/heal/scene_objectives.h"
#include "lamina/heal/scene_tokens.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// Reads each field from the key of its name, and knows the names.
struct FieldReader {
  const Json& json;
  const std::string& what;
  std::set<std::string> known = {};
  template <class T>
  void operator()(T& field, const char* name, const char* /*help*/) {
    known.insert(name);
    if (!json_has(json, name)) return;
    if constexpr (std::is_same_v<T, bool>)
      field = json_bool_or(json, name, field, what);
    else if constexpr (std::is_same_v<T, std::string>)
      field = json_string(json, name, what);
    else if constexpr (std::is_floating_point_v<T>)
      field = json_number_or(json, name, field, what);
    else
      field = static_cast<T>(json_integer(json, name, what));
  }
};

TrainOptions training_of(const Json& json, std::string what) {
  what += ": \"training\"";
  TrainOptions options;
  if (!json.is_object()) fail("{}: is not an object", what);
  FieldReader read{json, what};
  options.fields(read);
  for (const auto& [key, value] : json.items()) {
    if (key != "schedule" && !read.known.contains(key))
      fail("{}: the key {} means nothing here", what, in_quotes(key));
  }
  if (json_has(json, "schedule")) options.schedule = schedule_from_name(json_string(json, "schedule", what));
  check(options, "training: ");
  return options;
}

// One file, read.
struct Task {
  std::string kind;
  Json json;
  std::string what;
  fs::path from;  // where paths are seen from
  uint64_t seed = 0;
  scene::Options scenes = {};
  std::optional<DType> weights = {};
  double averages = 0;
  TrainOptions training = {};

  const Json& object(const char* key) const {
    if (!json_has(json, key) || !json.at(key).is_object()) fail("{}: \"{}\" is to be an object", what, key);
    return json.at(key);
  }
  double number(const char* key, double otherwise) const {
    return json_number_or(json, key, otherwise, what);
  }
};

Task read_task(const SceneTraining& asked) {
  Task task{.kind = {},
            .json = parse_json(read_file(asked.config), asked.config.string()),
            .what = asked.config.string(),
            .from = asked.config.parent_path()};
  task.kind = json_string(task.json, "kind", task.what);
  if (task.kind == "scorer")
    check_keys(task.json, {"kind", "model", "scenes", "seed", "weights", "averages", "training"}, task.what);
  else if (task.kind == "autoencoder")
    check_keys(task.json,
               {"kind", "model", "scenes", "seed", "weights", "averages", "training", "latent-noise",
                "latent-square"},
               task.what);
  else if (task.kind == "denoiser")
    check_keys(task.json,
               {"kind", "model", "text-encoder", "autoencoder", "scheduler", "scenes", "seed", "weights",
                "averages", "training", "dropped", "snr-cap", "snr-floor", "from"},
               task.what);
  else
    fail("{}: \"kind\" is {}; scorer, autoencoder and denoiser are possible", task.what,
         in_quotes(task.kind));
  task.seed = asked.seed
                  ? *asked.seed
                  : static_cast<uint64_t>(json_integer_or(task.json, "seed", 0, task.what, {.min = 0}));
  const Json& scenes = task.object("scenes");
  check_keys(scenes, {"seed", "side"}, task.what + ": \"scenes\"");
  // Runs of other seeds see other scenes, unless the file says which.
  task.scenes = {.seed = json_has(scenes, "seed")
                             ? static_cast<uint64_t>(json_integer(scenes, "seed", task.what, {.min = 0}))
                             : task.seed,
                 .split = scene::Split::train,
                 .side = json_integer_or(scenes, "side", 32, task.what, {.min = 16, .max = 1024})};
  task.averages = task.number("averages", 0);
  if (json_has(task.json, "weights"))
    task.weights = written_type(json_string(task.json, "weights", task.what));
  task.training = training_of(task.object("training"), task.what);
  task.training.seed = task.seed;
  if (asked.steps) task.training.steps = *asked.steps;
  return task;
}

// What every kind does: the loop, and the averages in place of the weights when it ends.
class Runner {
 public:
  Runner(Group& group, const SceneTraining& asked, const TrainingFlags& flags, const Task& task)
      : group_(group),
        task_(task),
        device_(device_of(flags.device, group)),
        terminal_({.quiet = flags.quiet || flags.json || group.rank() != 0}),
        folder_(asked.out,
                {.resume = flags.resume,
                 .replace = flags.force,
                 .inputs = {asked.config},
                 .command = asked.command},
                group) {}

  Trained operator()(Student& student, const Objective& objective, const Batches& batches) {
    const TrainOptions options = folder_.with_state(task_.training);
    std::vector<Parameter> parameters = student.parameters();
    for (Parameter& parameter : objective.parameters()) parameters.push_back(std::move(parameter));
    if (task_.averages > 0) averaging_.emplace(std::move(parameters), task_.averages);
    Hook none;
    Follow follow(terminal_, options, {.log = folder_.log(), .quiet = group_.rank() != 0});
    Trained trained = train(student, objective, {.train = batches}, options, averaging_ ? *averaging_ : none,
                            group_, follow.watch(), follow.on_step());
    if (trained.broke_at > 0)
      fail("step {}: {} is not a number; a lower rate or a longer warm-up may help", trained.broke_at,
           trained.broke_on);
    if (averaging_) shown_.emplace(*averaging_);
    if (group_.rank() == 0) follow.finish(trained);
    return trained;
  }
  at::Device device() const { return device_; }
  // An empty folder of what is written.
  fs::path made(const char* name) const {
    const fs::path path = folder_.path() / name;
    fs::remove_all(path);
    fs::create_directories(path);
    return path;
  }
  void commit(const std::string& said) {
    folder_.commit();
    terminal_.clear();
    print(said);
  }
  fs::path target(const char* name) const { return folder_.target() / name; }

 private:
  Group& group_;
  const Task& task_;
  at::Device device_;
  Terminal terminal_;
  TrainingFolder folder_;
  std::optional<Averaging> averaging_;
  std::optional<Averaging::Shown> shown_;  // from when training has ended
};

double mean_loss(const Trained& trained) {
  const size_t some = std::max<size_t>(1, trained.curve.size() / 20);
  double sum = 0;
  for (size_t i = trained.curve.size() - some; i < trained.curve.size(); ++i) sum += trained.curve[i].loss;
  return sum / static_cast<double>(some);
}

std::string took(const Trained& trained) {
  double seconds = 0;
  for (const StepRecord& record : trained.curve) seconds += record.seconds;
  return fmt::format("{} steps in {}, loss {:.4g} over the last twentieth",
                     thousands(std::ssize(trained.curve)), human_seconds(seconds), mean_loss(trained));
}

Checkpoint written(const Student& student, const Task& task, const fs::path& folder) {
  Checkpoint checkpoint = student.now(task.weights).checkpoint;
  write_folder(checkpoint, folder, {.dtype = task.weights, .watch = {}});
  return checkpoint;
}

int train_scorer(Runner& run, const Task& task) {
  Json config = task.object("model");
  if (!config.contains("heads")) {
    config["heads"] = Json::object();
    for (const scene::Head& head : scene::heads()) config["heads"][head.name] = head.classes;
  }
  Student student(from_config(config, "scorer", {.seed = task.seed}),
                  {.decay_all = false, .device = run.device()});
  std::vector<int64_t> classes;
  for (const scene::Head& head : scene::heads()) classes.push_back(head.classes);
  const auto batches = scorer_batches(task.scenes, task.seed);
  const Trained trained = run(student, *classification(std::move(classes)), *batches);
  written(student, task, run.made("model"));
  run.commit(fmt::format("scorer       {}\n             {}\n", run.target("model").string(), took(trained)));
  return Status::ok;
}

// Latents of pictures that training did not see: their deviation, and what comes back of the pictures.
struct Coded {
  double deviation = 0, psnr = 0;
};
Coded coded(const vae::Autoencoder& model, scene::Options scenes, at::Device device) {
  const InferenceMode guard;
  scenes.split = scene::Split::validation;
  constexpr int64_t kPictures = 512, kBatch = 64;
  double sum = 0, square = 0, numbers = 0, error = 0;
  for (int64_t first = 0; first < kPictures; first += kBatch) {
    const Tensor pixels = scene_pixels(scenes, first, kBatch).to(device), latents = model.encode(pixels);
    const Tensor wide = latents.to(at::kDouble);
    sum += wide.sum().item<double>();
    square += wide.square().sum().item<double>();
    numbers += static_cast<double>(latents.numel());
    error +=
        (model.decode(latents).clamp(-1, 1) - pixels).square().mean().item<double>() * kBatch / kPictures;
  }
  const double mean = sum / numbers;
  return {.deviation = std::sqrt(square / numbers - mean * mean), .psnr = 10 * std::log10(4 / error)};
}

int train_autoencoder(Runner& run, const Task& task) {
  Student student(from_config(task.object("model"), "autoencoder", {.seed = task.seed}),
                  {.decay_all = false, .device = run.device()});
  const NoisyLatents loss{.noise = task.number("latent-noise", NoisyLatents{}.noise),
                          .square = task.number("latent-square", NoisyLatents{}.square)};
  const auto batches = picture_batches(task.scenes);
  const Trained trained = run(student, *noisy_reconstruction(loss), *batches);
  const auto& model = dynamic_cast<const vae::Autoencoder&>(student.model());
  const Coded found = coded(model, task.scenes, run.device());
  // The denoiser is to read latents of deviation one.
  Checkpoint checkpoint = student.now(task.weights).checkpoint;
  checkpoint.config["scaling_factor"] =
      std::round(1e4 * json_number_or(checkpoint.config, "scaling_factor", 1, task.what) / found.deviation) /
      1e4;
  write_folder(checkpoint, run.made("model"), {.dtype = task.weights, .watch = {}});
  run.commit(fmt::format("autoencoder  {}\n             {}; {:.2f} dB, deviation of latents {:.4f}\n",
                         run.target("model").string(), took(trained), found.psnr, found.deviation));
  return Status::ok;
}

Json pipeline_index() {
  return {{"_class_name", "StableDiffusionPipeline"},
          {"_diffusers_version", "0.30.0"},
          {"feature_extractor", {nullptr, nullptr}},
          {"image_encoder", {nullptr, nullptr}},
          {"requires_safety_checker", false},
          {"safety_checker", {nullptr, nullptr}},
          {"scheduler", {"diffusers", "DDIMScheduler"}},
          {"text_encoder", {"transformers", "CLIPTextModel"}},
          {"tokenizer", {"transformers", "PreTrainedTokenizerFast"}},
          {"unet", {"diffusers", "UNet2DConditionModel"}},
          {"vae", {"diffusers", "AutoencoderTiny"}}};
}

// As seen from the file.
fs::path path_of(const Task& task, const char* key) {
  return (task.from / json_string(task.json, key, task.what)).lexically_normal();
}

int train_denoiser(Runner& run, const Task& task) {
  const fs::path coder = path_of(task, "autoencoder");
  const Opened coder_opened = open(coder);
  const auto autoencoder = vae::build_autoencoder(coder_opened.checkpoint, coder_opened.blueprint,
                                                  Weights(coder_opened.checkpoint, {}));
  Json text_config = task.object("text-encoder");
  const Tokenizer tokenizer = scene_tokenizer();
  text_config["vocab_size"] = tokenizer.size();
  text_config["max_position_embeddings"] = kSceneTokens;
  text_config["bos_token_id"] = *tokenizer.bos();
  text_config["eos_token_id"] = text_config["pad_token_id"] = *tokenizer.eos();
  // A pipeline that an earlier run left, or first numbers.
  const bool goes_on = json_has(task.json, "from");
  const fs::path before = goes_on ? path_of(task, "from") : fs::path();
  Student student(
      goes_on ? open(before / "unet") : from_config(task.object("model"), "unet", {.seed = task.seed}),
      {.decay_all = false, .device = run.device()});
  const auto encoder = std::make_shared<Student>(
      goes_on ? open(before / "text_encoder")
              : from_config(text_config, "text_encoder", {.seed = task.seed, .law = FirstLaw::torch}),
      Student::Options{.decay_all = false, .device = run.device()});
  const NoiseSchedule schedule = noise_schedule(task.object("scheduler"), task.what + ": \"scheduler\"");
  const auto tokens = scene_tokens();
  const auto batches = denoiser_batches(
      {.scenes = task.scenes, .seed = task.seed, .dropped = task.number("dropped", DenoiserData{}.dropped)},
      *autoencoder, *tokens, schedule);
  const SnrWeights weights{.floor = task.number("snr-floor", 0), .cap = task.number("snr-cap", 0)};
  const auto objective = weights.cap > 0 ? weighted_denoising(learning(encoder), schedule, weights)
                                         : denoising(learning(encoder));
  const Trained trained = run(student, *objective, *batches);

  const fs::path pipeline = run.made("pipeline");
  const auto sub = [&](const char* name) {
    fs::create_directories(pipeline / name);
    return pipeline / name;
  };
  written(student, task, sub("unet"));
  written(*encoder, task, sub("text_encoder"));
  write_folder(coder_opened.checkpoint, sub("vae"), {.dtype = task.weights, .watch = {}});
  for (const auto& [name, text] : scene_tokenizer_files()) write_file(sub("tokenizer") / name, text);
  write_file(sub("scheduler") / "scheduler_config.json", task.object("scheduler").dump(2) + "\n");
  write_file(pipeline / "model_index.json", pipeline_index().dump(2) + "\n");
  run.commit(
      fmt::format("pipeline     {}\n             {}\n", run.target("pipeline").string(), took(trained)));
  return Status::ok;
}

}  // namespace

bool trains_on_scenes(const fs::path& config) {
  return fs::is_regular_file(config) && json_has(parse_json(read_file(config), config.string()), "kind");
}

int train_on_scenes(Group& group, const SceneTraining& training, const TrainingFlags& flags) {
  if (group.size() > 1) fail("networks on scenes are trained by one rank; {} were started", group.size());
  const Task task = read_task(training);
  Runner run(group, training, flags, task);
  use_threads(thread_count(flags.threads));
  if (task.kind == "scorer") return train_scorer(run, task);
  if (task.kind == "autoencoder") return train_autoencoder(run, task);
  return train_denoiser(run, task);
}

}  // namespace lamina::cli
