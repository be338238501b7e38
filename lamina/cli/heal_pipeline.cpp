#include "lamina/cli/heal_pipeline.h"

#include <fmt/format.h>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/checkpoint/pipeline.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/heal_pipeline_asdm.h"
#include "lamina/cli/heal_pipeline_flags.h"
#include "lamina/cli/heal_pipeline_run.h"
#include "lamina/cli/session.h"
#include "lamina/heal/denoise.h"
#include "lamina/heal/ema.h"
#include "lamina/heal/hooks.h"
#include "lamina/heal/noised.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kTogether = "all together";  // the last stretch of an incubation

Opened denoiser_of(const Pipeline& pipeline) {
  if (!pipeline.has("unet")) fail("{}: has no unet", pipeline.path.string());
  return open(pipeline.folder("unet"));
}

// Pixels a side that the denoiser was made for.
int64_t usual_side(const Opened& denoiser, const Painter& painter) {
  const int64_t latents =
      json_integer_or(denoiser.checkpoint.config, "sample_size", 0, denoiser.checkpoint.what());
  if (latents < 1) fail("the denoiser does not say what pictures it was made for; name a --size");
  return latents * painter.autoencoder().factor();
}

// Pictures to learn from and others, and what the denoiser reads of them.
struct PictureData {
  std::unique_ptr<CaptionedPictures> all = {}, learnt = {}, held = {};
  std::unique_ptr<Batches> train = {}, validation = {};
};

PictureData data_of(const PipelineFlags& flags, const Painter& painter, int64_t side, uint64_t seed) {
  if (flags.held_out < 1) fail("--held-out {}: it takes one picture or more", flags.held_out);
  PictureData data;
  if (flags.pictures == kScenes) {
    const scene::Options scenes{.seed = flags.scene_seed, .split = scene::Split::train, .side = side};
    data.learnt = scene_pictures(scenes, flags.scenes);
    data.held = scene_pictures({.seed = flags.scene_seed, .split = scene::Split::validation, .side = side},
                               flags.held_out);
  } else {
    data.all = folder_pictures(flags.pictures, {.width = side, .height = side});
    if (flags.held_out >= data.all->size())
      fail("{}: has {} pictures, and {} are to be held out; give more pictures or a smaller --held-out",
           flags.pictures, data.all->size(), flags.held_out);
    const int64_t learnt = data.all->size() - flags.held_out;
    data.learnt = some_of(*data.all, 0, learnt);
    data.held = some_of(*data.all, learnt, flags.held_out);
  }
  data.train = noised_pictures(*data.learnt, painter, {.seed = seed, .dropped = flags.dropped});
  data.validation = noised_pictures(
      *data.held, painter, {.seed = seed + 1, .dropped = 0, .order = NoisedOptions::Order::as_given});
  return data;
}

HealedPipeline::Seen seen_by(const Model& model, const Model* teacher, const Batches& data, int64_t batch) {
  Tap none;
  const EvaluateOptions options{.batch = batch};
  HealedPipeline::Seen seen{.task = evaluate(model, *denoising(), data, options, none).loss};
  if (teacher) seen.to_teacher = distance(model, *teacher, data, options);
  return seen;
}

// What a file says about how it came to be.
std::string provenance(const PipelineFlags& flags, const TrainOptions& options, const HealedPipeline& run,
                       const std::string& teacher) {
  Json json = {{"steps", std::ssize(run.trained.curve)},
               {"batch", options.batch * options.accumulate},
               {"seed", options.seed},
               {"seconds", std::round(run.seconds)},
               {"lr", options.learning_rate},
               {"features", teacher.empty() ? "none" : flags.features},
               {"teacher_sha256", teacher},
               {"ema", flags.average},
               {"lamina", version_of()}};
  if (!run.incubation.empty()) json["incubate"] = run.incubation;
  if (flags.teaching.semantic > 0) json["semantic"] = flags.teaching.semantic;
  return json.dump();
}

class Healing {
 public:
  Healing(Group& group, const PipelineFlags& flags, const TrainingFlags& training,
          const TrainOptions& options, const std::string& command)
      : group_(group),
        flags_(flags),
        training_(training),
        terminal_({.quiet = training.quiet || training.json || group.rank() != 0}),
        folder_(flags.out,
                {.resume = training.resume,
                 .replace = training.force,
                 .inputs = inputs(flags),
                 .command = command},
                group),
        options_(folder_.with_state(options)) {
    run_.command = command;
  }

