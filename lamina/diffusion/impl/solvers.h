// The solvers by name. Private to the room.
#pragma once

#include <memory>
#include <string_view>

#include "lamina/diffusion/schedule.h"

namespace lamina::scheduler {

struct Setting {
  const Json& config;
  const NoiseSchedule& schedule;
  int64_t steps;
  std::string_view what;
};

std::unique_ptr<Solver> ddim(const Setting& setting);       // Song et al., 2021, with `eta`
std::unique_ptr<Solver> ddpm(const Setting& setting);       // Ho et al., 2020
std::unique_ptr<Solver> pndm(const Setting& setting);       // Liu et al., 2022, without Runge-Kutta steps
std::unique_ptr<Solver> euler(const Setting& setting);      // Karras et al., 2022, without churn
std::unique_ptr<Solver> multistep(const Setting& setting);  // DPM-Solver++, Lu et al., 2022

}  // namespace lamina::scheduler
