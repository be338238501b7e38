// The file that `lamina train` reads, and the model that it describes, with its first numbers.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "lamina/cli/training.h"

namespace lamina::cli {

struct TrainConfig {
  Json model = {};                       // a config.json
  std::filesystem::path tokenizer = {};  // empty: bytes
  DataFlags texts = {};
  uint64_t seed = 0;  // of the first numbers
  double deviation = 0.02;
  std::string dtype = "float32";      // of the arithmetic
  std::optional<DType> weights = {};  // of what is written
  TrainOptions training = {};
};

// Paths in it are seen from the file. Throws Error for keys that mean nothing, naming the nearest that does.
TrainConfig read_train_config(const std::filesystem::path& path);

struct Made {
  Opened opened;
  Tokenizer tokenizer;
};
// With the first numbers of heal/first_numbers.h. `path` names the model.
Made model_from(const TrainConfig& config, const std::filesystem::path& path);

}  // namespace lamina::cli