  int go() {
    use_threads(thread_count(training_.threads));
    const Pipeline pipeline = open_pipeline(flags_.pipeline);
    const Painter painter(pipeline, {.dtype = arithmetic_of(training_.dtype), .without_denoiser = true});
    Opened opened = denoiser_of(pipeline);
    run_.name = folder_name(pipeline.path);
    open_teacher();
    const int64_t side = flags_.size > 0 ? flags_.size : usual_side(opened, painter);
    const PictureData data = data_of(flags_, painter, side, options_.seed);
    run_.pictures = data.learnt->said();
    run_.held_out = data.held->said();
    teaching_ = teaching_of(flags_, options_);
    teaching_.teacher = teacher_hash_;
    if (teaching_.semantic > 0) see(painter, side);
    Follow follow(
        terminal_, options_,
        {.log = folder_.log(), .quiet = group_.rank() != 0, .samples = options_.batch * options_.accumulate});
    Stretch stretch{.options = options_};
    if (!flags_.incubate.empty()) stretch = incubate(opened, data, follow);
    Student student(std::move(opened), student_options());
    learn(student, data, stretch, follow);
    if (group_.rank() != 0) return Status::ok;
    write(student, pipeline);
    return Status::ok;
  }

 private:
  static std::vector<fs::path> inputs(const PipelineFlags& flags) {
    std::vector<fs::path> all = {flags.pipeline};
    if (!flags.teacher.empty()) all.push_back(flags.teacher);
    if (flags.pictures != kScenes) all.emplace_back(flags.pictures);
    for (const fs::path& path : {flags.plan, flags.scorer})
      if (!path.empty()) all.push_back(path);
    return all;
  }

  Student::Options student_options() const {
    Student::Options options{
        .dtype = arithmetic_of(training_.dtype), .frozen = globs_of(flags_.frozen), .seed = options_.seed};
    if (flags_.rank > 0)
      options.lora = {.rank = flags_.rank, .alpha = flags_.alpha, .targets = globs_of(flags_.targets)};
    return options;
  }

  void open_teacher() {
    if (flags_.teacher.empty()) return;
    teacher_opened_ = denoiser_of(open_pipeline(flags_.teacher));
    teacher_hash_ = teacher_opened_->checkpoint.hash(terminal_.watch());
    teacher_ = build_model(*teacher_opened_, {.dtype = arithmetic_of(training_.dtype)});
    run_.taught = true;
    run_.settings.emplace_back(
        "teacher", fmt::format("{} (sha256 {})", shown(flags_.teacher.filename()), teacher_hash_));
  }

  // What is left to learn for all weights together: steps behind `first` of the run.
  struct Stretch {
    TrainOptions options;
    int64_t first = 0;
  };

  void see(const Painter& painter, int64_t side) {
    const std::string hash = add_semantics(
        teaching_, painter,
        {.scorer = flags_.scorer,
         .side = side,
         .times = flags_.semantic_times == kAlikeTimes ? asdm::TimeWeight::one : asdm::TimeWeight::alpha_bar,
         .dtype = arithmetic_of(training_.dtype),
         .watch = terminal_.watch()});
    teaching_.teacher += fmt::format(" and the scorer {}, times {}", hash, flags_.semantic_times);
    run_.settings.emplace_back(
        "scorer", fmt::format("{} (sha256 {}), term of weight {}, times {}", shown(flags_.scorer), hash,
                              teaching_.semantic, flags_.semantic_times));
  }

  void measure_before(const Model& model, const PictureData& data) {
    terminal_.watch().report({"before", 0, 0, ""});
    run_.before = seen_by(model, teacher_.get(), *data.validation, options_.batch);
  }

