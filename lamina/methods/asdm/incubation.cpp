#include "lamina/methods/asdm/incubation.h"

#include <algorithm>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::asdm {

namespace {

int stage_of(const Edit& edit, const Blueprint& blueprint) {
  const std::string& site = std::visit([](const auto& e) -> const std::string& { return e.site; }, edit);
  const auto found = blueprint.find(site);
  if (!found || blueprint.stages.empty())
    fail("the plan edits {}, which is of no stage; incubation goes by stages", site);
  return blueprint.part(*found).block;
}

// Tensors of the stages as `from` has them, put into `into`.
void take_over(Checkpoint& into, const Checkpoint& from, const std::string& stage) {
  for (Stored& stored : into.tensors) {
    if (!of_stage(stored.name, stage)) continue;
    const int shard = stored.shard;
    const Stored* trained = from.find(stored.name);
    if (!trained) fail("{} was not trained with its stage", stored.name);
    stored = *trained;
    stored.shard = shard;
  }
}

}  // namespace

std::string_view incubation_name(Incubation incubation) {
  return incubation == Incubation::independent ? "independent" : "sequential";
}

Incubation incubation_from_name(std::string_view name) {
  for (Incubation one : {Incubation::independent, Incubation::sequential}) {
    if (incubation_name(one) == name) return one;
  }
  fail("{} is no way to incubate; independent and sequential are", in_quotes(name));
}

bool of_stage(std::string_view tensor, std::string_view stage) {
  return tensor.size() > stage.size() && tensor.starts_with(stage) && tensor[stage.size()] == '.';
}

std::vector<std::string> stages_of(const Plan& plan, const Blueprint& blueprint) {
  std::set<int> edited;
  for (const Edit& edit : plan.edits) edited.insert(stage_of(edit, blueprint));
  std::vector<std::string> stages;
  for (int stage : edited) stages.push_back(blueprint.stages.at(static_cast<size_t>(stage)));
  return stages;
}

Plan restricted(const Plan& plan, const Blueprint& blueprint, const std::vector<std::string>& stages) {
  Plan result{.edits = {}, .provenance = plan.provenance};
  for (const Edit& edit : plan.edits) {
    const std::string& stage = blueprint.stages.at(static_cast<size_t>(stage_of(edit, blueprint)));
    if (std::ranges::find(stages, stage) != stages.end()) result.edits.push_back(edit);
  }
  return result;
}

Incubated incubate(const Opened& teacher, std::shared_ptr<const Model> model, const Plan& plan,
                   const TrainData& data, const IncubationOptions& options, Group& group,
                   const Watch& watch) {
  const Blueprint& blueprint = teacher.blueprint;
  const std::vector<std::string> stages = stages_of(plan, blueprint);
  if (stages.empty()) fail("the plan edits nothing, so that there is nothing to incubate");
  Incubated result{.opened = {}};
  Checkpoint whole = apply(teacher.checkpoint, blueprint, plan);
  std::vector<std::string> done;
  for (const std::string& stage : stages) {
    std::vector<std::string> in = {stage};
    if (options.order == Incubation::sequential) in.insert(in.end(), done.begin(), done.end());
    Checkpoint hybrid = apply(teacher.checkpoint, blueprint, restricted(plan, blueprint, in));
    for (const std::string& earlier : done) {
      if (options.order == Incubation::sequential) take_over(hybrid, whole, earlier);
    }
    Opened opened = declare(std::move(hybrid));
    Student::Options student_options{.dtype = options.dtype, .device = options.device};
    for (const Slot& slot : opened.blueprint.slots) {
      if (!of_stage(slot.name, stage)) student_options.frozen.push_back(slot.name);
    }
    Student student(std::move(opened), student_options);
    TrainOptions train_options = options.train;
    if (!train_options.state.empty()) train_options.state /= stage;
    IncubatedStage record{.stage = stage};
    const Batches& judged = data.validation ? *data.validation : data.train;
    const EvaluateOptions evaluation{.samples = data.validation ? data.validation_samples : 64,
                                     .batch = options.train.batch,
                                     .device = options.device};
    record.before = distance(student.model(), *model, judged, evaluation);
    TeachingOptions teaching_options = options.teaching;
    teaching_options.steps = options.train.steps;
    Teaching teaching(model, student.model(), data.train, teaching_options);
    record.trained = train(student, teaching, data, train_options, teaching.hook(), group, watch);
    record.after = distance(student.model(), *model, judged, evaluation);
    take_over(whole, student.now().checkpoint, stage);
    result.stages.push_back(std::move(record));
    done.push_back(stage);
  }
  result.opened = declare(std::move(whole));
  return result;
}

}  // namespace lamina::asdm
