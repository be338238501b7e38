// A denoiser that was cut learns from the whole one (after BK-SDM, arXiv 2305.15798, and LAPTOP-Diff,
// 2404.11098): task, the teacher's output, and its maps behind each stage,
//   L = l_task |e_S - e|^2 + l_out |e_S - e_T|^2 + l_feat sum_l a_l |f_S^l - f_T^l|^2,
// all means over their numbers. How LAPTOP-Diff makes the a_l was not to be read; every reading is here.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/diffusion/schedule.h"
#include "lamina/heal/hook.h"
#include "lamina/heal/objective.h"
#include "lamina/heal/train.h"

namespace lamina {

// With K taps, and m_l the mean square of the teacher's map:
enum class FeatureMode {
  none,          // no feature term
  plain,         // a_l = 1 (BK-SDM)
  plain_equal,   // all a_l alike, their sum that of teacher_norm: the control for it
  teacher_norm,  // a_l = c / (K m_l), m_l as first measured: the error relative to the teacher's map
  batch_norm,    // the same, m_l of each batch: follows the time
  ema_loss,      // a_l = 1 / (K moving average of the term): equal losses in place of equal signals
  layer_norm,    // 1 / K of the error between maps normed over the channels (Shiva-DiT); scale is ignored
  masked,        // 1 / K of the error where the teacher is within 2 deviations of its mean, 1e-2 at first and
                 // falling to 0 (TinyFusion, 2412.01199)
};
std::string_view feature_mode_name(FeatureMode mode);
FeatureMode feature_mode_from_name(std::string_view name);  // throws Error that lists them

enum class FeatureScale { one, calibrated };  // c: 1, or the mean over l of m_l

struct TeachingOptions {
  double task = 1, output = 1, feature = 1;
  FeatureMode mode = FeatureMode::teacher_norm;
  FeatureScale scale = FeatureScale::one;
  int64_t calibration = 32;  // samples that m_l is measured on, the first of the data
  int64_t steps = 1;         // of the run: over which masked's weight falls
  int64_t look_every = 100;  // steps between two looks at the gradients of the terms
  std::string teacher = {};  // its digest or name: a run goes on with the same one alone
  // Another term, on the clean latents that follow from what student and teacher say (those of the teacher
  // without a graph) and their alpha_bar [batch]: a mean.
  double semantic = 0;
  std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)> semantic_loss = {};
  std::optional<NoiseSchedule> schedule = {};  // for it
};

// Where maps are compared: behind a stage, or behind a part where stages end in other shapes.
struct FeatureTap {
  struct Place {
    int stage = -1;  // of Blueprint::stages; -1: `site`
    Site site = {};
  };
  std::string name;  // the teacher's
  Place student, teacher;
};
// Stages of the same name, up stages counted from the end; of a stage that ends in another shape its last
// part, where that fits. Stages in front of the first part that the student lacks, or that has other windows
// or inherited kernels there, say the same in both, and are left out. `probe` is run through both.
std::vector<FeatureTap> feature_taps(const Model& student, const Model& teacher, const Inputs& probe);

// The mean squared difference of what two denoisers say.
double distance(const Model& student, const Model& teacher, const Batches& data,
                const EvaluateOptions& options);

// Terms of the curve are what each adds to the loss: "task", "output", "semantic" and the taps' names, so
// that their shares can be read off. Every `look_every` steps "gradient ratio" stands beside them: the
// largest norm of a term's gradient at the map behind conv_in, on which all of them depend, over the
// smallest (0: fewer than two terms have one). Not with gradient checkpointing.
class Teaching : public Objective {
 public:
  Teaching(std::shared_ptr<const Model> teacher, const Model& student, const Batches& data,
           TeachingOptions options);
  ~Teaching() override;

  Losses operator()(const Pass& pass) const override;
  double measure(const Pass& pass) const override;  // of the task
  std::string digest() const override;

  const std::vector<FeatureTap>& taps() const { return taps_; }
  const std::vector<double>& mean_squares() const { return mean_squares_; }  // m_l
  // What is kept from step to step; belongs to every run with this objective.
  Hook& hook();

 private:
  struct Memory;
  struct Term;
  Tensor compared(const Tensor& student, const Tensor& teacher) const;
  double weight(size_t tap, const Tensor& teacher, const Tensor& error) const;
  double gradient_ratio(const std::vector<Term>& terms, const Tensor& at) const;

  std::shared_ptr<const Model> teacher_;
  TeachingOptions options_;
  std::vector<FeatureTap> taps_;
  std::vector<double> mean_squares_;
  std::shared_ptr<Memory> memory_;
};

}  // namespace lamina