  // Stage by stage; `opened`, the cut, becomes what the stages have become.
  Stretch incubate(Opened& opened, const PictureData& data, Follow& follow) {
    const Plan plan = plan_of_cut(flags_.pipeline, flags_.plan);
    check_is_cut(opened, *teacher_opened_, plan);
    const std::vector<std::string> stages = asdm::stages_that_learn(plan, *teacher_opened_);
    std::vector<int64_t> steps = asdm::dealt_steps(options_.steps, stages.size(), flags_.joint_share);
    Stretch stretch{.options = options_, .first = options_.steps - steps.back()};
    stretch.options.steps = steps.back();
    stretch.options.state /= "joint";
    steps.pop_back();
    measure_before(*build_model(opened, {.dtype = arithmetic_of(training_.dtype)}), data);
    const asdm::Incubated done = asdm::incubate(*teacher_opened_, teacher_, plan,
                                                {.train = *data.train, .validation = data.validation.get()},
                                                {.order = asdm::incubation_from_name(flags_.incubate),
                                                 .train = options_,
                                                 .steps = steps,
                                                 .teaching = teaching_,
                                                 .frozen = globs_of(flags_.frozen),
                                                 .dtype = arithmetic_of(training_.dtype),
                                                 .on_step = follow.on_step()},
                                                group_, follow.watch());
    run_.incubation = flags_.incubate;
    run_.trained = one_behind_the_other(done.stages);
    for (const asdm::IncubatedStage& stage : done.stages) {
      run_.stages.push_back({stage.stage, std::ssize(stage.trained.curve), stage.before, stage.after});
      run_.learning += stage.learning;
    }
    std::vector<Sidecar> beside = std::move(opened.checkpoint.sidecars);
    opened = done.opened;
    opened.checkpoint.sidecars = std::move(beside);
    return stretch;
  }

  void learn(Student& student, const PictureData& data, const Stretch& stretch, Follow& follow) {
    if (run_.incubation.empty()) measure_before(student.model(), data);
    if (stretch.options.steps > 0 && run_.trained.broke_at == 0) together(student, data, stretch, follow);
    if (run_.trained.broke_at > 0)
      fail(
          "step {}: {} is not a number, so that what was learnt is of no use; a smaller --lr or a longer "
          "--warmup may help",
          run_.trained.broke_at, run_.trained.broke_on);
    if (averaging_) shown_.emplace(*averaging_);  // what is measured and written
    for (const StepRecord& record : run_.trained.curve) run_.seconds += record.seconds;
    follow.watch().report({"after", 0, 0, ""});
    run_.after = seen_by(student.model(), teacher_.get(), *data.validation, options_.batch);
    if (!run_.stages.empty() && run_.stages.back().name == kTogether)
      run_.stages.back().after = *run_.after.to_teacher;
    if (group_.rank() == 0) follow.finish(run_.trained);
    run_.parameters = student.opened().blueprint.parameters();
    run_.average = flags_.average;
  }

  void together(Student& student, const PictureData& data, const Stretch& stretch, Follow& follow) {
    std::vector<Hook*> hooks;
    std::unique_ptr<Objective> objective;
    if (teacher_) {
      TeachingOptions teaching = teaching_;
      if (stretch.first > 0) teaching.steps = stretch.options.steps;
      auto made = std::make_unique<Teaching>(teacher_, student.model(), *data.train, teaching);
      hooks.push_back(&made->hook());
      run_.taps = made->taps();
      run_.mean_squares = made->mean_squares();
      objective = std::move(made);
    } else {
      objective = denoising();
    }
    if (flags_.average > 0) averaging_.emplace(student.parameters(), flags_.average);
    if (averaging_) hooks.push_back(&*averaging_);
    Hooks all(std::move(hooks));
    std::optional<HealedPipeline::Stage> joint;
    if (!run_.incubation.empty())
      joint = {.name = std::string(kTogether),
               .before = distance(student.model(), *teacher_, *data.validation, {.batch = options_.batch})};
    const asdm::Later rest(*data.train, stretch.first * options_.batch * options_.accumulate);
    const Trained trained =
        train(student, *objective, {.train = rest, .validation = data.validation.get()}, stretch.options, all,
              group_, follow.watch(), [told = follow.on_step(), first = stretch.first](StepRecord record) {
                record.step += first;
                told(record);
              });
    run_.learning = 0;
    for (const Parameter& parameter : student.parameters()) run_.learning += parameter.value.numel();
    if (joint) joint->steps = std::ssize(trained.curve), run_.stages.push_back(*joint);
    append(run_.trained, trained, stretch.first);
  }

