// Element types as they stand in files, with the arithmetic to turn one into another, row by row and without
// torch. Block types (q4_1, ...) hold `block` elements in `block_bytes` bytes along the last axis, as ggml
// lays them out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "lamina/base/file.h"

namespace lamina {

// clang-format off
enum class DType : uint8_t {
  f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean,
  f8_e4m3, f8_e5m2,
  q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k,
};
// clang-format on

std::string_view dtype_name(DType dtype);  // "float32", "q4_1": for people and for our flags
std::optional<DType> dtype_from_name(std::string_view name);  // accepts also f32, fp16, bf16, ...
int64_t block_elements(DType dtype);                          // 1 for plain types
int64_t block_bytes(DType dtype);
bool is_quantized(DType dtype);
bool is_floating(DType dtype);  // f64, f32, f16, bf16, f8 and the block types: what decode_f32 takes

using Shape = std::vector<int64_t>;
// Throws Error on overflow or when the last axis does not divide into blocks; `what` names the tensor.
uint64_t element_count(const Shape& shape, std::string_view what);
uint64_t byte_count(DType dtype, const Shape& shape, std::string_view what);

// Decodes any floating type to float32 (exact for f16, bf16; f64 is rounded). Sizes must agree: bytes of
// `from` hold exactly to.size() elements. Throws Error for types it cannot decode.
void decode_f32(DType from, Bytes bytes, std::span<float> to);
// Encodes float32 into f64, f32, f16, bf16 (round to nearest even) or q8_0 (ggml's rounding).
void encode_f32(std::span<const float> from, DType to, std::span<std::byte> bytes);

}  // namespace lamina
