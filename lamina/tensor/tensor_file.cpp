#include "lamina/tensor/tensor_file.h"

#include <algorithm>

#include "lamina/base/error.h"

namespace lamina {

TensorFile::TensorFile(const std::filesystem::path& path)
    : file_(MappedFile::open(path)), header_(safetensors::parse_header(file_->bytes(), path.string())) {}

std::optional<Stored> TensorFile::find(std::string_view name) const {
  const auto it = std::ranges::find(header_.tensors, name, &safetensors::TensorInfo::name);
  return it == header_.tensors.end() ? std::nullopt : std::optional(made(*it));
}

std::vector<Stored> TensorFile::all() const {
  std::vector<Stored> tensors;
  for (const safetensors::TensorInfo& info : header_.tensors) tensors.push_back(made(info));
  return tensors;
}

Stored TensorFile::made(const safetensors::TensorInfo& info) const {
  return {.name = info.name,
          .dtype = info.dtype,
          .shape = info.shape,
          .bytes = file_->bytes().subspan(header_.data_start + info.begin, info.end - info.begin),
          .file = file_};
}

Stored TensorFile::stored(std::string_view name) const {
  auto there = find(name);
  if (!there) fail("{}: holds no tensor {}", path().string(), name);
  return *std::move(there);
}

void save_tensors(AtomicFile& file, const std::vector<std::pair<std::string, Tensor>>& tensors) {
  safetensors::Header header;
  for (const auto& [name, tensor] : tensors)
    header.tensors.push_back(
        {.name = name, .dtype = dtype_of(tensor.scalar_type()), .shape = tensor.sizes().vec()});
  safetensors::lay_out(header.tensors);
  file.write(safetensors::write_header(header));
  for (const auto& [name, tensor] : tensors)
    file.write(Bytes(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()));
  file.commit();
}

}  // namespace lamina
