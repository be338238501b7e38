// Tensors in a safetensors file of no model: inputs of a pass, samples to learn from, what was seen.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lamina/base/file.h"
#include "lamina/format/safetensors.h"
#include "lamina/tensor/tensor.h"

namespace lamina {

class TensorFile {
 public:
  // Throws Error when the file is missing or damaged.
  explicit TensorFile(const std::filesystem::path& path);
  const std::filesystem::path& path() const { return file_->path(); }
  std::optional<Stored> find(std::string_view name) const;
  Stored stored(std::string_view name) const;  // throws Error when there is none
  std::vector<Stored> all() const;             // in the order of the file

 private:
  Stored made(const safetensors::TensorInfo& info) const;
  std::shared_ptr<const MappedFile> file_;
  safetensors::Header header_;
};

// Writes and commits.
void save_tensors(AtomicFile& file, const std::vector<std::pair<std::string, Tensor>>& tensors);

}  // namespace lamina
