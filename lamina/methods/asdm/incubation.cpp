#include "lamina/methods/asdm/incubation.h"

#include <algorithm>
#include <cmath>
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

bool learns(const Checkpoint& cut, const std::string& stage) {
  return std::ranges::any_of(cut.tensors, [&](const Stored& stored) { return of_stage(stored.name, stage); });
}

// One incubation: what is done, and the whole that it grows into.
class Incubating {
 public:
  Incubating(const Opened& teacher, std::shared_ptr<const Model> model, const Plan& plan,
             const TrainData& data, const IncubationOptions& options, Group& group, const Watch& watch)
      : teacher_(teacher),
        model_(std::move(model)),
        plan_(plan),
        data_(data),
        options_(options),
        group_(group),
        watch_(watch),
        stages_(stages_of(plan, teacher.blueprint)) {
    if (stages_.empty()) fail("the plan edits nothing, so that there is nothing to incubate");
    whole_ = apply(teacher.checkpoint, teacher.blueprint, plan);
    const int64_t learning = std::ranges::count_if(stages_, [&](const auto& s) { return learns(whole_, s); });
    if (learning == 0) fail("the plan takes every stage that it edits away, so that none can learn");
    if (!options.steps.empty() && std::ssize(options.steps) != learning)
      fail("steps are said for {} stages, and {} learn", options.steps.size(), learning);
  }

  Incubated go() {
    Incubated result{.opened = {}};
    for (size_t i = 0; i < stages_.size(); ++i) {
      result.stages.push_back(incubated(i));
      if (result.stages.back().trained.broke_at > 0) break;
    }
    result.opened = declare(std::move(whole_));
    return result;
  }

 private:
  bool stays_in() const { return options_.order == Incubation::sequential; }

  // The teacher with this stage in its cut form, and with those that are done where they stay in.
  Opened hybrid(size_t at) const {
    std::vector<std::string> in = {stages_[at]};
    if (stays_in()) in.insert(in.end(), stages_.begin(), stages_.begin() + static_cast<std::ptrdiff_t>(at));
    Checkpoint made =
        apply(teacher_.checkpoint, teacher_.blueprint, restricted(plan_, teacher_.blueprint, in));
    for (size_t i = 1; i < in.size(); ++i) take_over(made, whole_, in[i]);
    return declare(std::move(made));
  }

  Student student_of(Opened opened, const std::string& stage) const {
    Student::Options options{.dtype = options_.dtype, .frozen = options_.frozen, .device = options_.device};
    for (const Slot& slot : opened.blueprint.slots) {
      if (!of_stage(slot.name, stage)) options.frozen.push_back(slot.name);
    }
    return {std::move(opened), options};
  }

  double apart(const Model& hybrid) const {
    return distance(hybrid, *model_, data_.validation ? *data_.validation : data_.train,
                    {.samples = data_.validation ? data_.validation_samples : 64,
                     .batch = options_.train.batch,
                     .device = options_.device});
  }

  IncubatedStage incubated(size_t at) {
    const std::string& stage = stages_[at];
    IncubatedStage record{.stage = stage};
    if (!learns(whole_, stage)) {
      const Student hybrid(this->hybrid(at), {.dtype = options_.dtype, .device = options_.device});
      record.before = record.after = apart(hybrid.model());
      return record;
    }
    Student student = student_of(hybrid(at), stage);
    TrainOptions train_options = options_.train;
    if (!options_.steps.empty()) train_options.steps = options_.steps[learnt_];
    if (!train_options.state.empty()) train_options.state /= stage;
    for (const Parameter& parameter : student.parameters()) record.learning += parameter.value.numel();
    record.before = apart(student.model());
    TeachingOptions teaching_options = options_.teaching;
    teaching_options.steps = train_options.steps;
    Teaching teaching(model_, student.model(), data_.train, teaching_options);
    const Later train_data(data_.train, steps_ * train_options.batch * train_options.accumulate);
    record.trained = train(
        student, teaching,
        {.train = train_data, .validation = data_.validation, .validation_samples = data_.validation_samples},
        train_options, teaching.hook(), group_, watch_, counted_on());
    record.after = apart(student.model());
    take_over(whole_, student.now().checkpoint, stage);
    steps_ += train_options.steps;
    ++learnt_;
    return record;
  }

  std::function<void(const StepRecord&)> counted_on() const {
    if (!options_.on_step) return {};
    return [this](StepRecord record) {
      record.step += steps_;
      options_.on_step(record);
    };
  }

  const Opened& teacher_;
  std::shared_ptr<const Model> model_;
  const Plan& plan_;
  const TrainData& data_;
  const IncubationOptions& options_;
  Group& group_;
  const Watch& watch_;
  std::vector<std::string> stages_;
  Checkpoint whole_;
  int64_t steps_ = 0;  // of the stages that are done
  size_t learnt_ = 0;  // how many of them learnt
};

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

std::vector<std::string> stages_that_learn(const Plan& plan, const Opened& teacher) {
  const Checkpoint cut = apply(teacher.checkpoint, teacher.blueprint, plan);
  std::vector<std::string> stages = stages_of(plan, teacher.blueprint);
  std::erase_if(stages, [&](const std::string& stage) { return !learns(cut, stage); });
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

std::vector<int64_t> dealt_steps(int64_t steps, size_t stages, double joint) {
  if (!(joint >= 0 && joint < 1)) fail("a joint share of {}: a number from 0 and below 1 is expected", joint);
  const auto count = static_cast<int64_t>(stages);
  const int64_t together = std::llround(joint * static_cast<double>(steps)), own = steps - together;
  if (own < count)
    fail("{} steps, {} of them joint, are too few for {} stages; each takes one or more", steps, together,
         stages);
  std::vector<int64_t> dealt;
  for (int64_t i = 0; i < count; ++i) dealt.push_back(own / count + (i < own % count ? 1 : 0));
  dealt.push_back(together);
  return dealt;
}

Batch Later::at(int64_t first, int64_t count) const {
  Batch batch = data_.at(first + skipped_, count);
  batch.first = first;
  return batch;
}

std::string Later::digest() const {
  return skipped_ == 0 ? data_.digest() : fmt::format("{} from {} on", data_.digest(), skipped_);
}

Incubated incubate(const Opened& teacher, std::shared_ptr<const Model> model, const Plan& plan,
                   const TrainData& data, const IncubationOptions& options, Group& group,
                   const Watch& watch) {
  return Incubating(teacher, std::move(model), plan, data, options, group, watch).go();
}

}  // namespace lamina::asdm
