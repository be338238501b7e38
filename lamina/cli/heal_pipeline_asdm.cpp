#include "lamina/cli/heal_pipeline_asdm.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/family/scorer.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

namespace fs = std::filesystem;

Plan plan_of_cut(const fs::path& pipeline, const fs::path& named) {
  fs::path path = named;
  if (path.empty()) {
    for (const fs::path& usual : {pipeline / "plan.json", pipeline / "unet" / "plan.json"})
      if (path.empty() && fs::is_regular_file(usual)) path = usual;
  }
  if (path.empty())
    fail("{}: holds no plan.json, which --incubate takes its stages from; name the cut's with --plan",
         shown(pipeline));
  return plan_from_json(parse_json(read_file(path), shown(path)), shown(path));
}

bool same_places(const Blueprint& one, const Blueprint& other) {
  return std::ranges::equal(one.parts, other.parts, {}, &Part::path, &Part::path);
}

void check_is_cut(const Opened& student, const Opened& teacher, const Plan& plan) {
  const Checkpoint cut = apply(teacher.checkpoint, teacher.blueprint, plan);
  const std::string start =
      fmt::format("{} is not the teacher with the plan applied", shown(student.checkpoint.path));
  if (!same_places(student.blueprint, teacher.blueprint))
    fail(
        "{}: a stock config says it, without places for what is gone, and --incubate goes by the plan's "
        "places; prune with --layout any, or heal without --incubate",
        start);
  if (cut.config != student.checkpoint.config)
    fail("{}: its config is another; give the plan and the teacher of this cut, made with --layout any",
         start);
  try {
    check_equal(cut, student.checkpoint, {});
  } catch (const Error&) {
    fail(
        "{}: it has numbers of its own (repaired or healed ones), which --incubate would lose; give the cut "
        "as "
        "it was before, or heal without --incubate",
        start);
  }
}

std::string add_semantics(TeachingOptions& teaching, const Painter& painter, const SemanticFlags& flags) {
  const std::string name = shown(flags.scorer);
  const Opened opened = open(flags.scorer);
  if (opened.architecture->name != scorer::declaration().name)
    fail("--scorer {}: is a {}, which does not say what pictures mean; a {} is expected", name,
         opened.architecture->name, scorer::declaration().name);
  const int64_t side = scorer::read_config(opened.checkpoint.config, opened.checkpoint.what()).image_size;
  if (side != flags.side)
    fail(
        "--scorer {0}: looks at pictures of {1} x {1} pixels, and these have {2} x {2}; name a scorer made "
        "for "
        "them",
        name, side, flags.side);
  // The painter keeps it.
  const std::shared_ptr<const vae::Autoencoder> decoder(&painter.autoencoder(),
                                                        [](const vae::Autoencoder*) {});
  teaching.semantic_loss = asdm::semantic_loss({.features = build_model(opened, {.dtype = flags.dtype}),
                                                .autoencoder = decoder,
                                                .weight = flags.times});
  teaching.schedule = painter.schedule();
  return opened.checkpoint.hash(flags.watch);
}

void append(Trained& whole, const Trained& stretch, int64_t first) {
  for (StepRecord record : stretch.curve) {
    record.step += first;
    whole.curve.push_back(std::move(record));
  }
  for (Evaluation evaluation : stretch.evaluations) {
    evaluation.step += first;
    whole.evaluations.push_back(evaluation);
  }
  whole.resumed_from += stretch.resumed_from;
  if (stretch.broke_at > 0) {
    whole.broke_at = first + stretch.broke_at;
    whole.broke_on = stretch.broke_on;
  }
  whole.notes.insert(whole.notes.end(), stretch.notes.begin(), stretch.notes.end());
}

Trained one_behind_the_other(const std::vector<asdm::IncubatedStage>& stages) {
  Trained whole;
  for (const asdm::IncubatedStage& stage : stages) append(whole, stage.trained, std::ssize(whole.curve));
  return whole;
}

}  // namespace lamina::cli
