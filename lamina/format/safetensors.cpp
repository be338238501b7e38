#include "lamina/format/safetensors.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <numeric>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/format/impl/checks.h"

namespace lamina::safetensors {

namespace {

constexpr uint64_t kLongestHeader = 100'000'000;  // the limit of the reference reader
constexpr size_t kPrefix = 8;                     // the length of the header, little endian
constexpr size_t kHighestRank = 8;
// A tensor's entry has about ten values; 400,000 tensors are far beyond any model and still cost little
// memory.
constexpr size_t kMostValues = size_t{1} << 22;
constexpr std::string_view kMetadata = "__metadata__";

struct Name {
  DType dtype;
  std::string_view name;
};

constexpr std::array kNames = {
    Name{DType::f64, "F64"},      Name{DType::f32, "F32"},         Name{DType::f16, "F16"},
    Name{DType::bf16, "BF16"},    Name{DType::i64, "I64"},         Name{DType::i32, "I32"},
    Name{DType::i16, "I16"},      Name{DType::i8, "I8"},           Name{DType::u64, "U64"},
    Name{DType::u32, "U32"},      Name{DType::u16, "U16"},         Name{DType::u8, "U8"},
    Name{DType::boolean, "BOOL"}, Name{DType::f8_e4m3, "F8_E4M3"}, Name{DType::f8_e5m2, "F8_E5M2"},
};

const Json& member(const Json& object, std::string_view key, std::string_view what) {
  const auto it = object.find(std::string(key));
  if (it == object.end()) fail("{}: \"{}\" is missing", what, key);
  return *it;
}

// Sizes and offsets: integers from 0 to 2^63-1. parse_json has refused anything larger.
int64_t size_in(const Json& value, std::string_view key, std::string_view what) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0) {
    fail("{}: \"{}\" holds {} where a whole number from 0 was expected", what, key,
         in_quotes(value.dump(), 40));
  }
  return value.get<int64_t>();
}

DType dtype_in(const Json& entry, std::string_view what) {
  const Json& value = member(entry, "dtype", what);
  if (!value.is_string())
    fail("{}: \"dtype\" is {} where a text was expected", what, in_quotes(value.dump(), 40));
  const auto& name = value.get_ref<const std::string&>();
  if (const auto dtype = dtype_of(name)) return *dtype;
  if (name.starts_with("F4") || name.starts_with("F6")) {
    fail("{}: the type {} packs elements smaller than a byte, which is not supported", what,
         in_quotes(name, 40));
  }
  fail(
      "{}: the type {} is not known; supported are F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I8 to I64, U8 to "
      "U64 and "
      "BOOL",
      what, in_quotes(name, 40));
}

Shape shape_in(const Json& entry, std::string_view what) {
  const Json& value = member(entry, "shape", what);
  if (!value.is_array())
    fail("{}: \"shape\" is {} where a list was expected", what, in_quotes(value.dump(), 40));
  if (value.size() > kHighestRank) {
    fail("{}: the shape has {} axes where at most {} are supported", what, value.size(), kHighestRank);
  }
  Shape shape;
  for (const Json& size : value) shape.push_back(size_in(size, "shape", what));
  return shape;
}

TensorInfo tensor_in(const std::string& name, const Json& entry, std::string_view file) {
  check_name(name, file);
  const std::string what = fmt::format("{}: tensor {}", file, in_quotes(name));
  if (!entry.is_object()) fail("{}: is {} where an object was expected", what, in_quotes(entry.dump(), 40));
  if (entry.size() > 3) {
    const auto is_known = [](const auto& item) {
      return item.first == "dtype" || item.first == "shape" || item.first == "data_offsets";
    };
    const auto& items = entry.get_ref<const Json::object_t&>();
    const auto stranger = std::find_if_not(items.begin(), items.end(), is_known);
    fail("{}: the format has no key {}", what, in_quotes(stranger->first, 40));
  }
  TensorInfo tensor{.name = name, .dtype = dtype_in(entry, what), .shape = shape_in(entry, what)};
  const Json& offsets = member(entry, "data_offsets", what);
  if (!offsets.is_array() || offsets.size() != 2) {
    fail("{}: \"data_offsets\" is {} where two numbers were expected", what, in_quotes(offsets.dump(), 40));
  }
  tensor.begin = static_cast<uint64_t>(size_in(offsets[0], "data_offsets", what));
  tensor.end = static_cast<uint64_t>(size_in(offsets[1], "data_offsets", what));
  if (tensor.begin > tensor.end) {
    fail("{}: the data begins at {} and ends before that, at {}", what, tensor.begin, tensor.end);
  }
  const uint64_t bytes = byte_count(tensor.dtype, tensor.shape, what);
  if (tensor.end - tensor.begin != bytes) {
    fail("{}: the data has {} bytes where type {} and shape [{}] need {}", what, tensor.end - tensor.begin,
         name_of(tensor.dtype), fmt::join(tensor.shape, ", "), bytes);
  }
  return tensor;
}

