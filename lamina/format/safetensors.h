// The safetensors header: read with every rule of the format checked, written so that load then save is the
// identity. Rules: header at most 100 MB and inside the file, UTF-8 JSON object, offsets contiguous from 0 to
// the end of the file without holes or overlaps, sizes equal to shape x dtype with checked arithmetic, no
// duplicate names, at most 8 axes, no keys that the format does not know. Data need not be aligned: the
// format does not ask for it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/format/dtype.h"

namespace lamina::safetensors {

struct TensorInfo {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t begin = 0;  // bytes from the start of the data section
  uint64_t end = 0;
};

struct Header {
  std::vector<TensorInfo> tensors;  // in the order of the data
  std::vector<std::string> order;   // names in the order of the JSON (usually the same); may be left empty
  std::vector<std::pair<std::string, std::string>> metadata;
  bool metadata_present = false;
  uint64_t data_start = 0;  // 8 + header length
};

// `file` is the whole file (a mapping). Throws Error with `what` (the path) and the reason; a git-LFS
// pointer, an HTML page, an empty and a cut-off file are each named as such.
Header parse_header(Bytes file, std::string_view what);

// The bytes before the data section: length prefix, compact JSON, spaces to a multiple of 8. `tensors` in
// data order with begin/end already laid out (see `lay_out`). Names in `order` come first, in that order;
// names of tensors that are gone are passed over, and tensors that `order` does not name follow. Throws Error
// for a dtype safetensors lacks.
std::string write_header(const Header& header);
// Sets begin/end contiguously in the present order.
void lay_out(std::vector<TensorInfo>& tensors);

// model.safetensors.index.json: tensor name to shard file name. Names that leave the folder ("/", "..",
// absolute) or have another extension are refused.
struct Index {
  Json document;  // as read, to write back with its own keys and order
  std::vector<std::pair<std::string, std::string>> weights;  // tensor -> shard, in file order
};
Index parse_index(std::string_view text, std::string_view what);

std::optional<DType> dtype_of(std::string_view safetensors_name);  // "F32" -> f32
std::string_view name_of(DType dtype);                             // f32 -> "F32"; throws for block types

}  // namespace lamina::safetensors
