#include "lamina/diffusion/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lamina/base/file.h"
#include "tests/help.h"

namespace lamina {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using tests::refusal;

const Json kStable = {{"_class_name", "PNDMScheduler"}, {"beta_schedule", "scaled_linear"},
                      {"beta_start", 0.00085},          {"beta_end", 0.012},
                      {"skip_prk_steps", true},         {"steps_offset", 1}};

Json with(Json config, const Json& more) {
  config.update(more);
  return config;
}

Tensor numbers(std::initializer_list<double> values) {
  return at::tensor(std::vector<double>(values), at::TensorOptions(at::kDouble)).reshape({1, 1, 2, 2});
}

// As tests/golden/schedules.py has them.
Tensor noise(size_t call) {
  return numbers({0.5, -1.0, 0.25, 2.0}) * (1 - 0.3 * static_cast<double>(call % 5));
}
Tensor said(const Tensor& x, double t) {
  return x * 0.5 + (0.1 * std::cos(t / 250) - 0.05);
}

void expect_near(const Tensor& x, const Json& wanted, const std::string& where) {
  const Tensor flat = x.reshape({-1});
  for (int64_t i = 0; i < flat.numel(); ++i) {
    const double value = wanted[static_cast<size_t>(i)].get<double>();
    EXPECT_NEAR(flat[i].item<double>(), value, 1e-7 * std::max(1.0, std::abs(value))) << where;
  }
}

void expect_way(const Json& golden) {
  const auto steps = golden["steps"].get<int64_t>();
  const std::string where = golden["config"].dump() + fmt::format(" steps {}", steps);
  const auto way = solver(golden["config"], "", steps, "golden");
  ASSERT_EQ(way->times().size(), golden["times"].size()) << where;
  for (size_t i = 0; i < way->times().size(); ++i)
    EXPECT_NEAR(way->times()[i], golden["times"][i].get<double>(), 1e-5) << where;
  EXPECT_NEAR(way->first_scale(), golden["first_scale"].get<double>(), 1e-7 * way->first_scale()) << where;
  const Json& trail = golden["trail"];
  Tensor x = numbers({1.0, -0.5, 0.25, 2.0}) * way->first_scale();
  for (size_t i = 0; i < way->times().size(); ++i) {
    x = way->step(x, said(way->input(x, i), way->times()[i]), i, noise(i));
    if (trail.size() > 1) expect_near(x, trail[i], where + fmt::format(" call {}", i));
  }
  expect_near(x, trail.back(), where);
}

TEST(Schedules, WaysDownAreThoseOfDiffusers) {
  const Json golden = parse_json(read_file("tests/golden/schedules.json"), "schedules.json");
  EXPECT_GT(golden.size(), 100U);
  for (const Json& way : golden) expect_way(way);
}

TEST(Schedules, StableDiffusionsNumbers) {
  const NoiseSchedule schedule = noise_schedule(kStable, "x");
  EXPECT_NEAR(schedule.alpha_bar[0], 0.99915, 1e-7);
  EXPECT_NEAR(schedule.alpha_bar[500], 0.27633, 1e-4);
  EXPECT_NEAR(schedule.alpha_bar[999], 0.0046601, 1e-7);
  EXPECT_EQ(noise_schedule(with(kStable, {{"rescale_betas_zero_snr", true}}), "x").alpha_bar[999], 0);
}

TEST(Schedules, TargetAndCleanAreInverse) {
  const Tensor clean = numbers({1, 2, -3, 0.5}), fresh = numbers({0.2, -0.4, 1, 2});
  const Tensor time = at::tensor({321.0}, at::TensorOptions(at::kDouble));
  for (const char* says : {"epsilon", "v_prediction", "sample"}) {
    const NoiseSchedule schedule = noise_schedule(with(kStable, {{"prediction_type", says}}), "x");
    const Tensor noisy = schedule.noised(clean, fresh, time);
    EXPECT_TRUE(at::allclose(schedule.clean(noisy, schedule.target(clean, fresh, time), time), clean))
        << says;
  }
}

// Told the true noise at each call, every solver arrives at the picture.
TEST(Schedules, TheTruthLeadsToThePicture) {
  const Tensor clean = numbers({1, 2, -3, 0.5}), fresh = numbers({0.2, -0.4, 1, 2});
  for (const std::string& name : solver_names()) {
    const Json config = with(kStable, {{"clip_sample", false}, {"set_alpha_to_one", true}});
    for (const size_t begin : {size_t{0}, size_t{7}}) {
      const auto way = solver(config, name, 20, "x");
      Tensor x = way->noised(clean, fresh, begin);
      for (size_t i = begin; i < way->times().size(); ++i) {
        const Tensor in = way->input(x, i);
        const double a = noise_schedule(config, "x").alpha_bar[static_cast<size_t>(way->times()[i])];
        x = way->step(x, (in - clean * std::sqrt(a)) / std::sqrt(1 - a), i, at::zeros_like(x));
      }
      EXPECT_LT((x - clean).abs().max().item<double>(), 0.02) << name << " from call " << begin;
    }
  }
}

TEST(Schedules, AnotherSolverTakesTheFieldsThatItKnows) {
  EXPECT_EQ(solver(kStable, "", 10, "x")->times().size(), 11U);
  EXPECT_EQ(solver(kStable, "dpm++", 10, "x")->times().size(), 10U);
  EXPECT_EQ(
      solver(with(kStable, {{"_class_name", "UniPC"}, {"solver_p", 1}}), "euler", 3, "x")->times().size(),
      3U);
}

TEST(Schedules, PndmByNameSkipsRungeKuttaSteps) {
  Json other = with(kStable, {{"_class_name", "DDIMScheduler"}});
  const auto times = solver(kStable, "", 10, "x")->times();
  other.erase("skip_prk_steps");
  EXPECT_EQ(solver(other, "pndm", 10, "x")->times(), times);
  Json own = kStable;
  own.erase("skip_prk_steps");
  EXPECT_THAT(refusal([&] { solver(own, "", 10, "x"); }), HasSubstr("Runge-Kutta"));
}

TEST(Schedules, WhatIsNotKnownIsRefused) {
  const auto refused = [](const Json& more, const std::string& name = "", int64_t steps = 5) {
    return refusal([&] {
      solver(more.is_null() ? kStable : with(kStable, more), name, steps, "scheduler_config.json");
    });
  };
  EXPECT_THAT(refused({{"_class_name", "LMSDiscreteScheduler"}}), HasSubstr("name one of ddim"));
  EXPECT_THAT(refused({{"s_churn", 1}}), HasSubstr("\"s_churn\" is not known"));
  EXPECT_THAT(refused({{"beta_schedule", "sigmoid"}}), HasSubstr("beta_schedule \"sigmoid\""));
  EXPECT_THAT(refused({{"prediction_type", "flow"}}), HasSubstr("prediction_type"));
  EXPECT_THAT(refused({{"skip_prk_steps", false}}), HasSubstr("Runge-Kutta"));
  EXPECT_THAT(refused({{"use_beta_sigmas", true}}, "euler"), HasSubstr("use_beta_sigmas"));
  EXPECT_THAT(refused({{"algorithm_type", "dpmsolver"}}, "dpm++"), HasSubstr("algorithm_type"));
  EXPECT_THAT(refused({{"variance_type", "learned_range"}}, "ddpm"), HasSubstr("variance_type"));
  EXPECT_THAT(refused({}, "heun"), HasSubstr("no solver \"heun\""));
  EXPECT_THAT(refused({}, "ddim", 0), HasSubstr("from 1 to 1000"));
  EXPECT_THAT(refused({}, "ddim", 1000), HasSubstr("outside of 0 to 999"));
  EXPECT_THAT(refused({{"num_train_timesteps", -5}}), HasSubstr("num_train_timesteps"));
  EXPECT_THAT(refused({{"num_train_timesteps", 1e9}}), HasSubstr("num_train_timesteps"));
  EXPECT_THAT(refused({{"trained_betas", {0.1, 2}}}), HasSubstr("trained_betas"));
  EXPECT_THAT(refused({{"rescale_betas_zero_snr", true}, {"timestep_spacing", "trailing"}}, "ddim"),
              HasSubstr("no signal at all"));
}

}  // namespace
}  // namespace lamina
