// What a model was before its neurons were edited, kept beside it: undo.json says what changed,
// undo.safetensors holds the rows or columns that stood there. What `undo` gives, written with write_folder,
// is the original's weight files and config, to the byte; of a GGUF, what an unedited write of it would be.
#pragma once

#include <filesystem>

#include "lamina/checkpoint/checkpoint.h"

namespace lamina {

inline constexpr std::string_view kUndoText = "undo.json", kUndoWeights = "undo.safetensors";

// `folder` holds `edited` as written, types unchanged. Throws Error when the edits took tensors away: a cut
// model is undone by keeping the original.
void write_undo(const Checkpoint& original, const Checkpoint& edited, const std::filesystem::path& folder,
                const Watch& watch = {});

// Throws Error when there is nothing to undo by, when it is damaged, or when the weights are not those that
// it was written for.
Checkpoint undo(const std::filesystem::path& folder, const Watch& watch = {});

}  // namespace lamina
