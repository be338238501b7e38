// What a run needs to go on: its place, its curve, and tensors by name. On disk a checkpoint is a folder
// `step-N` of two files, whole or not there: it is written beside, synced, and renamed.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/heal/train.h"

namespace lamina {

struct RunState {
  int64_t step = 0;
  std::map<std::string, std::string> fields = {};  // what must be the same for the run to go on
  std::vector<StepRecord> curve = {};
  std::vector<Evaluation> evaluations = {};
  Json hook = Json::object();
  // "value/NAME", "first/NAME", "second/NAME" of every parameter, "hook/NAME".
  std::map<std::string, Tensor> tensors = {};
};

// All but the tensors. Throws Error, which `what` begins, for anything that is not a state; outside bytes.
std::string to_text(const RunState& state, std::string_view digest_of_tensors);
struct ReadState {
  RunState state;
  std::string digest_of_tensors;
};
ReadState state_from_text(std::string_view text, std::string_view what);

// Steps for which `folder` holds a checkpoint, the newest first; empty when there is no folder.
std::vector<int64_t> checkpoints_in(const std::filesystem::path& folder);
std::filesystem::path checkpoint_path(const std::filesystem::path& folder, int64_t step);

// Writes step-N and leaves, beside it, the newest before it.
void write_checkpoint(const std::filesystem::path& folder, const RunState& state);
// Throws Error when it is damaged.
RunState read_checkpoint(const std::filesystem::path& folder, int64_t step);

}  // namespace lamina
