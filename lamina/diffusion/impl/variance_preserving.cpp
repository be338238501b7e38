// Solvers that hold x_t = sqrt(abar) x_0 + sqrt(1 - abar) e: DDIM, DDPM and PNDM.
#include <algorithm>
#include <cmath>
#include <utility>

#include "lamina/base/error.h"
#include "lamina/diffusion/impl/scheduler_fields.h"
#include "lamina/diffusion/impl/solvers.h"

namespace lamina::scheduler {

namespace {

Spacing spacing_of(const Setting& setting) {
  return {
      .kind = choice(setting.config, "timestep_spacing", {"leading", "trailing", "linspace"}, setting.what),
      .train_steps = setting.schedule.steps(),
      .offset = json_integer_or(setting.config, "steps_offset", 0, setting.what, {.min = 0, .max = 100'000})};
}

std::vector<double> whole_times(const Setting& setting) {
  std::vector<double> out = times(spacing_of(setting), setting.steps, setting.what);
  for (double& time : out) time = std::nearbyint(time);
  return out;
}

class Preserving : public Solver {
 public:
  Tensor noised(const Tensor& clean, const Tensor& noise, size_t i) const override {
    const double a = alpha_bar(static_cast<int64_t>(times_.at(i)));
    return clean * std::sqrt(a) + noise * std::sqrt(1 - a);
  }

 protected:
  Preserving(const Setting& setting, double final_alpha_bar)
      : alpha_bar_(setting.schedule.alpha_bar),
        prediction_(setting.schedule.prediction),
        final_(final_alpha_bar) {
    times_ = whole_times(setting);
    if (prediction_ == Prediction::epsilon && alpha_bar(static_cast<int64_t>(times_.front())) <= 0)
      fail(
          "{}: the first time has no signal at all, where a network that says the noise says nothing about "
          "the "
          "picture; set timestep_spacing to \"leading\", or prediction_type to \"v_prediction\" if it was "
          "trained so",
          setting.what);
  }

  double alpha_bar(int64_t time) const {
    return time < 0 ? final_ : alpha_bar_.at(static_cast<size_t>(time));
  }
  int64_t train_steps() const { return static_cast<int64_t>(alpha_bar_.size()); }
  int64_t time(size_t i) const { return static_cast<int64_t>(times_.at(i)); }

  Tensor clean(const Tensor& x, const Tensor& said, double a) const {
    if (prediction_ == Prediction::sample) return said;
    if (prediction_ == Prediction::v) return x * std::sqrt(a) - said * std::sqrt(1 - a);
    return (x - said * std::sqrt(1 - a)) / std::sqrt(a);
  }
  Tensor noise(const Tensor& x, const Tensor& said, double a) const {
    if (prediction_ == Prediction::epsilon) return said;
    if (prediction_ == Prediction::v) return said * std::sqrt(a) + x * std::sqrt(1 - a);
    return (x - said * std::sqrt(a)) / std::sqrt(1 - a);
  }

 private:
  std::vector<double> alpha_bar_;
  Prediction prediction_;
  double final_;
};

enum class Last { clean, first_time };  // where the config does not say

double final_alpha_bar(const Setting& setting, Last otherwise) {
  const bool one = json_bool_or(setting.config, "set_alpha_to_one", otherwise == Last::clean, setting.what);
  return one ? 1 : setting.schedule.alpha_bar.front();
}

// Equation 12 of Song et al.; the step is always of train steps / steps, whatever time comes next.
class Ddim : public Preserving {
 public:
  explicit Ddim(const Setting& setting)
      : Preserving(setting, final_alpha_bar(setting, Last::clean)),
        hold_(hold(setting.config, setting.what)),
        stride_(setting.schedule.steps() / setting.steps),
        eta_(json_number_or(setting.config, "eta", 0, setting.what)) {
    if (!(eta_ >= 0 && eta_ <= 1)) fail("{}: eta is from 0 to 1, not {}", setting.what, eta_);
  }

  Tensor step(const Tensor& x, const Tensor& said, size_t i, const Tensor& fresh) override {
    const double a = alpha_bar(time(i)), next = alpha_bar(time(i) - stride_);
    const double variance = (1 - next) / (1 - a) * (1 - a / next);
    const double sigma = eta_ > 0 ? eta_ * std::sqrt(variance) : 0;
    const Tensor x0 = hold_(clean(x, said, a));
    Tensor out =
        x0 * std::sqrt(next) + noise(x, said, a) * std::sqrt(std::max(1 - next - sigma * sigma, 0.0));
    return eta_ > 0 ? out + fresh * sigma : out;
  }
  bool draws() const override { return eta_ > 0; }

 private:
  Hold hold_;
  int64_t stride_;
  double eta_;
};

enum class Variance { small, large };

// Equations 6 and 7 of Ho et al., over the times that are visited.
class Ddpm : public Preserving {
 public:
  explicit Ddpm(const Setting& setting) : Preserving(setting, 1), hold_(hold(setting.config, setting.what)) {
    // fixed_small_log is the same number, made through its logarithm.
    const std::string kind = choice(setting.config, "variance_type",
                                    {"fixed_small", "fixed_small_log", "fixed_large"}, setting.what);
    variance_ = kind == "fixed_large" ? Variance::large : Variance::small;
  }

  Tensor step(const Tensor& x, const Tensor& said, size_t i, const Tensor& fresh) override {
    const bool last = i + 1 == times_.size();
    const double a = alpha_bar(time(i)), next = last ? 1 : alpha_bar(time(i + 1));
    const double alpha = a / next, beta = 1 - alpha;
    const Tensor x0 = hold_(clean(x, said, a));
    const Tensor mean =
        x0 * (std::sqrt(next) * beta / (1 - a)) + x * (std::sqrt(alpha) * (1 - next) / (1 - a));
    if (time(i) == 0) return mean;
    const double variance =
        variance_ == Variance::large ? beta : std::max((1 - next) / (1 - a) * beta, 1e-20);
    return mean + fresh * std::sqrt(variance);
  }
  bool draws() const override { return true; }

 private:
  Hold hold_;
  Variance variance_ = Variance::small;
};

// Linear multistep of order 4 in the noise (equations 9 and 12 of Liu et al.). The first step is made twice,
// the second time with the mean of what was said at both ends: one call more than steps. Begun half-way it is
// made once.
class Pndm : public Preserving {
 public:
  explicit Pndm(const Setting& setting)
      : Preserving(setting, final_alpha_bar(setting, Last::first_time)),
        stride_(setting.schedule.steps() / setting.steps) {
    if (!json_bool_or(setting.config, "skip_prk_steps", false, setting.what))
      fail("{}: PNDM with Runge-Kutta steps is not known here; set skip_prk_steps to true", setting.what);
    refuse(setting.config, {"rescale_betas_zero_snr"}, setting.what);
    if (setting.schedule.prediction == Prediction::sample)
      fail("{}: PNDM reads what is said as noise or v, not as the picture", setting.what);
    if (times_.size() > 1) times_.insert(times_.begin() + 1, times_[1]);
  }

  Tensor step(const Tensor& x, const Tensor& said, size_t i, const Tensor&) override {
    const bool again = i == 1 && first_.defined();
    const int64_t from = again ? time(i) + stride_ : time(i);
    if (again) {
      const Tensor start = std::exchange(first_, Tensor());
      return moved(start, (said + said_.back()) / 2, from, time(i));
    }
    said_.push_back(said);
    if (said_.size() > 4) said_.erase(said_.begin());
    if (i == 0) first_ = x;
    return moved(x, combined(), from, from - stride_);
  }

 private:
  Tensor combined() const {
    const auto said = [&](size_t back) -> const Tensor& { return said_[said_.size() - back]; };
    switch (said_.size()) {
      case 1:
        return said(1);
      case 2:
        return (said(1) * 3 - said(2)) / 2;
      case 3:
        return (said(1) * 23 - said(2) * 16 + said(3) * 5) / 12;
      default:
        return (said(1) * 55 - said(2) * 59 + said(3) * 37 - said(4) * 9) / 24;
    }
  }

  Tensor moved(const Tensor& x, const Tensor& said, int64_t from, int64_t to) const {
    const double a = alpha_bar(std::min(from, train_steps() - 1)), next = alpha_bar(to);
    const double below = a * std::sqrt(1 - next) + std::sqrt(a * (1 - a) * next);
    return x * std::sqrt(next / a) - noise(x, said, a) * ((next - a) / below);
  }
  int64_t stride_;
  std::vector<Tensor> said_;
  Tensor first_;
};

}  // namespace

std::unique_ptr<Solver> ddim(const Setting& setting) {
  return std::make_unique<Ddim>(setting);
}
std::unique_ptr<Solver> ddpm(const Setting& setting) {
  return std::make_unique<Ddpm>(setting);
}
std::unique_ptr<Solver> pndm(const Setting& setting) {
  return std::make_unique<Pndm>(setting);
}

}  // namespace lamina::scheduler
