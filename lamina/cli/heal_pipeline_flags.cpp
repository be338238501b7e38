#include "lamina/cli/heal_pipeline_flags.h"

#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/methods/asdm/incubation.h"

namespace lamina::cli {

namespace {

FeatureScale scale_of(const std::string& name) {
  if (name == "one") return FeatureScale::one;
  if (name == "calibrated") return FeatureScale::calibrated;
  fail("--feature-scale {}: one and calibrated are possible", in_quotes(name));
}

void check_semantic(const CLI::App& app, const PipelineFlags& flags) {
  const bool asked = app.count("--semantic") > 0;
  if (asked && !(flags.teaching.semantic > 0 && std::isfinite(flags.teaching.semantic)))
    fail("--semantic {}: a weight above 0 is expected", flags.teaching.semantic);
  if (asked && flags.scorer.empty())
    fail("--semantic goes with --scorer, a network that says what pictures mean");
  if (!asked && !flags.scorer.empty()) fail("--scorer goes with --semantic, the weight of its term");
  if (!asked && app.count("--semantic-times") > 0) fail("--semantic-times goes with --semantic");
}

void check_incubation(const CLI::App& app, const PipelineFlags& flags, const TrainingFlags& training) {
  if (flags.incubate.empty()) {
    for (const char* flag : {"--plan", "--joint-share"})
      if (app.count(flag) > 0) fail("{} goes with --incubate", flag);
    return;
  }
  asdm::incubation_from_name(flags.incubate);
  if (!(flags.joint_share >= 0 && flags.joint_share < 1))
    fail("--joint-share {}: a number from 0 and below 1 is expected", flags.joint_share);
  if (flags.rank > 0) fail("--lora does not go with --incubate, which trains the weights of whole stages");
  if (flags.average > 0 && flags.joint_share == 0)
    fail("--ema averages the weights of the joint stretch, and --joint-share 0 leaves none");
  if (training.options.schedule_steps > 0)
    fail("--schedule-steps does not go with --incubate: each stage has a schedule over its own steps");
}

}  // namespace

void add_flags(CLI::App& app, PipelineFlags& flags) {
  app.add_option("PIPELINE", flags.pipeline, "folder with a model_index.json")->required();
  app.add_option("-o,--output", flags.out, "folder to write")->required();
  app.add_option("--pictures", flags.pictures,
                 "what is learnt from: a folder of PNG files, each with a caption in NAME.txt or in "
                 "metadata.jsonl; or the word scenes, for generated ones")
      ->required()
      ->group("Data");
  app.add_option("--size", flags.size,
                 "side of the pictures in pixels (default: what the denoiser was made for)")
      ->group("Data");
  app.add_option("--scenes", flags.scenes, "generated scenes that an epoch has")
      ->capture_default_str()
      ->group("Data");
  app.add_option("--scene-seed", flags.scene_seed, "of generated scenes")
      ->capture_default_str()
      ->group("Data");
  app.add_option("--held-out", flags.held_out, "pictures that are not learnt from, for the errors")
      ->capture_default_str()
      ->group("Data");
  app.add_option("--caption-dropout", flags.dropped, "share of the captions that become the empty one")
      ->capture_default_str()
      ->group("Data");
  app.add_option("--teacher", flags.teacher, "pipeline whose denoiser is learnt from")->group("Distillation");
  app.add_option("--features", flags.features,
                 "how maps are compared: teacher-norm, batch-norm, ema-loss, layernorm, masked, plain, "
                 "plain-equal (the control), none")
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--feature-weight", flags.teaching.feature, "of all maps together")
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--feature-scale", flags.scale,
                 "of teacher-norm and batch-norm: one, or calibrated (times the mean square of all maps)")
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--out-weight", flags.teaching.output, "of the distance to what the teacher says")
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--task-weight", flags.teaching.task, "of the noise itself")
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--semantic", flags.teaching.semantic,
                 "weight of how differently a --scorer sees the clean pictures that follow (A-SDM-style)")
      ->group("Distillation");
  app.add_option("--scorer", flags.scorer,
                 "scene scorer whose features --semantic compares; judge what comes of it by another one")
      ->group("Distillation");
  app.add_option(
         "--semantic-times", flags.semantic_times,
         "weight of a time in it: alpha-bar (the noisiest, where pictures are guesses, count least), one")
      ->check(CLI::IsMember(std::vector<std::string>{"alpha-bar", std::string(kAlikeTimes)}))
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--incubate", flags.incubate,
                 "train the stages that the plan edits one after the other inside the teacher: sequential "
                 "(those that are done stay in) or independent; --steps are then those of all together")
      ->group("Distillation");
  app.add_option("--plan", flags.plan, "of the cut, for --incubate (default: PIPELINE/plan.json)")
      ->group("Distillation");
  app.add_option("--joint-share", flags.joint_share,
                 "of the steps of --incubate, at their end, in which all stages learn together; 0: none")
      ->capture_default_str()
      ->group("Distillation");
  app.add_option("--ema", flags.average,
                 "write a moving average of the weights with this decay; 0: the weights")
      ->capture_default_str()
      ->group("What learns");
  app.add_option("--lora", flags.rank, "train adapters of this rank in place of the weights")
      ->check(CLI::Range(1, 1 << 16))
      ->group("What learns");
  app.add_option("--alpha", flags.alpha, "of the adapters")->capture_default_str()->group("What learns");
  app.add_option("--targets", flags.targets, "linear maps that get an adapter, globs, comma-separated")
      ->group("What learns");
  app.add_option("--frozen", flags.frozen, "tensors that stay as they are, globs, comma-separated")
      ->group("What learns");
  app.add_option("--weights", flags.weights,
                 "type of the weights that are written: float32, float16, bfloat16 (default: as they came)")
      ->group("What is written");
}

void check_flags(const CLI::App& app, const PipelineFlags& flags, const TrainingFlags& training) {
  for (const char* flag : {"--features", "--feature-weight", "--feature-scale", "--out-weight",
                           "--task-weight", "--semantic", "--incubate"}) {
    if (app.count(flag) > 0 && flags.teacher.empty()) fail("{} goes with --teacher", flag);
  }
  for (const char* flag : {"--alpha", "--targets"}) {
    if (app.count(flag) > 0 && flags.rank == 0) fail("{} goes with --lora", flag);
  }
  for (const char* flag : {"--scenes", "--scene-seed"}) {
    if (app.count(flag) > 0 && flags.pictures != kScenes) fail("{} goes with --pictures scenes", flag);
  }
  check_semantic(app, flags);
  check_incubation(app, flags, training);
  if (training.device != "cpu") fail("--device {}: pipelines are healed on the cpu", training.device);
}

TeachingOptions teaching_of(const PipelineFlags& flags, const TrainOptions& options) {
  TeachingOptions teaching = flags.teaching;
  teaching.mode = feature_mode_from_name(flags.features);
  teaching.scale = scale_of(flags.scale);
  teaching.steps = options.schedule_steps > 0 ? options.schedule_steps : options.steps;
  return teaching;
}

}  // namespace lamina::cli
