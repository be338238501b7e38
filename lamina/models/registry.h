// From a declared checkpoint to a model that runs. An explicit table: linkers drop self-registered ones.
#pragma once

#include <memory>

#include "lamina/family/family.h"
#include "lamina/model/model.h"

namespace lamina {

// Throws Error when the architecture is declared but has no function here.
std::unique_ptr<Model> build_model(const Opened& opened, Weights::Options options = {});

}  // namespace lamina
