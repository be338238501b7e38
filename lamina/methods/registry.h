// The methods by name: an explicit table.
#pragma once

#include <span>
#include <string_view>

#include "lamina/search/method.h"

namespace lamina {

struct Method {
  std::string_view name;
  std::string_view title;  // "FinerCut"
  std::string_view summary;
  std::string_view default_units;
  std::string_view score;  // what it judges by; empty: --metric, a greedy search on the output
  bool fixed_units = false;
  Proposal (*propose)(const MethodInput&, const MethodOptions&, const GreedyHooks&);
};

std::span<const Method> methods();
// Throws Error that lists the methods.
const Method& method_by_name(std::string_view name);

}  // namespace lamina
