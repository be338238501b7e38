// lamina heal: let a model learn from text, from another model, or from both, and write what became of it.
#include <fmt/format.h>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/heal_pipeline.h"
#include "lamina/cli/session.h"
#include "lamina/cli/training_run.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

struct HealFlags {
  fs::path model, out, teacher;
  int64_t rank = 0;
  double alpha = 32;
  std::string targets, frozen, forms, weights;
  bool adapter = false;
  DistillOptions distil = {};
};

// The teacher where the student is, in its arithmetic.
std::shared_ptr<const Model> teacher_of(const Opened& opened, const Student::Options& student) {
  Weights::Options options{.dtype = student.dtype};
  if (!student.device.is_cpu()) {
    for (const Slot& slot : opened.blueprint.slots) {
      if (const Stored* stored = opened.checkpoint.find(slot.name))
        options.trained.emplace(slot.name, load(*stored, student.dtype).to(student.device));
    }
  }
  return build_model(opened, std::move(options));
}

void add_heal_flags(CLI::App& app, HealFlags& flags) {
  app.add_option("MODEL", flags.model, "folder or GGUF file")->required();
  app.add_option("-o,--output", flags.out, "folder to write")->required();
  app.add_option("--lora", flags.rank, "train adapters of this rank in place of the weights")
      ->check(CLI::Range(1, 1 << 16))
      ->group("What learns");
  app.add_option("--alpha", flags.alpha, "of the adapters: what they say is multiplied by alpha / rank")
      ->capture_default_str()
      ->group("What learns");
  app.add_option(
         "--targets", flags.targets,
         "linear maps that get an adapter, globs over their paths, comma-separated: '*.q_proj,*.v_proj' "
         "(default: all of every part)")
      ->group("What learns");
  app.add_option("--frozen", flags.frozen,
                 "tensors that stay as they are, globs over their names, comma-separated")
      ->group("What learns");
  app.add_option("--teacher", flags.teacher, "learn from what this model says: folder or GGUF file")
      ->group("Distillation");
  app.add_option("--temperature", flags.distil.temperature, "at which student and teacher are compared")
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--soft", flags.distil.logits, "weight of the teacher's distribution")
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--hidden", flags.distil.hidden, "weight of the difference of the streams after each block")
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--hard", flags.distil.cross_entropy, "weight of the text itself")
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--export", flags.forms,
                 "hf-compact, hf-zeroed, hf-perlayer, gguf, gguf:f16, gguf:f32, gguf:q8_0; comma-separated "
                 "(default: the stock folder)")
      ->group("What is written");
  app.add_option("--weights", flags.weights,
                 "type of the folders' weights: float32, float16, bfloat16 (default: as they came)")
      ->group("What is written");
  app.add_flag("--adapter", flags.adapter,
               "beside the merged model, the adapter as peft reads it (needs --lora)")
      ->group("What is written");
}