std::vector<std::pair<std::string, std::string>> metadata_in(const Json& value, std::string_view what) {
  if (!value.is_object()) fail("{}: \"__metadata__\" is not an object of texts", what);
  std::vector<std::pair<std::string, std::string>> metadata;
  for (const auto& [key, text] : value.get_ref<const Json::object_t&>()) {
    if (!text.is_string()) {
      fail("{}: \"__metadata__\" holds {} for {} where a text was expected", what, in_quotes(text.dump(), 40),
           in_quotes(key, 40));
    }
    metadata.emplace_back(key, text.get_ref<const std::string&>());
  }
  return metadata;
}

std::string_view header_text(Bytes file, std::string_view what) {
  if (file.empty()) fail("{}: is empty: download or copy it again", what);
  uint64_t length = 0;
  if (file.size() >= kPrefix) std::memcpy(&length, file.data(), kPrefix);
  if (file.size() < kPrefix || length > kLongestHeader) {
    // Only now: 0x0280 begins a pickle, and is an honest length too.
    if (const auto kind = foreign_kind(file)) fail("{}: is {}", what, *kind);
    if (as_text(file).starts_with("GGUF")) fail("{}: is a GGUF file: give it the ending .gguf", what);
  }
  if (file.size() < kPrefix) {
    fail(
        "{}: has {} bytes where a safetensors file has at least 8: it was cut off, or is another kind of "
        "file",
        what, file.size());
  }
  if (length > kLongestHeader) {
    fail("{}: claims a header of {} bytes where the format allows {}: this is not a safetensors file", what,
         length, kLongestHeader);
  }
  if (length > file.size() - kPrefix) {
    fail("{}: its header has {} bytes but the file ends after {}: it was cut off; download or copy it again",
         what, length, file.size());
  }
  std::string_view text = as_text(file.subspan(kPrefix, static_cast<size_t>(length)));
  if (!text.starts_with('{'))
    fail("{}: the header does not begin with {{: this is not a safetensors file", what);
  while (text.ends_with(' ')) text.remove_suffix(1);
  if (!text.ends_with('}')) fail("{}: the header does not end with }} and spaces", what);
  return text;
}

// Tensors without bytes share their offset with the next one: among equals the order of the JSON stays.
void sort_by_data(std::vector<TensorInfo>& tensors) {
  std::vector<size_t> places(tensors.size());
  std::iota(places.begin(), places.end(), size_t{0});
  std::sort(places.begin(), places.end(), [&](size_t a, size_t b) {
    return std::tuple(tensors[a].begin, tensors[a].end, a) < std::tuple(tensors[b].begin, tensors[b].end, b);
  });
  std::vector<TensorInfo> sorted;
  sorted.reserve(tensors.size());
  for (const size_t place : places) sorted.push_back(std::move(tensors[place]));
  tensors = std::move(sorted);
}

void check_contiguous(const std::vector<TensorInfo>& tensors, uint64_t data_bytes, std::string_view what) {
  uint64_t end = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin != end) {
      fail("{}: tensor {} begins at {} where the one before it ends at {}: {}", what, in_quotes(tensor.name),
           tensor.begin, end, tensor.begin < end ? "they overlap" : "a gap is between them");
    }
    end = tensor.end;
  }
  if (end > data_bytes) {
    fail("{}: has {} bytes of data where its header names {}: it was cut off; download or copy it again",
         what, data_bytes, end);
  }
  if (end < data_bytes) {
    fail("{}: has {} bytes after the last tensor, which the format does not allow", what, data_bytes - end);
  }
}

void check_shard(const std::string& shard, std::string_view what) {
  check_name(shard, fmt::format("{}: the shard of a tensor", what));
  const bool climbs = shard.find('/') != std::string::npos || shard.find('\\') != std::string::npos ||
                      shard.find(':') != std::string::npos || shard == "." || shard == "..";
  if (climbs)
    fail("{}: the shard {} is not a plain file name: shards lie beside the index", what, in_quotes(shard));
  if (!shard.ends_with(".safetensors") || shard.starts_with('.')) {
    fail("{}: the shard {} is not a .safetensors file", what, in_quotes(shard));
  }
}

}  // namespace

