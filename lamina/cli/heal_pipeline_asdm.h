// The two A-SDM-style trainings of `lamina heal`: stage by stage inside the teacher, and a term for what
// pictures mean.
#pragma once

#include <filesystem>
#include <string>

#include "lamina/cli/heal_pipeline_run.h"
#include "lamina/diffusion/pipeline.h"
#include "lamina/heal/features.h"
#include "lamina/methods/asdm/incubation.h"
#include "lamina/methods/asdm/semantic.h"

namespace lamina::cli {

// The plan of PIPELINE's cut: `named`, or plan.json as `lamina prune` leaves it. Throws Error where there is
// none.
Plan plan_of_cut(const std::filesystem::path& pipeline, const std::filesystem::path& named);

// Whether two denoisers have the same parts at the same places, gone ones included. A cut that was written as
// a stock config says it has fewer, and what is left of a stage may have moved together.
bool same_places(const Blueprint& one, const Blueprint& other);

// Throws Error unless `student` is the teacher with the plan applied, number for number: incubation starts
// there, and numbers of the student's own would be lost.
void check_is_cut(const Opened& student, const Opened& teacher, const Plan& plan);

// The scorer as frozen features of `teaching`, pictures of `side` pixels behind the painter's autoencoder
// (which has to outlive it). Returns the scorer's SHA-256. Throws Error for a network that is no scorer of
// such pictures.
struct SemanticFlags {
  std::filesystem::path scorer;
  int64_t side = 0;
  asdm::TimeWeight times = asdm::TimeWeight::alpha_bar;
  at::ScalarType dtype = at::kFloat;
  Watch watch = {};
};
std::string add_semantics(TeachingOptions& teaching, const Painter& painter, const SemanticFlags& flags);

// The stages' curves one behind the other, as one run.
Trained one_behind_the_other(const std::vector<asdm::IncubatedStage>& stages);
// Appends a stretch whose step 1 is step `first` + 1 of the whole.
void append(Trained& whole, const Trained& stretch, int64_t first);

}  // namespace lamina::cli
