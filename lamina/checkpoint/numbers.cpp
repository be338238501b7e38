#include "lamina/checkpoint/numbers.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lamina/base/error.h"

namespace lamina {

DType editable_dtype(DType dtype) {
  const bool own = dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
  return own ? dtype : DType::f32;
}

DType computed_dtype(DType dtype) {
  return dtype == DType::f64 ? DType::f64 : DType::f32;
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

Numbers::Numbers(const Stored& tensor, DType dtype)
    : name_(tensor.name), dtype_(dtype), bytes_(bytes_as(tensor, dtype)) {}

double Numbers::at(int64_t index) const {
  return run(index, 1).front();
}

std::vector<double> Numbers::run(int64_t first, int64_t count) const {
  const auto size = static_cast<size_t>(block_bytes(dtype_)), n = static_cast<size_t>(count);
  const Bytes bytes = Bytes(bytes_).subspan(static_cast<size_t>(first) * size, n * size);
  std::vector<double> values(n);
  if (dtype_ == DType::f64) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
  } else {
    std::vector<float> narrow(n);
    decode_f32(dtype_, bytes, narrow);
    std::ranges::copy(narrow, values.begin());
  }
  return values;
}

void Numbers::set(int64_t index, double value) {
  set_run(index, {&value, 1});
}

void Numbers::set_run(int64_t first, std::span<const double> values) {
  const auto size = static_cast<size_t>(block_bytes(dtype_));
  const std::span bytes = std::span(bytes_).subspan(static_cast<size_t>(first) * size, values.size() * size);
  if (dtype_ == DType::f64) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return;
  }
  const std::vector<float> rounded(values.begin(), values.end());
  encode_f32(rounded, dtype_, bytes);
  std::vector<float> there(values.size());
  decode_f32(dtype_, bytes, there);
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i]) && !std::isfinite(there[i]))
      fail("{}: {} is too large for {}; write the model as float32 first", name_, values[i],
           dtype_name(dtype_));
  }
}

void Numbers::put(Stored& tensor) && {
  tensor.dtype = dtype_;
  own(tensor, std::move(bytes_));
}

}  // namespace lamina