Header parse_header(Bytes file, std::string_view what) {
  const std::string_view text = header_text(file, what);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kPrefix);

  // The root, an entry and its shape: nothing in a header is nested deeper.
  const Json root = parse_json(text, what, {.depth = 3, .bytes = kLongestHeader, .values = kMostValues});
  Header header;
  header.data_start = kPrefix + length;
  for (const auto& [name, entry] : root.get_ref<const Json::object_t&>()) {
    if (name == kMetadata) {
      header.metadata = metadata_in(entry, what);
      header.metadata_present = true;
    } else {
      header.tensors.push_back(tensor_in(name, entry, what));
      header.order.push_back(name);
    }
  }
  sort_by_data(header.tensors);
  check_contiguous(header.tensors, file.size() - header.data_start, what);
  return header;
}

std::string write_header(const Header& header) {
  const auto quoted = [](const std::string& text) { return Json(text).dump(); };
  std::unordered_map<std::string_view, const TensorInfo*> by_name;
  for (const TensorInfo& tensor : header.tensors) {
    const bool is_new = by_name.emplace(tensor.name, &tensor).second;
    assert(is_new && tensor.name != kMetadata);
    (void)is_new;
  }

  std::string json = "{";
  const auto separate = [&] {
    if (json.back() != '{') json += ',';
  };
  if (header.metadata_present || !header.metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, text] : header.metadata) {
      separate();
      json += quoted(key) + ':' + quoted(text);
    }
    json += '}';
  }
  const auto put = [&](const TensorInfo& tensor) {
    separate();
    json += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", quoted(tensor.name),
                        name_of(tensor.dtype), fmt::join(tensor.shape, ","), tensor.begin, tensor.end);
  };
  for (const std::string& name : header.order) {
    const auto it = by_name.find(name);
    if (it == by_name.end()) continue;
    put(*it->second);
    by_name.erase(it);
  }
  for (const TensorInfo& tensor : header.tensors) {
    if (by_name.contains(tensor.name)) put(tensor);
  }
  json += '}';
  json.append((8 - json.size() % 8) % 8, ' ');

  if (json.size() > kLongestHeader) {
    fail("the header of {} tensors has {} where safetensors allows {}: write more shards",
         header.tensors.size(), human_bytes(json.size()), human_bytes(kLongestHeader));
  }
  const uint64_t length = json.size();
  std::string bytes(kPrefix, '\0');
  std::memcpy(bytes.data(), &length, kPrefix);
  return bytes + json;
}

void lay_out(std::vector<TensorInfo>& tensors) {
  uint64_t end = 0;
  for (TensorInfo& tensor : tensors) {
    tensor.begin = end;
    // Both terms stay below 2^63, so their sum cannot wrap.
    end += byte_count(tensor.dtype, tensor.shape, tensor.name);
    if (!std::in_range<int64_t>(end)) fail("tensor {} ends past 2^63 bytes", in_quotes(tensor.name));
    tensor.end = end;
  }
}

Index parse_index(std::string_view text, std::string_view what) {
  if (const auto kind = foreign_kind(as_bytes(text))) fail("{}: is {}", what, *kind);
  Index index;
  index.document = parse_json(text, what, {.depth = 8, .values = kMostValues});
  if (!index.document.is_object()) fail("{}: is not a JSON object", what);
  const Json& weights = member(index.document, "weight_map", what);
  if (!weights.is_object() || weights.empty())
    fail("{}: \"weight_map\" is not an object of file names", what);
  std::unordered_set<std::string_view> checked;  // few shards, many tensors
  for (const auto& [name, shard] : weights.get_ref<const Json::object_t&>()) {
    check_name(name, what);
    if (!shard.is_string()) fail("{}: the shard of {} is not a file name", what, in_quotes(name));
    const auto& file = shard.get_ref<const std::string&>();
    if (!checked.contains(file)) {
      check_shard(file, what);
      checked.insert(file);
    }
    index.weights.emplace_back(name, file);
  }
  return index;
}

std::optional<DType> dtype_of(std::string_view safetensors_name) {
  for (const Name& entry : kNames) {
    if (entry.name == safetensors_name) return entry.dtype;
  }
  return std::nullopt;
}

std::string_view name_of(DType dtype) {
  for (const Name& entry : kNames) {
    if (entry.dtype == dtype) return entry.name;
  }
  fail("safetensors has no type for {}: choose float32, float16 or bfloat16", dtype_name(dtype));
}

}  // namespace lamina::safetensors
