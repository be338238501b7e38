// How a config says that parts of a U-Net run otherwise than their class does.
//   "lamina_regional": [{"site": PATH, "window": 16, "pool": 4, "mix": "none", "log_count": true,
//                        "mask_own": true}]
//   "lamina_experts": {CONV: {"experts": [CONV, ...], "gate": "tanh-residual", "router": "t"}}
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/blueprint/blueprint.h"

namespace lamina {

inline constexpr std::string_view kRegionalKey = "lamina_regional", kExpertsKey = "lamina_experts";

std::string_view mix_name(Windows::Mix mix);        // "none", "pooled", "gate"
std::string_view gate_name(Experts::Gate gate);     // "tanh-residual", "sigmoid", "softmax"
std::string_view reads_name(Experts::Reads reads);  // "t", "x", "x+t"
// Throw Error, which `what` begins, with what is known.
Windows::Mix mix_from_name(std::string_view name, std::string_view what);
Experts::Gate gate_from_name(std::string_view name, std::string_view what);
Experts::Reads reads_from_name(std::string_view name, std::string_view what);

// The fields of a window in an object that may hold others besides. Throws Error for sides that are none, or
// a window that is not whole cells.
Windows windows_from_json(const Json& json, std::string_view what);
void windows_to_json(Json& json, const Windows& windows);
void check_windows(const Windows& windows, std::string_view what);

// By the path of the part.
using Regionals = std::map<std::string, Windows>;
Regionals read_regionals(const Json& config, std::string_view what);
void write_regionals(Json& config, const Regionals& regionals);  // none: no key is left

// By the path of the convolution.
using Mixtures = std::map<std::string, Experts>;
Mixtures read_mixtures(const Json& config, std::string_view what);
void write_mixtures(Json& config, const Mixtures& mixtures);

}  // namespace lamina
