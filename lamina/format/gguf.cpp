#include "lamina/format/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/format/impl/checks.h"

namespace lamina::gguf {

namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::string_view kAlignmentKey = "general.alignment";
// Real headers hold a vocabulary and end within some 30 MB. The bound keeps the memory of `parse` bounded
// too.
constexpr size_t kLongestHeader = size_t{128} << 20;
constexpr uint64_t kHighestAlignment = uint64_t{1} << 20;
constexpr uint32_t kHighestRank = 4;
constexpr size_t kSmallestPair = 8 + 4 + 1;        // key length, type, a value of one byte
constexpr size_t kSmallestTensor = 8 + 4 + 4 + 8;  // name length, rank, type, offset

struct TypeTraits {
  Type type;
  std::string_view name;
  size_t bytes;  // the least a value takes in the file
};

constexpr std::array kTypes = {
    TypeTraits{Type::u8, "uint8", 1},      TypeTraits{Type::i8, "int8", 1},
    TypeTraits{Type::u16, "uint16", 2},    TypeTraits{Type::i16, "int16", 2},
    TypeTraits{Type::u32, "uint32", 4},    TypeTraits{Type::i32, "int32", 4},
    TypeTraits{Type::f32, "float32", 4},   TypeTraits{Type::boolean, "bool", 1},
    TypeTraits{Type::string, "string", 8}, TypeTraits{Type::array, "array", 12},
    TypeTraits{Type::u64, "uint64", 8},    TypeTraits{Type::i64, "int64", 8},
    TypeTraits{Type::f64, "float64", 8},
};

const TypeTraits& traits_of(Type type) {
  return kTypes[static_cast<size_t>(type)];
}
std::string_view name_of(Type type) {
  return traits_of(type).name;
}

// ggml's number of every element type we read, and the names of the others for the message.
struct TensorType {
  uint32_t number;
  std::string_view name;
  std::optional<DType> dtype;
};

constexpr std::array kTensorTypes = {
    TensorType{0, "F32", DType::f32},        TensorType{1, "F16", DType::f16},
    TensorType{2, "Q4_0", DType::q4_0},      TensorType{3, "Q4_1", DType::q4_1},
    TensorType{6, "Q5_0", DType::q5_0},      TensorType{7, "Q5_1", DType::q5_1},
    TensorType{8, "Q8_0", DType::q8_0},      TensorType{9, "Q8_1", std::nullopt},
    TensorType{10, "Q2_K", DType::q2_k},     TensorType{11, "Q3_K", DType::q3_k},
    TensorType{12, "Q4_K", DType::q4_k},     TensorType{13, "Q5_K", DType::q5_k},
    TensorType{14, "Q6_K", DType::q6_k},     TensorType{15, "Q8_K", std::nullopt},
    TensorType{16, "IQ2_XXS", std::nullopt}, TensorType{17, "IQ2_XS", std::nullopt},
    TensorType{18, "IQ3_XXS", std::nullopt}, TensorType{19, "IQ1_S", std::nullopt},
    TensorType{20, "IQ4_NL", std::nullopt},  TensorType{21, "IQ3_S", std::nullopt},
    TensorType{22, "IQ2_S", std::nullopt},   TensorType{23, "IQ4_XS", std::nullopt},
    TensorType{24, "I8", DType::i8},         TensorType{25, "I16", DType::i16},
    TensorType{26, "I32", DType::i32},       TensorType{27, "I64", DType::i64},
    TensorType{28, "F64", DType::f64},       TensorType{29, "IQ1_M", std::nullopt},
    TensorType{30, "BF16", DType::bf16},     TensorType{34, "TQ1_0", std::nullopt},
    TensorType{35, "TQ2_0", std::nullopt},   TensorType{39, "MXFP4", std::nullopt},
};

DType dtype_of(uint32_t number, std::string_view what) {
  for (const TensorType& entry : kTensorTypes) {
    if (entry.number != number) continue;
    if (entry.dtype) return *entry.dtype;
    fail("{}: its type {} is not supported: requantize the model to Q8_0, a Q4 to Q6 type or F16", what,
         entry.name);
  }
  fail("{}: its type number {} is not known: the file is damaged, or newer than this program", what, number);
}

uint32_t number_of(DType dtype) {
  for (const TensorType& entry : kTensorTypes) {
    if (entry.dtype == dtype) return entry.number;
  }
  fail("GGUF has no type for {}: choose float32, float16, bfloat16 or q8_0", dtype_name(dtype));
}

uint64_t round_up(uint64_t offset, uint64_t alignment) {
  return (offset + alignment - 1) & ~(alignment - 1);
}

bool is_alignment(uint64_t value) {
  return std::has_single_bit(value) && value <= kHighestAlignment;
}

// Reads forward; every length is checked against the bytes that remain before anything is read or allocated.
class Reader {
 public:
  Reader(Bytes bytes, std::string_view what) : bytes_(bytes), what_(what) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }

