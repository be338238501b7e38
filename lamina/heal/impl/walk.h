// The walk of a pass, told to someone part by part.
#pragma once

#include <functional>

#include "lamina/heal/objective.h"

namespace lamina {

// `seen`: each part that ran, and the stream behind it.
Stream walk(const Pass& pass, const std::function<void(Site, const Tensor&)>& seen);
// From a stream that `begin` made.
Stream walk(const Pass& pass, Stream stream, const std::function<void(Site, const Tensor&)>& seen);

}  // namespace lamina
