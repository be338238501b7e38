// What heal and train do alike: one run of the loop over one model, what it was like before and after, and
// where the result goes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lamina/cli/training.h"

namespace lamina::cli {

struct TrainingJob {
  std::string title;       // "Healing SmolLM2-135M"
  std::string card_title;  // "SmolLM2-135M, healed"
  std::string base_model = {};
  std::string command = {};
  Opened opened;
  Tokenizer tokenizer;
  TextData data;
  int64_t validation_samples = 0;
  TrainOptions options;
  Student::Options student = {};
  std::shared_ptr<const Model> teacher = {};
  DistillOptions distil = {};
  std::vector<FormRequest> forms = {};  // empty: the stock folder
  std::optional<DType> weights = {};    // of what is written
  std::string adapter_base = {};  // not empty: the adapter is written too, and says that it stands on this
  Settings settings = {};
  std::vector<std::string> limits = {};
  bool json = false, quiet = false;
};

// Trains, measures, writes into `folder`, gives it its name and says what came of it. Throws Error when
// memory or disk does not suffice. The status is `failed` where a number broke: the last whole step is then
// written.
int run_training(Group& group, TrainingFolder& folder, Terminal& terminal, TrainingJob job);

}  // namespace lamina::cli
