// Noise schedules, and the solvers that go down them, after diffusers' schedulers: which timesteps are
// visited, what the network reads there, and the step from one to the next. Coefficients are made in float64.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/tensor/tensor.h"

namespace lamina {

enum class Prediction { epsilon, v, sample };

// The forward process: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e, t = 0 ... steps - 1 (Ho et al., 2020).
struct NoiseSchedule {
  std::vector<double> alpha_bar;
  Prediction prediction = Prediction::epsilon;
  int64_t steps() const { return static_cast<int64_t>(alpha_bar.size()); }

  // x_t; `time` [batch] whole numbers, as the network reads them.
  Tensor noised(const Tensor& clean, const Tensor& noise, const Tensor& time) const;
  // What the network is to say at x_t.
  Tensor target(const Tensor& clean, const Tensor& noise, const Tensor& time) const;
  // x_0 as it follows from x_t and what the network said.
  Tensor clean(const Tensor& noisy, const Tensor& said, const Tensor& time) const;
  Tensor alpha_bar_at(const Tensor& time, const Tensor& like) const;  // [batch, 1, 1, 1], as `like` is
};
// From a scheduler's config: beta_schedule, beta_start, beta_end, num_train_timesteps, trained_betas,
// rescale_betas_zero_snr, prediction_type. Throws Error for what is not known here.
NoiseSchedule noise_schedule(const Json& config, std::string_view what);

// One way down. Solvers have a memory: make one for each picture, or batch of pictures.
class Solver {
 public:
  virtual ~Solver() = default;
  // Calls of the network, first to last: the time that it reads. PNDM has one more than steps.
  const std::vector<double>& times() const { return times_; }
  double first_scale() const { return first_scale_; }  // of the standard normal noise to begin with
  // What the network reads at call i.
  virtual Tensor input(const Tensor& x, size_t /*i*/) const { return x; }
  // From call i to the next, by what the network said there. `noise` is standard normal, read by those that
  // `draws`.
  virtual Tensor step(const Tensor& x, const Tensor& said, size_t i, const Tensor& noise) = 0;
  virtual bool draws() const { return false; }
  // x at the noise of call i, from a clean picture: to begin half-way.
  virtual Tensor noised(const Tensor& clean, const Tensor& noise, size_t i) const = 0;

 protected:
  std::vector<double> times_;
  double first_scale_ = 1;
};

// `name`: "ddim", "ddpm", "euler", "dpm++", "pndm"; empty: as the config's _class_name says. Every field of
// the config that changes results is honoured; one that is not known here is an Error. Named otherwise than
// the config's class, the solver takes the fields that it knows, as diffusers' from_config does. "eta" in the
// config, which diffusers takes as an argument, is DDIM's.
std::unique_ptr<Solver> solver(const Json& config, std::string_view name, int64_t steps,
                               std::string_view what);
std::vector<std::string> solver_names();
std::string solver_of(const Json& config);  // by its _class_name; empty when that is not known here

}  // namespace lamina