  void write(const Student& student, const Pipeline& pipeline) {
    std::optional<DType> type;
    if (!flags_.weights.empty()) type = written_type(flags_.weights);
    Checkpoint checkpoint = student.now(type).checkpoint;
    for (Checkpoint::Shard& shard : checkpoint.shards) {
      shard.metadata_present = true;
      std::erase_if(shard.metadata, [](const auto& entry) { return entry.first == "lamina_heal"; });
      shard.metadata.emplace_back("lamina_heal", provenance(flags_, options_, run_, teacher_hash_));
    }
    const fs::path out = folder_.path() / "pipeline";
    fs::remove_all(out);
    fs::create_directories(out);
    write_pipeline(pipeline, {{"unet", &checkpoint}}, out, {.write = {.dtype = type, .watch = {}}});
    finish_settings();
    const report::Report report = report_of(run_);
    write_file(out / "README.md", denoiser_card(out, card_of(run_)));
    write_file(folder_.path() / "report.html", report::to_html(report));
    Json json = report::to_json(report);
    write_file(folder_.path() / "report.json", json.dump(2) + "\n");
    folder_.commit();
    terminal_.clear();
    json["training"] = curve_json(run_.trained);
    if (!run_.incubation.empty()) json["incubation"] = incubation_json(run_);
    if (run_.taught) json["shares"] = shares_of(run_);
    print(training_.json ? json.dump(2) + "\n" : summary_of(run_, folder_.target()));
  }

  void finish_settings() {
    Settings& rows = run_.settings;
    if (run_.taught)
      rows.emplace_back("distillation", fmt::format("task {}, output {}, features {} ({}) at {}",
                                                    flags_.teaching.task, flags_.teaching.output,
                                                    flags_.features, flags_.scale, flags_.teaching.feature));
    rows.emplace_back("caption dropout", fmt::format("{}", flags_.dropped));
    rows.emplace_back("average", flags_.average > 0 ? fmt::format("decay {}", flags_.average) : "none");
    rows.emplace_back("what learns",
                      flags_.rank > 0 ? fmt::format("adapters of rank {}", flags_.rank) : "every weight");
    for (auto& row : settings_of(options_)) rows.push_back(std::move(row));
    rows.emplace_back("learnt from", run_.pictures);
    rows.emplace_back("held out", run_.held_out);
    for (auto& row : running_settings(training_.dtype, training_, group_)) rows.push_back(std::move(row));
    if (run_.trained.resumed_from > 0)
      rows.emplace_back("went on",
                        fmt::format("from step {} of an earlier process", run_.trained.resumed_from));
  }

  Group& group_;
  const PipelineFlags& flags_;
  const TrainingFlags& training_;
  Terminal terminal_;
  TrainingFolder folder_;
  TrainOptions options_;
  std::optional<Opened> teacher_opened_;
  std::shared_ptr<const Model> teacher_;
  std::string teacher_hash_;
  TeachingOptions teaching_;
  std::optional<Averaging> averaging_;
  std::optional<Averaging::Shown> shown_;  // from when training has ended
  HealedPipeline run_;
};

}  // namespace

bool heals_pipeline(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--pictures" || (!word.starts_with('-') && is_pipeline(word))) return true;
  }
  return false;
}

int run_heal_pipeline(int argc, char** argv) {
  CLI::App app(
      "Let the denoiser of a pipeline learn from pictures, from a whole pipeline's, or from both, and write "
      "the pipeline with what became of it.\n\n"
      "Example: lamina heal smaller --teacher PIPELINE --pictures photos --steps 1000 -o healed\n"
      "         lamina heal smaller --teacher PIPELINE --pictures scenes --features plain -o control\n"
      "         lamina heal smaller --teacher PIPELINE --pictures scenes --incubate sequential -o grown\n"
      "         lamina heal smaller --teacher PIPELINE --pictures scenes --semantic 1 --scorer SCORER -o "
      "meant\n"
      "The loss is task + output + features, as BK-SDM has it; how maps are compared --features says. "
      "Ctrl-C stops after the present step; the same command with --resume goes on.",
      "heal");
  PipelineFlags flags;
  TrainingFlags training;
  training.options = {.batch = 16, .learning_rate = 5e-5};
  training.schedule = "constant";
  add_flags(app, flags);
  add_training_flags(app, training);
  parse(app, argc, argv);
  check_flags(app, flags, training);
  const TrainOptions options = options_of(training);
  const std::string command = command_line(argc, argv, "heal");
  keep_memory_between_steps();
  return together(group_options(training),
                  [&](Group& group) { return Healing(group, flags, training, options, command).go(); });
}

}  // namespace lamina::cli
