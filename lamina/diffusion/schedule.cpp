#include "lamina/diffusion/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/diffusion/impl/scheduler_fields.h"
#include "lamina/diffusion/impl/solvers.h"

namespace lamina {

namespace {

constexpr int64_t kMostTrainSteps = 100'000;

double positive(const Json& config, std::string_view key, double otherwise, std::string_view what) {
  const double value = json_number_or(config, key, otherwise, what);
  if (!(value > 0 && value < 1)) fail("{}: {} is between 0 and 1, not {}", what, key, value);
  return value;
}

// float32 as in training, so that they are the very numbers that the network was trained on.
Tensor evenly(double from, double to, int64_t count) {
  return at::linspace(from, to, count, at::TensorOptions(at::kFloat));
}

// Nichol and Dhariwal (2021), equation 17.
Tensor cosine_betas(int64_t count) {
  const auto alpha_bar = [](double t) {
    return std::pow(std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2), 2);
  };
  std::vector<double> betas;
  for (int64_t i = 0; i < count; ++i) {
    const double now = static_cast<double>(i) / static_cast<double>(count);
    const double next = static_cast<double>(i + 1) / static_cast<double>(count);
    betas.push_back(std::min(1 - alpha_bar(next) / alpha_bar(now), 0.999));
  }
  return at::tensor(betas, at::TensorOptions(at::kDouble)).to(at::kFloat);
}

Tensor trained_betas(const Json& config, std::string_view what) {
  const Json& list = config["trained_betas"];
  std::vector<double> betas;
  if (list.is_array()) {
    for (const Json& beta : list) betas.push_back(beta.is_number() ? beta.get<double>() : -1);
  }
  const bool fine = std::ranges::all_of(betas, [](double beta) { return beta > 0 && beta < 1; });
  if (betas.size() < 2 || betas.size() > kMostTrainSteps || !fine)
    fail("{}: trained_betas is a list of numbers between 0 and 1", what);
  const auto count = static_cast<int64_t>(betas.size());
  if (json_integer_or(config, "num_train_timesteps", count, what) != count)
    fail("{}: num_train_timesteps is not the number of trained_betas, {}", what, count);
  return at::tensor(betas, at::TensorOptions(at::kDouble)).to(at::kFloat);
}

Tensor betas_of(const Json& config, std::string_view what) {
  if (json_has(config, "trained_betas")) return trained_betas(config, what);
  const int64_t count =
      json_integer_or(config, "num_train_timesteps", 1000, what, {.min = 2, .max = kMostTrainSteps});
  const std::string kind =
      scheduler::choice(config, "beta_schedule", {"linear", "scaled_linear", "squaredcos_cap_v2"}, what);
  if (kind == "squaredcos_cap_v2") return cosine_betas(count);
  const double from = positive(config, "beta_start", 0.0001, what);
  const double to = positive(config, "beta_end", 0.02, what);
  return kind == "linear" ? evenly(from, to, count) : evenly(std::sqrt(from), std::sqrt(to), count).pow(2);
}

// Lin et al. (2023), algorithm 1: no signal is left at the end.
Tensor without_signal_at_the_end(const Tensor& alpha_bar) {
  const Tensor root = alpha_bar.sqrt(), first = root[0], last = root[-1];
  const Tensor moved = ((root - last) * (first / (first - last))).pow(2);
  const Tensor ratio = at::cat({moved.slice(0, 0, 1), moved.slice(0, 1) / moved.slice(0, 0, -1)});
  const Tensor betas = 1 - ratio;  // as they would be stored
  return at::cumprod(1 - betas, 0);
}

}  // namespace

NoiseSchedule noise_schedule(const Json& config, std::string_view what) {
  if (!config.is_object()) fail("{}: is not a JSON object", what);
  NoiseSchedule schedule;
  const std::string says =
      scheduler::choice(config, "prediction_type", {"epsilon", "v_prediction", "sample"}, what);
  schedule.prediction = says == "epsilon"        ? Prediction::epsilon
                        : says == "v_prediction" ? Prediction::v
                                                 : Prediction::sample;
  Tensor alpha_bar = at::cumprod(1 - betas_of(config, what), 0);
  if (json_bool_or(config, "rescale_betas_zero_snr", false, what))
    alpha_bar = without_signal_at_the_end(alpha_bar);
  const Tensor wide = alpha_bar.to(at::kDouble).contiguous();
  schedule.alpha_bar.assign(wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel());
  return schedule;
}

Tensor NoiseSchedule::alpha_bar_at(const Tensor& time, const Tensor& like) const {
  const Tensor table = at::tensor(alpha_bar, at::TensorOptions(at::kDouble)).to(time.device());
  const Tensor index = time.to(at::kLong).clamp(0, steps() - 1);
  const Tensor values = table.index_select(0, index.reshape({-1}));
  return values.to(like.options()).reshape({-1, 1, 1, 1});
}

Tensor NoiseSchedule::noised(const Tensor& clean, const Tensor& noise, const Tensor& time) const {
  const Tensor a = alpha_bar_at(time, clean);
  return a.sqrt() * clean + (1 - a).sqrt() * noise;
}

Tensor NoiseSchedule::target(const Tensor& clean, const Tensor& noise, const Tensor& time) const {
  if (prediction == Prediction::epsilon) return noise;
  if (prediction == Prediction::sample) return clean;
  const Tensor a = alpha_bar_at(time, clean);
  return a.sqrt() * noise - (1 - a).sqrt() * clean;
}

Tensor NoiseSchedule::clean(const Tensor& noisy, const Tensor& said, const Tensor& time) const {
  if (prediction == Prediction::sample) return said;
  const Tensor a = alpha_bar_at(time, noisy);
  if (prediction == Prediction::v) return a.sqrt() * noisy - (1 - a).sqrt() * said;
  return (noisy - (1 - a).sqrt() * said) / a.sqrt();
}

std::vector<std::string> solver_names() {
  return {"ddim", "ddpm", "euler", "dpm++", "pndm"};
}

std::string solver_of(const Json& config) {
  return std::string(
      scheduler::name_of_class(json_string_or(config, "_class_name", "", "scheduler_config.json")));
}

std::unique_ptr<Solver> solver(const Json& config, std::string_view name, int64_t steps,
                               std::string_view what) {
  const NoiseSchedule schedule = noise_schedule(config, what);
  const std::string class_name = json_string_or(config, "_class_name", "", what);
  const std::string_view own = scheduler::name_of_class(class_name);
  if (name.empty() && own.empty())
    fail("{}: the scheduler {} is not known here; name one of {} instead", what, in_quotes(class_name),
         fmt::join(solver_names(), ", "));
  const std::string_view wanted = name.empty() ? own : name;
  if (wanted == own) scheduler::check_fields(config, what);
  Json own_fields = config;
  // Another scheduler's config does not speak of Runge-Kutta steps, and Stable Diffusion's PNDM has none.
  if (wanted == "pndm" && own != wanted && !config.contains("skip_prk_steps"))
    own_fields["skip_prk_steps"] = true;
  const scheduler::Setting setting{own_fields, schedule, steps, what};
  if (wanted == "ddim") return scheduler::ddim(setting);
  if (wanted == "ddpm") return scheduler::ddpm(setting);
  if (wanted == "euler") return scheduler::euler(setting);
  if (wanted == "dpm++") return scheduler::multistep(setting);
  if (wanted == "pndm") return scheduler::pndm(setting);
  fail("there is no solver {}; known are {}", in_quotes(wanted), fmt::join(solver_names(), ", "));
}

}  // namespace lamina
