// Gradients in flat buckets, each summed over the ranks as soon as backward has filled it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lamina/heal/group.h"

namespace lamina {

// Starts summing a tensor over the ranks, in place; the function returned waits for the sum.
using StartSum = std::function<std::function<void()>(const Tensor&)>;

std::unique_ptr<Group::Gradients> buckets(std::vector<std::pair<std::string, Tensor>> leaves, StartSum start);

}  // namespace lamina