int heal(Group& group, const HealFlags& flags, const TrainingFlags& training, const DataFlags& texts,
         const TrainOptions& options, const std::string& command) {
  Terminal terminal({.quiet = training.quiet || training.json || group.rank() != 0});
  const Watch watch = terminal.watch();
  const std::vector<FormRequest> forms =
      flags.forms.empty() ? std::vector<FormRequest>{} : parse_forms(flags.forms);
  std::optional<DType> weights;
  if (!flags.weights.empty()) weights = written_type(flags.weights);
  Student::Options student{.dtype = arithmetic_of(training.dtype),
                           .frozen = globs_of(flags.frozen),
                           .seed = options.seed,
                           .device = device_of(training.device, group)};
  if (flags.rank > 0)
    student.lora = {.rank = flags.rank, .alpha = flags.alpha, .targets = globs_of(flags.targets)};

  TrainingFolder folder(flags.out,
                        {.resume = training.resume,
                         .replace = training.force,
                         .inputs = inputs_of(texts, {flags.model, flags.teacher}),
                         .command = command},
                        group);
  use_threads(thread_count(training.threads));
  Opened opened = open(flags.model);
  check_speaks(opened.blueprint, flags.model.string());
  Tokenizer tokenizer = tokenizer_of(opened.checkpoint);
  TextData data = text_data(texts, tokenizer, opened.blueprint, options.seed, watch);
  const std::string name = model_name(opened), hash = opened.checkpoint.hash(watch);

  TrainingJob job{.title = fmt::format("Healing {}", name),
                  .card_title = name + ", healed",
                  .base_model = name,
                  .command = command,
                  .opened = std::move(opened),
                  .tokenizer = std::move(tokenizer),
                  .data = std::move(data),
                  .validation_samples = texts.validation_samples,
                  .options = options,
                  .student = student,
                  .forms = forms,
                  .weights = weights,
                  .json = training.json,
                  .quiet = training.quiet};
  job.settings = {
      {"model", fmt::format("{} (sha256 {})", name, hash)},
      {"what learns", flags.rank > 0
                          ? fmt::format("adapters of rank {}, alpha {}, on {}", flags.rank, flags.alpha,
                                        flags.targets.empty() ? "every linear map" : flags.targets)
                          : "every weight"}};
  if (!flags.frozen.empty()) job.settings.emplace_back("frozen", flags.frozen);
  if (!flags.teacher.empty()) {
    const Opened teacher = open(flags.teacher);
    job.distil = flags.distil;
    job.distil.teacher = teacher.checkpoint.hash(watch);
    job.teacher = teacher_of(teacher, student);
    job.settings.emplace_back("teacher",
                              fmt::format("{} (sha256 {})", model_name(teacher), job.distil.teacher));
    job.settings.emplace_back(
        "distillation", fmt::format("temperature {}, soft {}, hidden {}, hard {}", flags.distil.temperature,
                                    flags.distil.logits, flags.distil.hidden, flags.distil.cross_entropy));
  }
  for (auto& row : running_settings(training.dtype, training, group)) job.settings.push_back(std::move(row));
  if (flags.adapter) job.adapter_base = shown(flags.model);
  return run_training(group, folder, terminal, std::move(job));
}

}  // namespace

int run_heal(int argc, char** argv) {
  if (heals_pipeline(argc, argv)) return run_heal_pipeline(argc, argv);
  CLI::App app(
      "Let a model learn from text, from a teacher, or from both, and write what became of it.\n\n"
      "Example: lamina heal smaller --data book.txt --lora 16 --steps 200 -o healed\n"
      "         lamina heal smaller --data book.txt --teacher MODEL --temperature 2 -o healed\n"
      "         torchrun --no-python --nproc-per-node 2 lamina heal MODEL --data book.txt --accumulate 2 -o "
      "OUT\n"
      "A pipeline is healed from pictures: lamina heal PIPELINE --help.\n"
      "Ctrl-C stops after the present step; the same command with --resume goes on, as it does after a "
      "crash.",
      "heal");
  HealFlags flags;
  TrainingFlags training;
  DataFlags texts;
  add_heal_flags(app, flags);
  add_data_flags(app, texts);
  add_training_flags(app, training);
  parse(app, argc, argv);
  // What is not used is refused, so that no report says that it was.
  for (const char* flag : {"--alpha", "--targets", "--adapter"}) {
    if (app.count(flag) > 0 && flags.rank == 0) fail("{} goes with --lora", flag);
  }
  for (const char* flag : {"--temperature", "--soft", "--hidden", "--hard"}) {
    if (app.count(flag) > 0 && flags.teacher.empty()) fail("{} goes with --teacher", flag);
  }
  const TrainOptions options = options_of(training);
  const std::string command = command_line(argc, argv, "heal");
  keep_memory_between_steps();
  return together(group_options(training),
                  [&](Group& group) { return heal(group, flags, training, texts, options, command); });
}

}  // namespace lamina::cli
