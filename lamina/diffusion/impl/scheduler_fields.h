// The fields of a scheduler's config, and the times that follow from them. Private to the room.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/diffusion/schedule.h"

namespace lamina::scheduler {

// One of `known`, or the first of them where the config does not say. Throws Error for another.
std::string choice(const Json& config, std::string_view key, std::initializer_list<std::string_view> known,
                   std::string_view what);
// Throws Error where a flag that is not known here is set.
void refuse(const Json& config, std::initializer_list<std::string_view> flags, std::string_view what);

// The short name of diffusers' class, empty when it is not known here.
std::string_view name_of_class(std::string_view class_name);
// Throws Error for a field that no scheduler known here has: it may change results.
void check_fields(const Json& config, std::string_view what);

// Where x_0 is held: clipped, or thresholded (Saharia et al., 2022: per picture, at a quantile).
struct Hold {
  double clip = 0;      // 0: not clipped
  double quantile = 0;  // 0: not thresholded
  double most = 1;      // of the threshold; it is never below 1
  Tensor operator()(const Tensor& clean) const;
};
Hold thresholds(const Json& config, std::string_view what);
Hold hold(const Json& config, std::string_view what);  // and clip_sample, which is on where nothing is said

struct Spacing {
  std::string kind;  // "leading", "trailing", "linspace"
  int64_t train_steps = 1000, offset = 0;
};
// Descending, `steps` of them: whole numbers, but for those of linspace. Throws Error where one is not in
// [0, train_steps).
std::vector<double> times(const Spacing& spacing, int64_t steps, std::string_view what);
// DPM++'s: one more is laid out and the last left away; `last` below train_steps where the noisiest are left
// away.
std::vector<double> multistep_times(const Spacing& spacing, int64_t steps, int64_t last,
                                    std::string_view what);

// sqrt((1 - abar) / abar), ascending with time.
std::vector<double> sigmas_of(const std::vector<double>& alpha_bar);
// Between whole times, linearly.
double interpolated(const std::vector<double>& values, double time);
// The time of a noise level, linear in its logarithm between whole times.
double time_of_sigma(double sigma, const std::vector<double>& sigmas);
// Karras et al. (2022), equation 5, with rho = 7.
std::vector<double> karras(double most, double least, int64_t steps);
// Evenly in the logarithm.
std::vector<double> exponential(double most, double least, int64_t steps);

}  // namespace lamina::scheduler
