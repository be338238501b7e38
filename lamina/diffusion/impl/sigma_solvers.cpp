// Solvers over noise levels sigma = sqrt((1 - abar) / abar): Euler and DPM-Solver++.
#include <algorithm>
#include <cmath>
#include <limits>

#include "lamina/base/error.h"
#include "lamina/diffusion/impl/scheduler_fields.h"
#include "lamina/diffusion/impl/solvers.h"

namespace lamina::scheduler {

namespace {

struct Levels {
  std::vector<double> sigmas;  // one more than times
  std::vector<double> times;
};

Spacing spacing_of(const Setting& setting) {
  return {
      .kind = choice(setting.config, "timestep_spacing", {"linspace", "leading", "trailing"}, setting.what),
      .train_steps = setting.schedule.steps(),
      .offset = json_integer_or(setting.config, "steps_offset", 0, setting.what, {.min = 0, .max = 100'000})};
}

// Where the betas were rescaled to no signal at the end, a little is left: the level stays finite.
std::vector<double> train_sigmas(const Setting& setting) {
  std::vector<double> alpha_bar = setting.schedule.alpha_bar;
  if (json_bool_or(setting.config, "rescale_betas_zero_snr", false, setting.what)) alpha_bar.back() = 0x1p-24;
  return sigmas_of(alpha_bar);
}

double last_sigma(const Setting& setting, const std::vector<double>& train) {
  const bool zero =
      choice(setting.config, "final_sigmas_type", {"zero", "sigma_min"}, setting.what) == "zero";
  return zero ? 0 : train.front();
}

enum class Curve { spaced, karras, exponential, lu };

Curve curve_of(const Setting& setting) {
  const auto has = [&](std::string_view key) {
    return json_bool_or(setting.config, key, false, setting.what);
  };
  const bool by_karras = has("use_karras_sigmas"), by_exponent = has("use_exponential_sigmas");
  if (by_karras && by_exponent)
    fail("{}: use_karras_sigmas and use_exponential_sigmas cannot both be set", setting.what);
  return by_karras ? Curve::karras : by_exponent ? Curve::exponential : Curve::spaced;
}

std::vector<double> curved(Curve curve, double most, double least, int64_t steps) {
  return curve == Curve::karras ? karras(most, least, steps) : exponential(most, least, steps);
}

std::vector<double> times_of(const std::vector<double>& sigmas, const std::vector<double>& train) {
  std::vector<double> times;
  for (const double sigma : sigmas) times.push_back(time_of_sigma(sigma, train));
  return times;
}

Levels euler_levels(const Setting& setting) {
  const std::vector<double> train = train_sigmas(setting);
  Levels levels{.sigmas = {}, .times = times(spacing_of(setting), setting.steps, setting.what)};
  if (choice(setting.config, "interpolation_type", {"linear", "log_linear"}, setting.what) == "linear") {
    for (const double time : levels.times) levels.sigmas.push_back(interpolated(train, time));
  } else {
    levels.sigmas = exponential(train.back(), train.front(), setting.steps + 1);
  }
  if (const Curve curve = curve_of(setting); curve != Curve::spaced) {
    const double least = json_number_or(setting.config, "sigma_min", levels.sigmas.back(), setting.what);
    const double most = json_number_or(setting.config, "sigma_max", levels.sigmas.front(), setting.what);
    if (!(least > 0 && most >= least)) fail("{}: sigma_min is above 0 and at most sigma_max", setting.what);
    levels.sigmas = curved(curve, most, least, setting.steps);
    levels.times = times_of(levels.sigmas, train);
  }
  levels.sigmas.push_back(last_sigma(setting, train));
  return levels;
}

// x = x_0 + sigma e; the network reads it scaled to variance 1.
class Euler : public Solver {
 public:
  explicit Euler(const Setting& setting) : prediction_(setting.schedule.prediction) {
    refuse(setting.config, {"use_beta_sigmas"}, setting.what);
    Levels levels = euler_levels(setting);
    sigmas_ = std::move(levels.sigmas), times_ = std::move(levels.times);
    const bool continuous =
        choice(setting.config, "timestep_type", {"discrete", "continuous"}, setting.what) == "continuous";
    if (continuous && prediction_ == Prediction::v) {
      for (size_t i = 0; i < times_.size(); ++i) times_[i] = 0.25 * std::log(sigmas_[i]);
    }
    const double most = *std::ranges::max_element(sigmas_);
    first_scale_ = spacing_of(setting).kind == "leading" ? std::sqrt(most * most + 1) : most;
  }

  Tensor input(const Tensor& x, size_t i) const override {
    return x / std::sqrt(sigmas_.at(i) * sigmas_.at(i) + 1);
  }
  Tensor step(const Tensor& x, const Tensor& said, size_t i, const Tensor&) override {
    const double sigma = sigmas_.at(i);
    return x + (x - clean(x, said, sigma)) * ((sigmas_.at(i + 1) - sigma) / sigma);
  }
  Tensor noised(const Tensor& clean, const Tensor& noise, size_t i) const override {
    return clean + noise * sigmas_.at(i);
  }

 private:
  Tensor clean(const Tensor& x, const Tensor& said, double sigma) const {
    if (prediction_ == Prediction::sample) return said;
    if (prediction_ == Prediction::epsilon) return x - said * sigma;
    const double variance = sigma * sigma + 1;
    return x / variance - said * (sigma / std::sqrt(variance));
  }

  Prediction prediction_;
  std::vector<double> sigmas_;
};

// How many of the noisiest times are left away, so that log(alpha / sigma) stays above lambda_min_clipped.
int64_t last_time(const Setting& setting, const std::vector<double>& train) {
  const double least = json_number_or(setting.config, "lambda_min_clipped",
                                      -std::numeric_limits<double>::infinity(), setting.what);
  return std::ranges::count_if(train, [&](double sigma) { return -std::log(sigma) >= least; });
}

Levels multistep_levels(const Setting& setting) {
  const std::vector<double> train = train_sigmas(setting);
  Levels levels{
      .sigmas = {},
      .times = multistep_times(spacing_of(setting), setting.steps, last_time(setting, train), setting.what)};
  Curve curve = curve_of(setting);
  if (json_bool_or(setting.config, "use_lu_lambdas", false, setting.what) && curve != Curve::karras)
    curve = Curve::lu;
  if (curve == Curve::spaced) {
    for (const double time : levels.times) levels.sigmas.push_back(interpolated(train, time));
  } else {
    levels.sigmas = curved(curve, train.back(), train.front(), setting.steps);
    levels.times = times_of(levels.sigmas, train);
    const bool rounded =
        curve != Curve::exponential &&
        json_string_or(setting.config, "beta_schedule", "linear", setting.what) != "squaredcos_cap_v2";
    for (double& time : levels.times) time = rounded ? std::nearbyint(time) : std::trunc(time);
  }
  levels.sigmas.push_back(last_sigma(setting, train));
  return levels;
}

// x = alpha x_0 + s e with alpha = 1 / sqrt(sigma^2 + 1) and s = sigma alpha; lambda = log(alpha / s).
struct Level {
  double alpha, s, lambda;
  explicit Level(double sigma)
      : alpha(1 / std::sqrt(sigma * sigma + 1)), s(sigma * alpha), lambda(-std::log(sigma)) {}
};

// The update as a sum: x times `x`, plus for each order what it weighs.
struct Weights {
  double x = 0, d0 = 0, d1 = 0, d2 = 0, noise = 0;
};

class Multistep : public Solver {
 public:
  explicit Multistep(const Setting& setting)
      : prediction_(setting.schedule.prediction), hold_(thresholds(setting.config, setting.what)) {
    const auto& [config, schedule, steps, what] = setting;
    refuse(config, {"use_beta_sigmas", "use_flow_sigmas", "use_dynamic_shifting"}, what);
    if (json_has(config, "variance_type") &&
        json_string(config, "variance_type", what).starts_with("learned"))
      fail("{}: a network that says its variance is not known here", what);
    order_ = json_integer_or(config, "solver_order", 2, what, {.min = 1, .max = 3});
    draws_ = choice(config, "algorithm_type", {"dpmsolver++", "sde-dpmsolver++"}, what) == "sde-dpmsolver++";
    heun_ = choice(config, "solver_type", {"midpoint", "heun"}, what) == "heun";
    Levels levels = multistep_levels(setting);
    sigmas_ = std::move(levels.sigmas), times_ = std::move(levels.times);
    const bool short_way = json_bool_or(config, "lower_order_final", true, what) && times_.size() < 15;
    first_order_last_ =
        json_bool_or(config, "euler_at_final", false, what) || short_way || sigmas_.back() == 0;
    second_order_before_ = short_way;
  }

  Tensor step(const Tensor& x, const Tensor& said, size_t i, const Tensor& noise) override {
    said_.push_back(hold_(clean(x, said, Level(sigmas_.at(i)))));
    if (said_.size() > 3) said_.erase(said_.begin());
    return updated(x, noise, i, order_at(i));
  }
  bool draws() const override { return draws_; }
  Tensor noised(const Tensor& clean, const Tensor& noise, size_t i) const override {
    const Level level(sigmas_.at(i));
    return clean * level.alpha + noise * level.s;
  }

 private:
  Tensor clean(const Tensor& x, const Tensor& said, const Level& level) const {
    if (prediction_ == Prediction::sample) return said;
    if (prediction_ == Prediction::v) return x * level.alpha - said * level.s;
    return (x - said * level.s) / level.alpha;
  }

  int64_t order_at(size_t i) const {
    int64_t order = std::min(order_, static_cast<int64_t>(said_.size()));
    if (second_order_before_ && i + 2 == times_.size()) order = std::min<int64_t>(order, 2);
    return first_order_last_ && i + 1 == times_.size() ? 1 : order;
  }

  // Equations of Lu et al., appendix B; with noise, their stochastic form with twice the way.
  Weights weights(const Level& from, const Level& to, int64_t order) const {
    const double h = to.lambda - from.lambda, way = draws_ ? 2 * h : h, left = std::exp(-way);
    Weights w;
    w.x = to.s / from.s * (draws_ ? std::exp(-h) : 1);
    w.d0 = to.alpha * (1 - left);
    w.noise = draws_ ? to.s * std::sqrt(1 - left) : 0;
    if (order == 2 && !heun_) w.d1 = 0.5 * w.d0;
    if (order == 3 || (order == 2 && heun_)) w.d1 = to.alpha * ((left - 1) / way + 1);
    const double curve = (left - 1 + way) / (way * way);
    if (order == 3) w.d2 = to.alpha * ((draws_ ? -0.5 : 0.5) - curve);
    return w;
  }

  Tensor updated(const Tensor& x, const Tensor& noise, size_t i, int64_t order) const {
    const Level to(sigmas_.at(i + 1)), from(sigmas_.at(i));
    const Weights w = weights(from, to, order);
    const double h = to.lambda - from.lambda;
    const auto said = [&](size_t back) -> const Tensor& { return said_[said_.size() - back]; };
    Tensor out = x * w.x + said(1) * w.d0;
    if (order > 1) {
      const double r0 = (from.lambda - Level(sigmas_.at(i - 1)).lambda) / h;
      Tensor d1 = (said(1) - said(2)) / r0;
      if (order > 2) {
        const double r1 = (Level(sigmas_.at(i - 1)).lambda - Level(sigmas_.at(i - 2)).lambda) / h;
        const Tensor bend = d1 - (said(2) - said(3)) / r1;
        out = out + bend * (w.d2 / (r0 + r1));
        d1 = d1 + bend * (r0 / (r0 + r1));
      }
      out = out + d1 * w.d1;
    }
    return draws_ ? out + noise * w.noise : out;
  }

  Prediction prediction_;
  Hold hold_;
  int64_t order_ = 2;
  bool draws_ = false, heun_ = false, first_order_last_ = false, second_order_before_ = false;
  std::vector<double> sigmas_;
  std::vector<Tensor> said_;  // x_0 as it followed at the last calls, the last at the end
};

}  // namespace

std::unique_ptr<Solver> euler(const Setting& setting) {
  return std::make_unique<Euler>(setting);
}
std::unique_ptr<Solver> multistep(const Setting& setting) {
  return std::make_unique<Multistep>(setting);
}

}  // namespace lamina::scheduler
