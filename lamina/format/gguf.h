// GGUF v2 and v3, little endian: read with every length checked against the bytes that remain, and written.
// Rules: header at most 128 MiB, unique keys and tensor names, at most 4 axes, alignment a power of two up to
// 2^20, tensors aligned, inside the file and not overlapping; gaps, any order and bytes after the last tensor
// are allowed. A model in several files says so in "split.count" (see `integer_or`); each file is read by
// itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lamina/format/dtype.h"

namespace lamina::gguf {

enum class Type : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct Value;
struct Array {
  Type element = Type::u8;  // never `array`: nested arrays are refused
  // One of these, by element type: integers and bools as int64, floats as double, strings.
  std::variant<std::vector<int64_t>, std::vector<double>, std::vector<std::string>> items;
  size_t size() const;
};
struct Value {
  Type type = Type::u8;
  std::variant<int64_t, double, bool, std::string, Array> data;  // u64 above 2^63-1 is refused
};

struct TensorInfo {
  std::string name;
  DType dtype;
  Shape shape;          // outermost first, as torch counts; the file stores it reversed
  uint64_t offset = 0;  // bytes from the start of the data section
  uint64_t bytes = 0;
};

struct File {
  uint32_t version = 3;
  std::vector<std::pair<std::string, Value>> metadata;  // in file order
  std::vector<TensorInfo> tensors;                      // in file order
  uint64_t alignment = 32;
  uint64_t data_start = 0;

  const Value* find(std::string_view key) const;
  // Throw Error naming `key` when it is missing or of another type. Integer reads accept every integer type.
  int64_t integer(std::string_view key) const;
  int64_t integer_or(std::string_view key, int64_t otherwise) const;
  double number_or(std::string_view key, double otherwise) const;
  std::string string(std::string_view key) const;
  std::string string_or(std::string_view key, std::string_view otherwise) const;
  const std::vector<std::string>& strings(std::string_view key) const;
  const std::vector<int64_t>& integers(std::string_view key) const;
  const std::vector<double>& numbers(std::string_view key) const;
};

// True if the bytes start with the magic "GGUF".
bool has_magic(Bytes file);
// `file` is the whole file (a mapping). Throws Error with `what` (the path) and the reason. O(n) in the
// header.
File parse(Bytes file, std::string_view what);

// The bytes before the data section, padded to the alignment: tensors must have offsets laid out (see
// `lay_out`), and "general.alignment" must agree with `alignment`. Throws Error for a dtype GGUF lacks and
// for more than 4 axes.
std::string write_header(const File& file);
// Sets bytes and offsets in the present order, each aligned: who writes the data pads each tensor with zeros.
void lay_out(File& file);

Value make_u32(uint32_t value);
Value make_u64(uint64_t value);
Value make_f32(float value);
Value make_bool(bool value);
Value make_string(std::string value);
Value make_strings(std::vector<std::string> values);
Value make_i32s(std::vector<int64_t> values);
Value make_u32s(std::vector<int64_t> values);
Value make_f32s(std::vector<double> values);

}  // namespace lamina::gguf