  Bytes take(uint64_t count) {
    if (count > remaining()) too_short();
    const Bytes taken = bytes_.subspan(position_, static_cast<size_t>(count));
    position_ += taken.size();
    return taken;
  }

  template <class Number>
  Number number() {
    Number value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

  // How many things follow, of which each takes `least` bytes or more.
  size_t count(std::string_view of, size_t least) {
    const auto value = number<uint64_t>();
    if (value > remaining() / least) {
      fail("{}: claims {} {} where {} bytes remain: it was cut off or is damaged; download or copy it again",
           what_, value, of, remaining());
    }
    return static_cast<size_t>(value);
  }

  std::string string() { return std::string(as_text(take(count("bytes of text", 1)))); }

 private:
  [[noreturn]] void too_short() const {
    if (bytes_.size() == kLongestHeader)
      fail("{}: its header is longer than {}", what_, human_bytes(kLongestHeader));
    fail("{}: ends in the middle of its header: it was cut off; download or copy it again", what_);
  }

  Bytes bytes_;
  size_t position_ = 0;
  std::string_view what_;
};

Type type_in(Reader& reader, std::string_view what) {
  const auto number = reader.number<uint32_t>();
  if (number >= kTypes.size()) fail("{}: its type number {} is not known: the file is damaged", what, number);
  return static_cast<Type>(number);
}

int64_t integer_in(Reader& reader, Type type, std::string_view what) {
  switch (type) {
    case Type::u8:
      return reader.number<uint8_t>();
    case Type::i8:
      return reader.number<int8_t>();
    case Type::u16:
      return reader.number<uint16_t>();
    case Type::i16:
      return reader.number<int16_t>();
    case Type::u32:
      return reader.number<uint32_t>();
    case Type::i32:
      return reader.number<int32_t>();
    case Type::i64:
      return reader.number<int64_t>();
    case Type::u64: {
      const auto value = reader.number<uint64_t>();
      if (!std::in_range<int64_t>(value)) fail("{}: the number {} is above 2^63-1", what, value);
      return static_cast<int64_t>(value);
    }
    default: {
      const auto value = reader.number<uint8_t>();
      if (value > 1) fail("{}: a bool is {} where 0 or 1 was expected", what, value);
      return value;
    }
  }
}

Array array_in(Reader& reader, std::string_view what) {
  Array array{.element = type_in(reader, what), .items = {}};
  if (array.element == Type::array) fail("{}: is an array of arrays, which is not supported", what);
  const size_t size = reader.count("elements of an array", traits_of(array.element).bytes);
  const auto fill = [&](auto items, auto read) {
    items.reserve(size);
    for (size_t i = 0; i < size; ++i) items.push_back(read());
    array.items = std::move(items);
  };
  switch (array.element) {
    case Type::string:
      fill(std::vector<std::string>(), [&] { return reader.string(); });
      break;
    case Type::f32:
      fill(std::vector<double>(), [&] { return double{reader.number<float>()}; });
      break;
    case Type::f64:
      fill(std::vector<double>(), [&] { return reader.number<double>(); });
      break;
    default:
      fill(std::vector<int64_t>(), [&] { return integer_in(reader, array.element, what); });
  }
  return array;
}

Value value_in(Reader& reader, std::string_view what) {
  const Type type = type_in(reader, what);
  switch (type) {
    case Type::string:
      return {type, reader.string()};
    case Type::array:
      return {type, array_in(reader, what)};
    case Type::f32:
      return {type, double{reader.number<float>()}};
    case Type::f64:
      return {type, reader.number<double>()};
    case Type::boolean:
      return {type, integer_in(reader, type, what) == 1};
    default:
      return {type, integer_in(reader, type, what)};
  }
}

TensorInfo tensor_in(Reader& reader, std::string_view file) {
  TensorInfo tensor{.name = reader.string(), .dtype = DType::f32, .shape = {}};
  check_name(tensor.name, file);
  const std::string what = fmt::format("{}: tensor {}", file, in_quotes(tensor.name));
  const auto rank = reader.number<uint32_t>();
  if (rank > kHighestRank) fail("{}: has {} axes where GGUF allows at most {}", what, rank, kHighestRank);
  for (uint32_t i = 0; i < rank; ++i) tensor.shape.push_back(integer_in(reader, Type::u64, what));
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  tensor.dtype = dtype_of(reader.number<uint32_t>(), what);
  tensor.bytes = byte_count(tensor.dtype, tensor.shape, what);
  tensor.offset = reader.number<uint64_t>();
  return tensor;
}

void check_version(uint32_t version, std::string_view what) {
  if (version == 2 || version == 3) return;
  if (version != 0 && (version & 0xFFFFU) == 0)
    fail("{}: is a big-endian GGUF file: convert it to little endian", what);
  if (version == 1) fail("{}: is GGUF version 1, which is no longer used: convert the model again", what);
  fail("{}: is GGUF version {} where 2 and 3 are supported", what, version);
}

uint64_t alignment_in(const File& file, std::string_view what) {
  const Value* value = file.find(kAlignmentKey);
  if (!value) return 32;
  if (value->type != Type::u32)
    fail("{}: \"{}\" is {} where uint32 was expected", what, kAlignmentKey, name_of(value->type));
  const auto alignment = static_cast<uint64_t>(std::get<int64_t>(value->data));
  if (!is_alignment(alignment)) {
    fail("{}: \"{}\" is {} where a power of two up to {} was expected", what, kAlignmentKey, alignment,
         kHighestAlignment);
  }
  return alignment;
}

void check_placement(const File& file, uint64_t file_bytes, std::string_view what) {
  const uint64_t data_bytes = file_bytes > file.data_start ? file_bytes - file.data_start : 0;
  std::vector<const TensorInfo*> placed;
  for (const TensorInfo& tensor : file.tensors) {
    if (tensor.offset % file.alignment != 0) {
      fail("{}: tensor {} begins at {}, which is not a multiple of the alignment {}", what,
           in_quotes(tensor.name), tensor.offset, file.alignment);
    }
    if (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset) {
      fail(
          "{}: tensor {} needs {} bytes from {} where the file has {} bytes of data: it was cut off or is "
          "damaged; "
          "download or copy it again",
          what, in_quotes(tensor.name), tensor.bytes, tensor.offset, data_bytes);
    }
    if (tensor.bytes > 0) placed.push_back(&tensor);
  }
  std::sort(placed.begin(), placed.end(),
            [](const TensorInfo* a, const TensorInfo* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < placed.size(); ++i) {
    if (placed[i - 1]->offset + placed[i - 1]->bytes > placed[i]->offset) {
      fail("{}: the tensors {} and {} overlap", what, in_quotes(placed[i - 1]->name),
           in_quotes(placed[i]->name));
    }
  }
}

class Writer {
 public:
  std::string take() { return std::move(bytes_); }
  size_t size() const { return bytes_.size(); }

  template <class Number>
  void number(Number value) {
    std::array<char, sizeof value> raw;
    std::memcpy(raw.data(), &value, sizeof value);
    bytes_.append(raw.data(), raw.size());
  }
  void string(std::string_view text) {
    number<uint64_t>(text.size());
    bytes_ += text;
  }
  void pad(uint64_t alignment) { bytes_.resize(round_up(bytes_.size(), alignment), '\0'); }

 private:
  std::string bytes_;
};

template <class Number>
void put_integer(Writer& writer, int64_t value) {
  assert(std::in_range<Number>(value));
  writer.number(static_cast<Number>(value));
}

void put_integer(Writer& writer, Type type, int64_t value) {
  switch (type) {
    case Type::u8:
    case Type::boolean:
      return put_integer<uint8_t>(writer, value);
    case Type::i8:
      return put_integer<int8_t>(writer, value);
    case Type::u16:
      return put_integer<uint16_t>(writer, value);
    case Type::i16:
      return put_integer<int16_t>(writer, value);
    case Type::u32:
      return put_integer<uint32_t>(writer, value);
    case Type::i32:
      return put_integer<int32_t>(writer, value);
    case Type::u64:
      return put_integer<uint64_t>(writer, value);
    default:
      return put_integer<int64_t>(writer, value);
  }
}

void put_float(Writer& writer, Type type, double value) {
  if (type == Type::f32)
    writer.number(static_cast<float>(value));
  else
    writer.number(value);
}

void put(Writer& writer, const Array& array) {
  writer.number(static_cast<uint32_t>(array.element));
  writer.number<uint64_t>(array.size());
  if (const auto* integers = std::get_if<std::vector<int64_t>>(&array.items)) {
    for (const int64_t value : *integers) put_integer(writer, array.element, value);
  } else if (const auto* floats = std::get_if<std::vector<double>>(&array.items)) {
    for (const double value : *floats) put_float(writer, array.element, value);
  } else {
    for (const std::string& text : std::get<std::vector<std::string>>(array.items)) writer.string(text);
  }
}

void put(Writer& writer, const Value& value) {
  writer.number(static_cast<uint32_t>(value.type));
  switch (value.type) {
    case Type::string:
      return writer.string(std::get<std::string>(value.data));
    case Type::array:
      return put(writer, std::get<Array>(value.data));
    case Type::f32:
    case Type::f64:
      return put_float(writer, value.type, std::get<double>(value.data));
    case Type::boolean:
      return writer.number<uint8_t>(std::get<bool>(value.data) ? 1 : 0);
    default:
      return put_integer(writer, value.type, std::get<int64_t>(value.data));
  }
}

std::string_view type_name(const Value& value) {
  return name_of(value.type);
}

const Value& needed(const File& file, std::string_view key) {
  const Value* value = file.find(key);
  if (!value) fail("the GGUF metadata has no {}", in_quotes(key));
  return *value;
}

[[noreturn]] void wrong_type(std::string_view key, const Value& value, std::string_view expected) {
  fail("the GGUF metadata has {} of type {} where {} was expected", in_quotes(key), type_name(value),
       expected);
}

int64_t integer_of(const Value& value, std::string_view key) {
  const auto* integer = std::get_if<int64_t>(&value.data);
  if (!integer) wrong_type(key, value, "an integer");
  return *integer;
}

template <class Item>
const std::vector<Item>& items_of(const Value& value, std::string_view key, std::string_view expected) {
  const auto* array = std::get_if<Array>(&value.data);
  if (!array) wrong_type(key, value, expected);
  const auto* items = std::get_if<std::vector<Item>>(&array->items);
  if (!items) {
    fail("the GGUF metadata has {} as an array of {} where {} was expected", in_quotes(key),
         name_of(array->element), expected);
  }
  return *items;
}

}  // namespace

size_t Array::size() const {
  return std::visit([](const auto& list) { return list.size(); }, items);
}

const Value* File::find(std::string_view key) const {
  const auto it =
      std::find_if(metadata.begin(), metadata.end(), [&](const auto& pair) { return pair.first == key; });
  return it == metadata.end() ? nullptr : &it->second;
}

int64_t File::integer(std::string_view key) const {
  return integer_of(needed(*this, key), key);
}

int64_t File::integer_or(std::string_view key, int64_t otherwise) const {
  const Value* value = find(key);
  return value ? integer_of(*value, key) : otherwise;
}

double File::number_or(std::string_view key, double otherwise) const {
  const Value* value = find(key);
  if (!value) return otherwise;
  if (const auto* number = std::get_if<double>(&value->data)) return *number;
  if (const auto* integer = std::get_if<int64_t>(&value->data)) return static_cast<double>(*integer);
  wrong_type(key, *value, "a number");
}

std::string File::string(std::string_view key) const {
  const Value& value = needed(*this, key);
  const auto* text = std::get_if<std::string>(&value.data);
  if (!text) wrong_type(key, value, "a text");
  return *text;
}

std::string File::string_or(std::string_view key, std::string_view otherwise) const {
  return find(key) ? string(key) : std::string(otherwise);
}

const std::vector<std::string>& File::strings(std::string_view key) const {
  return items_of<std::string>(needed(*this, key), key, "an array of texts");
}

const std::vector<int64_t>& File::integers(std::string_view key) const {
  return items_of<int64_t>(needed(*this, key), key, "an array of integers");
}

const std::vector<double>& File::numbers(std::string_view key) const {
  return items_of<double>(needed(*this, key), key, "an array of floats");
}

bool has_magic(Bytes file) {
  return as_text(file).starts_with(kMagic);
}

File parse(Bytes file, std::string_view what) {
  if (file.empty()) fail("{}: is empty: download or copy it again", what);
  if (!has_magic(file)) {
    if (const auto kind = foreign_kind(file)) fail("{}: is {}", what, *kind);
    fail("{}: does not begin with \"GGUF\": this is not a GGUF file", what);
  }
  Reader reader(file.first(std::min(file.size(), kLongestHeader)), what);
  reader.take(kMagic.size());
  File parsed;
  parsed.version = reader.number<uint32_t>();
  check_version(parsed.version, what);
  const size_t tensors = reader.count("tensors", kSmallestTensor);
  const size_t pairs = reader.count("metadata pairs", kSmallestPair);

  std::unordered_set<std::string> seen;
  for (size_t i = 0; i < pairs; ++i) {
    std::string key = reader.string();
    check_name(key, what);
    if (!seen.insert(key).second) fail("{}: the metadata key {} stands twice", what, in_quotes(key));
    Value value = value_in(reader, fmt::format("{}: metadata {}", what, in_quotes(key)));
    parsed.metadata.emplace_back(std::move(key), std::move(value));
  }
  parsed.alignment = alignment_in(parsed, what);

  seen.clear();
  for (size_t i = 0; i < tensors; ++i) {
    parsed.tensors.push_back(tensor_in(reader, what));
    const std::string& name = parsed.tensors.back().name;
    if (!seen.insert(name).second) fail("{}: the tensor {} stands twice", what, in_quotes(name));
  }
  parsed.data_start = round_up(reader.position(), parsed.alignment);
  check_placement(parsed, file.size(), what);
  return parsed;
}

std::string write_header(const File& file) {
  assert(is_alignment(file.alignment));
  assert(static_cast<uint64_t>(file.integer_or(kAlignmentKey, 32)) == file.alignment);
  Writer writer;
  for (const char c : kMagic) writer.number(c);
  writer.number(file.version);
  writer.number<uint64_t>(file.tensors.size());
  writer.number<uint64_t>(file.metadata.size());
  for (const auto& [key, value] : file.metadata) {
    writer.string(key);
    put(writer, value);
  }
  for (const TensorInfo& tensor : file.tensors) {
    if (tensor.shape.size() > kHighestRank) {
      fail("tensor {} has {} axes where GGUF allows at most {}", in_quotes(tensor.name), tensor.shape.size(),
           kHighestRank);
    }
    writer.string(tensor.name);
    writer.number(static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size)
      put_integer<uint64_t>(writer, *size);
    writer.number(number_of(tensor.dtype));
    writer.number(tensor.offset);
  }
  writer.pad(file.alignment);
  return writer.take();
}

void lay_out(File& file) {
  uint64_t end = 0;
  for (TensorInfo& tensor : file.tensors) {
    tensor.offset = round_up(end, file.alignment);
    tensor.bytes = byte_count(tensor.dtype, tensor.shape, tensor.name);
    end = tensor.offset + tensor.bytes;
  }
}

Value make_u32(uint32_t value) {
  return {Type::u32, int64_t{value}};
}

Value make_u64(uint64_t value) {
  assert(std::in_range<int64_t>(value));
  return {Type::u64, static_cast<int64_t>(value)};
}

Value make_f32(float value) {
  return {Type::f32, double{value}};
}
Value make_bool(bool value) {
  return {Type::boolean, value};
}
Value make_string(std::string value) {
  return {Type::string, std::move(value)};
}
Value make_strings(std::vector<std::string> values) {
  return {Type::array, Array{Type::string, std::move(values)}};
}
Value make_i32s(std::vector<int64_t> values) {
  return {Type::array, Array{Type::i32, std::move(values)}};
}
Value make_u32s(std::vector<int64_t> values) {
  return {Type::array, Array{Type::u32, std::move(values)}};
}
Value make_f32s(std::vector<double> values) {
  return {Type::array, Array{Type::f32, std::move(values)}};
}

}  // namespace lamina::gguf
