// Progressive incubation, A-SDM-style (arXiv 2312.15516 names it; the definition is ours, after Deep
// Incubation, 2212.04129): a cut is trained stage by stage inside the teacher. The hybrid is the teacher with
// one stage in its cut form, and only that stage's weights learn; at the end all cut stages stand together.
#pragma once

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
// Whether a tensor is of a stage: one of its parts, shortcuts and samplers.
bool of_stage(std::string_view tensor, std::string_view stage);

struct IncubationOptions {
  Incubation order = Incubation::sequential;
  TrainOptions train = {};  // of each stage; a folder of state gets one of its own for each
  TeachingOptions teaching = {};
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
};

struct IncubatedStage {
  std::string stage;
  // Mean squared difference of what hybrid and teacher say, on the validation data.
  double before = 0, after = 0;
  Trained trained = {};
};

struct Incubated {
  Opened opened;  // the teacher with the whole plan applied, its stages as they were trained
  std::vector<IncubatedStage> stages = {};
};

// `model` is `teacher` built on the device. Throws Error for a plan that edits nothing.
Incubated incubate(const Opened& teacher, std::shared_ptr<const Model> model, const Plan& plan,
                   const TrainData& data, const IncubationOptions& options, Group& group,
                   const Watch& watch = {});

}  // namespace lamina::asdm
