// Adapters as peft keeps them, adapter_config.json beside adapter_model.safetensors: written from a student,
// and merged into the model that they stand on.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lamina/family/family.h"
#include "lamina/heal/student.h"

namespace lamina {

// The student's adapters, and beside them what it trained whole (peft's `modules_to_save`). `base` is what
// the adapter says that it stands on.
void write_adapter(const Student& student, const std::string& base, const std::filesystem::path& folder);

// Whether the folder holds an adapter and no model.
bool is_adapter(const std::filesystem::path& folder);

struct Adapter {
  std::filesystem::path folder;
  std::string base = {};  // what it says that it stands on
  int64_t rank = 0;
  double scale = 1;  // alpha / rank; alpha / sqrt(rank) where it was trained so (use_rslora)
  struct Product {
    std::string path;  // of a linear map
    Stored down, up;   // [rank, in], [out, rank]
  };
  std::vector<Product> products = {};
  std::vector<Stored> whole = {};  // tensors that take the place of the model's
};
// Throws Error for a file that is missing or damaged, for numbers that are none, and for kinds of adapters
// other than plain LoRA (DoRA, ranks of their own for some maps, embeddings), since those are another
// function.
Adapter read_adapter(const std::filesystem::path& folder);

// The model with W + scale B A in place of W, computed and kept in float32 (float64 in a model that is).
// Throws Error that names the tensor that has no place in the model, or another shape than its place.
Opened with_adapter(const Opened& opened, const Adapter& adapter);

}  // namespace lamina
