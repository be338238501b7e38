#include "lamina/tensor/tensor.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <cstring>

#include "lamina/base/error.h"

namespace lamina {

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return at::kDouble;
    case DType::f32:
      return at::kFloat;
    case DType::f16:
      return at::kHalf;
    case DType::bf16:
      return at::kBFloat16;
    case DType::i64:
      return at::kLong;
    case DType::i32:
      return at::kInt;
    case DType::i16:
      return at::kShort;
    case DType::i8:
      return at::kChar;
    case DType::u8:
      return at::kByte;
    case DType::boolean:
      return at::kBool;
    default:
      fail("{} has no counterpart among torch's types", dtype_name(dtype));
  }
}

DType dtype_of(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return DType::f64;
    case at::kFloat:
      return DType::f32;
    case at::kHalf:
      return DType::f16;
    case at::kBFloat16:
      return DType::bf16;
    case at::kLong:
      return DType::i64;
    case at::kInt:
      return DType::i32;
    case at::kShort:
      return DType::i16;
    case at::kChar:
      return DType::i8;
    case at::kByte:
      return DType::u8;
    case at::kBool:
      return DType::boolean;
    default:
      fail("a tensor of type {} cannot be stored", at::toString(type));
  }
}

Tensor load(const Stored& stored, at::ScalarType as) {
  if (stored.zero) return at::zeros(stored.shape, as);
  const bool view = stored.paired_heads == 0 && !is_quantized(stored.dtype);
  if (view) {
    const auto address = reinterpret_cast<uintptr_t>(stored.bytes.data());
    const at::ScalarType type = scalar_type(stored.dtype);
    const bool kept = stored.file || stored.made;
    if (kept && type == as && address % c10::elementSize(type) == 0) {
      if (stored.file) stored.file->check_not_truncated();
      return at::from_blob(
          const_cast<std::byte*>(stored.bytes.data()), stored.shape,
          [file = stored.file, made = stored.made](void*) {}, at::TensorOptions(type));
    }
  }
  // Through the same stream that writes files: one decoder, one row order. float64 is read as it is.
  const DType through = stored.dtype == DType::f64 || !is_floating(stored.dtype) ? stored.dtype : DType::f32;
  Tensor tensor = at::empty(stored.shape, at::TensorOptions(scalar_type(through)));
  auto* to = static_cast<std::byte*>(tensor.mutable_data_ptr());
  stream(stored, {.as = through}, [&](Bytes piece) {
    std::memcpy(to, piece.data(), piece.size());
    to += piece.size();
  });
  return tensor.to(as);
}

Tensor random_normal(at::IntArrayRef sizes, uint64_t seed) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kFloat));
}

void use_threads(int count) {
  at::set_num_threads(count);
}

std::string message_of(const std::exception& error) {
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  if (!torch) return error.what();
  const std::string_view text = torch->what_without_backtrace();
  if (text.find("can't allocate memory") != std::string_view::npos)
    return "out of memory; try fewer or shorter samples, or a machine with more";
  if (text.find("index out of range in self") != std::string_view::npos)
    return "a token lies outside the model's vocabulary; is this the tokenizer of another model?";
  return std::string(text);
}

}  // namespace lamina
