// Progressive incubation, A-SDM-style (arXiv 2312.15516 names it; the definition is ours, after Deep
// Incubation, 2212.04129): a cut is trained stage by stage inside the teacher. The hybrid is the teacher with
// one stage in its cut form, and only that stage's weights learn; at the end all cut stages stand together.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/family/family.h"
#include "lamina/heal/features.h"
#include "lamina/heal/train.h"
#include "lamina/plan/plan.h"

namespace lamina::asdm {

// independent: every hybrid has all its other stages from the teacher, whichever came first.
// sequential: stages that are done stay in, so that the next learns behind them.
enum class Incubation { independent, sequential };
std::string_view incubation_name(Incubation incubation);
Incubation incubation_from_name(std::string_view name);  // throws Error that lists them

// The plan's edits on parts of these stages, in its order.
Plan restricted(const Plan& plan, const Blueprint& blueprint, const std::vector<std::string>& stages);
// The stages that the plan edits, in the order of the walk.
std::vector<std::string> stages_of(const Plan& plan, const Blueprint& blueprint);
// Of these, those of which the plan leaves anything to learn: a stage without a sampler may go altogether.
std::vector<std::string> stages_that_learn(const Plan& plan, const Opened& teacher);
// Whether a tensor is of a stage: one of its parts, shortcuts and samplers.
bool of_stage(std::string_view tensor, std::string_view stage);

// How `steps` are dealt to that many stages and a joint stretch behind them, which gets `joint` of them
// (rounded): evenly, the first stages one more where they do not part evenly. The last number is the joint
// stretch's. Throws Error when a stage would have none, or the share is not from 0 to below 1.
std::vector<int64_t> dealt_steps(int64_t steps, size_t stages, double joint);

// The data from a later sample on: what a stretch behind others learns from, so that all of them see what one
// run as long as all would have seen.
class Later : public Batches {
 public:
  Later(const Batches& data, int64_t skipped) : data_(data), skipped_(skipped) {}  // `data` outlives it
  Batch at(int64_t first, int64_t count) const override;
  int64_t samples_per_epoch() const override { return data_.samples_per_epoch(); }
  std::string digest() const override;

 private:
  const Batches& data_;
  int64_t skipped_;
};

struct IncubationOptions {
  Incubation order = Incubation::sequential;
  // Of each stage; a folder of state gets one of its own for each, and a run that resumes passes over those
  // that are done.
  TrainOptions train = {};
  std::vector<int64_t> steps = {};  // of each stage that learns, where they differ; empty: as `train` says
  TeachingOptions teaching = {};
  std::vector<std::string> frozen = {};  // globs over tensors that stay as they are, beside the other stages'
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  // After every step; those of the stages are counted on.
  std::function<void(const StepRecord&)> on_step = {};
};

struct IncubatedStage {
  std::string stage;
  // Mean squared difference of what hybrid and teacher say, on the validation data.
  double before = 0, after = 0;
  int64_t learning = 0;  // numbers that were trained
  Trained trained = {};  // its steps are its own, from 1; none where nothing of the stage is left
};

struct Incubated {
  Opened opened;  // the teacher with the whole plan applied, its stages as they were trained
  std::vector<IncubatedStage> stages = {};
};

// `model` is `teacher` built on the device. Throws Error for a plan that edits nothing, or leaves no stage
// that learns. A stage that broke is the last one: those behind it are as the plan left them.
Incubated incubate(const Opened& teacher, std::shared_ptr<const Model> model, const Plan& plan,
                   const TrainData& data, const IncubationOptions& options, Group& group,
                   const Watch& watch = {});

}  // namespace lamina::asdm
