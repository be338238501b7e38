#include "lamina/diffusion/impl/scheduler_fields.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::scheduler {

namespace {

struct Class {
  std::string_view class_name, name;
};
constexpr std::array kClasses = {
    Class{"DDIMScheduler", "ddim"},           Class{"DDPMScheduler", "ddpm"},
    Class{"EulerDiscreteScheduler", "euler"}, Class{"DPMSolverMultistepScheduler", "dpm++"},
    Class{"PNDMScheduler", "pndm"},
};

// Of all classes above: diffusers writes fields of one into the config of another.
constexpr std::array<std::string_view, 37> kFields = {"num_train_timesteps",
                                                      "beta_start",
                                                      "beta_end",
                                                      "beta_schedule",
                                                      "trained_betas",
                                                      "prediction_type",
                                                      "timestep_spacing",
                                                      "steps_offset",
                                                      "rescale_betas_zero_snr",
                                                      "clip_sample",
                                                      "clip_sample_range",
                                                      "set_alpha_to_one",
                                                      "thresholding",
                                                      "dynamic_thresholding_ratio",
                                                      "sample_max_value",
                                                      "variance_type",
                                                      "interpolation_type",
                                                      "use_karras_sigmas",
                                                      "use_exponential_sigmas",
                                                      "use_beta_sigmas",
                                                      "sigma_min",
                                                      "sigma_max",
                                                      "timestep_type",
                                                      "final_sigmas_type",
                                                      "solver_order",
                                                      "algorithm_type",
                                                      "solver_type",
                                                      "lower_order_final",
                                                      "euler_at_final",
                                                      "use_lu_lambdas",
                                                      "use_flow_sigmas",
                                                      "flow_shift",
                                                      "lambda_min_clipped",
                                                      "use_dynamic_shifting",
                                                      "time_shift_type",
                                                      "skip_prk_steps",
                                                      "eta"};

// numpy's: start + i (start - step - start), as many as fit above 0; halves go to the even number.
std::vector<double> downwards(double start, double step) {
  const auto count = static_cast<int64_t>(std::ceil(start / step));
  const double delta = (start - step) - start;
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) {
    const double value = std::nearbyint(start + static_cast<double>(i) * delta) - 1;
    if (value >= 0) values.push_back(value);  // rounding can leave one too many
  }
  return values;
}

// `count` from 0 to `last`, ascending.
std::vector<double> evenly(double last, int64_t count) {
  std::vector<double> values;
  const double step = count > 1 ? last / static_cast<double>(count - 1) : 0;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(i > 0 && i == count - 1 ? last : static_cast<double>(i) * step);
  return values;
}

std::vector<double> reversed(std::vector<double> values) {
  std::ranges::reverse(values);
  return values;
}

void check_times(const std::vector<double>& times, const Spacing& spacing, int64_t steps,
                 std::string_view what) {
  if (times.empty() || times.front() > static_cast<double>(spacing.train_steps - 1) || times.back() < 0)
    fail(
        "{}: {} steps with timestep_spacing \"{}\" and steps_offset {} would visit a time outside of 0 to "
        "{}; take "
        "fewer steps",
        what, steps, spacing.kind, spacing.offset, spacing.train_steps - 1);
}

void check_steps(int64_t steps, int64_t most, std::string_view what) {
  if (steps < 1 || steps > most) fail("{}: the number of steps is from 1 to {}, not {}", what, most, steps);
}

}  // namespace

std::string choice(const Json& config, std::string_view key, std::initializer_list<std::string_view> known,
                   std::string_view what) {
  const std::string value = json_string_or(config, key, *known.begin(), what);
  if (std::ranges::find(known, value) == known.end())
    fail("{}: {} {} is not known here; known are {}", what, key, in_quotes(value), fmt::join(known, ", "));
  return value;
}

void refuse(const Json& config, std::initializer_list<std::string_view> flags, std::string_view what) {
  for (const std::string_view flag : flags)
    if (json_bool_or(config, flag, false, what))
      fail("{}: {} is not known here; set it to false", what, flag);
}

std::string_view name_of_class(std::string_view class_name) {
  const auto* const found = std::ranges::find(kClasses, class_name, &Class::class_name);
  return found == kClasses.end() ? "" : found->name;
}

void check_fields(const Json& config, std::string_view what) {
  for (const auto& [key, value] : config.get_ref<const Json::object_t&>()) {
    if (!key.starts_with('_') && std::ranges::find(kFields, key) == kFields.end())
      fail("{}: the field {} is not known here and may change results; remove it, or name another solver",
           what, in_quotes(key));
  }
}

