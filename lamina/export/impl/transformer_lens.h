// A GPT-2 without norms as TransformerLens names and shapes its weights: heads are an axis of their own, maps
// stand [in, out], and the config is what HookedTransformerConfig takes.
#pragma once

#include <optional>
#include <string>

#include "lamina/family/family.h"

namespace lamina {

// Why the family cannot be written so; nothing when it can.
std::optional<std::string> no_transformer_lens(const Opened& model);

// `checkpoint`: whole blocks, numbered without a gap, no norm left.
Checkpoint for_transformer_lens(const Checkpoint& checkpoint);

}  // namespace lamina
