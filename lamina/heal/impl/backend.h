// One function a backend: everything above speaks to c10d::Backend alone.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "lamina/heal/impl/place.h"

namespace lamina {

using Store = c10::intrusive_ptr<c10d::Store>;
using Backend = c10::intrusive_ptr<c10d::Backend>;

Backend gloo_backend(const Store& store, const Place& place, const GroupOptions& options);

// For gradients on a GPU. Null when this build has none: they then travel through host memory.
Backend nccl_backend(const Store& store, const Place& place, const GroupOptions& options);

}  // namespace lamina
