// lamina train: a small model from nothing, as one file describes it.
#include <fmt/format.h>

#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/session.h"
#include "lamina/cli/train_config.h"
#include "lamina/cli/train_scenes.h"
#include "lamina/cli/training_run.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// The flags that a config can be overruled by: several runs of one config, and where it runs.
struct TrainFlags {
  fs::path config, out;
  std::optional<uint64_t> seed;
  std::optional<int64_t> steps;
};

int train_from_nothing(Group& group, const TrainFlags& flags, const TrainingFlags& training,
                       const std::string& command) {
  Terminal terminal({.quiet = training.quiet || training.json || group.rank() != 0});
  const Watch watch = terminal.watch();
  TrainConfig config = read_train_config(flags.config);
  if (flags.seed) config.seed = config.training.seed = *flags.seed;
  if (flags.steps) config.training.steps = *flags.steps;
  check(config.training, "training: ");
  const at::Device device = device_of(training.device, group);

  TrainingFolder folder(flags.out,
                        {.resume = training.resume,
                         .replace = training.force,
                         .inputs = inputs_of(config.texts, {flags.config, config.tokenizer}),
                         .command = command},
                        group);
  use_threads(thread_count(training.threads));
  Made made = model_from(config, flags.config);
  TextData data = text_data(config.texts, made.tokenizer, made.opened.blueprint, config.training.seed, watch);
  const std::string name = model_name(made.opened);
  TrainingJob job{.title = fmt::format("Training {} from nothing", name),
                  .card_title = name,
                  .command = command,
                  .opened = std::move(made.opened),
                  .tokenizer = std::move(made.tokenizer),
                  .data = std::move(data),
                  .validation_samples = config.texts.validation_samples,
                  .options = config.training,
                  .student = {.dtype = arithmetic_of(config.dtype), .device = device},
                  .weights = config.weights,
                  .json = training.json,
                  .quiet = training.quiet};
  job.settings = {{"config", fmt::format("{} (sha256 {})", shown(flags.config.filename()),
                                         sha256_hex(read_file(flags.config)))},
                  {"architecture", std::string(job.opened.architecture->name)},
                  {"first numbers",
                   fmt::format("normal, deviation {}, what writes to the residual divided by {:.4g}; seed {}",
                               config.deviation, std::sqrt(2.0 * job.opened.blueprint.blocks), config.seed)}};
  for (auto& row : running_settings(config.dtype, training, group)) job.settings.push_back(std::move(row));
  return run_training(group, folder, terminal, std::move(job));
}

}  // namespace

int run_train(int argc, char** argv) {
  CLI::App app(
      "Train a small model from nothing, as a JSON file says.\n\n"
      "Example: lamina train examples/tiny-gpt2.json -o tiny\n"
      "The file holds \"model\" (the config.json of an architecture known here), \"tokenizer\" (\"bytes\", a "
      "model's "
      "folder or a tokenizer.json), \"data\" and \"validation\" (lists of texts; or a share such as 0.05), "
      "\"length\", "
      "\"seed\", \"initialisation\" and \"training\" (the options of `lamina heal`). Paths are seen from the "
      "file.\n"
      "Ctrl-C stops after the present step; the same command with --resume goes on, as it does after a "
      "crash.",
      "train");
  TrainFlags flags;
  TrainingFlags training;
  app.add_option("CONFIG", flags.config, "JSON file")->required();
  app.add_option("-o,--output", flags.out, "folder to write")->required();
  app.add_option("--seed", flags.seed,
                 "in place of the file's, for the first numbers and the order of the text")
      ->group("Training");
  app.add_option("--steps", flags.steps, "in place of the file's")->group("Training");
  add_running_flags(app, training);
  parse(app, argc, argv);
  const std::string command = command_line(argc, argv, "train");
  keep_memory_between_steps();
  if (trains_on_scenes(flags.config)) {
    const SceneTraining scenes{.config = flags.config,
                               .out = flags.out,
                               .seed = flags.seed,
                               .steps = flags.steps,
                               .command = command};
    return together(group_options(training),
                    [&](Group& group) { return train_on_scenes(group, scenes, training); });
  }
  return together(group_options(training),
                  [&](Group& group) { return train_from_nothing(group, flags, training, command); });
}

}  // namespace lamina::cli
