// A model that is nowhere yet: as its config describes it, with first numbers.
#pragma once

#include <string>

#include "lamina/heal/first_numbers.h"

namespace lamina {

// Float32. `name` stands for its path in messages. Weights get the file name that diffusers gives them where
// the config has a _class_name, else transformers'.
Opened from_config(const Json& config, const std::string& name, const FirstNumbers& options);

}  // namespace lamina
