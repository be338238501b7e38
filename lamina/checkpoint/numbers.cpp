#include "lamina/checkpoint/numbers.h"

#include <cmath>
#include <cstring>

#include "lamina/base/error.h"

namespace lamina {

DType editable_dtype(DType dtype) {
  const bool own = dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
  return own ? dtype : DType::f32;
}

std::vector<std::byte> bytes_as(const Stored& tensor, DType as) {
  std::vector<std::byte> bytes;
  bytes.reserve(byte_count(as, tensor.shape, tensor.name));
  stream(tensor, {.as = as}, [&](Bytes piece) { bytes.insert(bytes.end(), piece.begin(), piece.end()); });
  return bytes;
}

void own(Stored& tensor, std::vector<std::byte> bytes) {
  tensor.made = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  tensor.bytes = *tensor.made;
  tensor.file = nullptr;
  tensor.paired_heads = 0;
  tensor.zero = false;
}

Numbers::Numbers(const Stored& tensor)
    : name_(tensor.name), dtype_(editable_dtype(tensor.dtype)), bytes_(bytes_as(tensor, dtype_)) {}

double Numbers::at(int64_t index) const {
  const auto size = static_cast<size_t>(block_bytes(dtype_));
  const Bytes bytes = Bytes(bytes_).subspan(static_cast<size_t>(index) * size, size);
  if (dtype_ == DType::f64) {
    double value = 0;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  float value = 0;
  decode_f32(dtype_, bytes, {&value, 1});
  return value;
}

void Numbers::set(int64_t index, double value) {
  const auto size = static_cast<size_t>(block_bytes(dtype_));
  const std::span bytes = std::span(bytes_).subspan(static_cast<size_t>(index) * size, size);
  if (dtype_ == DType::f64) {
    std::memcpy(bytes.data(), &value, sizeof value);
  } else {
    const auto rounded = static_cast<float>(value);
    encode_f32({&rounded, 1}, dtype_, bytes);
  }
  if (std::isfinite(value) && !std::isfinite(at(index)))
    fail("{}: {} is too large for {}; write the model as float32 first", name_, value, dtype_name(dtype_));
}

void Numbers::put(Stored& tensor) && {
  tensor.dtype = dtype_;
  own(tensor, std::move(bytes_));
}

}  // namespace lamina