Tensor Hold::operator()(const Tensor& clean) const {
  if (quantile > 0) {
    const Tensor flat = clean.reshape({clean.size(0), -1});
    const Tensor most_of = at::quantile(flat.abs(), quantile, 1).clamp(1).clamp_max(most).unsqueeze(1);
    return (at::minimum(at::maximum(flat, -most_of), most_of) / most_of).reshape(clean.sizes());
  }
  return clip > 0 ? clean.clamp(-clip, clip) : clean;
}

Hold thresholds(const Json& config, std::string_view what) {
  Hold hold;
  if (json_bool_or(config, "thresholding", false, what)) {
    hold.quantile = json_number_or(config, "dynamic_thresholding_ratio", 0.995, what);
    hold.most = json_number_or(config, "sample_max_value", 1, what);
    if (!(hold.quantile > 0 && hold.quantile <= 1) || hold.most <= 0)
      fail("{}: dynamic_thresholding_ratio is above 0 and at most 1, sample_max_value above 0", what);
  }
  return hold;
}

Hold hold(const Json& config, std::string_view what) {
  Hold hold = thresholds(config, what);
  if (json_bool_or(config, "clip_sample", true, what)) {
    hold.clip = json_number_or(config, "clip_sample_range", 1, what);
    if (hold.clip <= 0) fail("{}: clip_sample_range is above 0", what);
  }
  return hold;
}

std::vector<double> times(const Spacing& spacing, int64_t steps, std::string_view what) {
  check_steps(steps, spacing.train_steps, what);
  std::vector<double> out;
  if (spacing.kind == "linspace") {
    out = reversed(evenly(static_cast<double>(spacing.train_steps - 1), steps));
  } else if (spacing.kind == "leading") {
    const int64_t ratio = spacing.train_steps / steps;
    for (int64_t i = steps - 1; i >= 0; --i) out.push_back(static_cast<double>(i * ratio + spacing.offset));
  } else {
    out = downwards(static_cast<double>(spacing.train_steps),
                    static_cast<double>(spacing.train_steps) / static_cast<double>(steps));
  }
  check_times(out, spacing, steps, what);
  return out;
}

std::vector<double> multistep_times(const Spacing& spacing, int64_t steps, int64_t last,
                                    std::string_view what) {
  check_steps(steps, last - 1, what);
  std::vector<double> out;
  if (spacing.kind == "linspace") {
    out = reversed(evenly(static_cast<double>(last - 1), steps + 1));
    out.pop_back();
    for (double& time : out) time = std::nearbyint(time);
  } else if (spacing.kind == "leading") {
    const int64_t ratio = last / (steps + 1);
    for (int64_t i = steps; i > 0; --i) out.push_back(static_cast<double>(i * ratio + spacing.offset));
  } else {
    out = downwards(static_cast<double>(last),
                    static_cast<double>(spacing.train_steps) / static_cast<double>(steps));
  }
  check_times(out, spacing, steps, what);
  return out;
}

std::vector<double> sigmas_of(const std::vector<double>& alpha_bar) {
  std::vector<double> sigmas;
  for (const double a : alpha_bar) sigmas.push_back(std::sqrt((1 - a) / a));
  return sigmas;
}

double interpolated(const std::vector<double>& values, double time) {
  const double place = std::clamp(time, 0.0, static_cast<double>(values.size() - 1));
  const auto first = static_cast<size_t>(place);
  const double share = place - static_cast<double>(first);
  return share > 0 ? values[first] + share * (values[first + 1] - values[first]) : values[first];
}

double time_of_sigma(double sigma, const std::vector<double>& sigmas) {
  const double wanted = std::log(std::max(sigma, 1e-10));
  const auto above = std::ranges::upper_bound(sigmas, wanted, {}, [](double s) { return std::log(s); });
  const auto low = static_cast<size_t>(
      std::clamp<int64_t>(above - sigmas.begin() - 1, 0, static_cast<int64_t>(sigmas.size()) - 2));
  const double below = std::log(sigmas[low]), next = std::log(sigmas[low + 1]);
  return static_cast<double>(low) + std::clamp((below - wanted) / (below - next), 0.0, 1.0);
}

std::vector<double> karras(double most, double least, int64_t steps) {
  constexpr double rho = 7;
  const double from = std::pow(most, 1 / rho), to = std::pow(least, 1 / rho);
  std::vector<double> sigmas;
  for (const double ramp : evenly(1, steps)) sigmas.push_back(std::pow(from + ramp * (to - from), rho));
  return sigmas;
}

std::vector<double> exponential(double most, double least, int64_t steps) {
  std::vector<double> sigmas;
  for (const double ramp : evenly(1, steps))
    sigmas.push_back(std::exp(std::log(most) + ramp * (std::log(least) - std::log(most))));
  return sigmas;
}

}  // namespace lamina::scheduler
