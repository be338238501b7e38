#include "lamina/plan/undo.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/format/safetensors.h"
#include "lamina/plan/impl/clamp_list.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

// A tensor as runs of bytes: [rows, columns] elements of `size` bytes; vectors are one column.
struct Grid {
  uint64_t rows = 1, columns = 1, size = 1;
  Grid(DType dtype, const Shape& shape, std::string_view name)
      : size(static_cast<uint64_t>(block_bytes(dtype))) {
    const uint64_t elements = element_count(shape, name);
    rows = shape.empty() ? 1 : static_cast<uint64_t>(shape[0]);
    columns = rows == 0 ? 0 : elements / rows;
  }
  size_t at(uint64_t row, uint64_t column) const { return (row * columns + column) * size; }
};

struct Change {
  std::string tensor;
  std::optional<int> axis;        // 0: rows, 1: columns; none: all of it
  std::vector<uint64_t> indices;  // along the axis
  DType dtype = DType::f32;
  Shape shape;  // of `bytes`
  std::vector<std::byte> bytes;
};

bool same_bytes(const Stored& a, const Stored& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.zero == b.zero && a.paired_heads == b.paired_heads &&
         (a.zero || (a.bytes.data() == b.bytes.data() && a.bytes.size() == b.bytes.size()));
}

// The lines along `axis` in which two tensors differ.
std::vector<uint64_t> lines_that_differ(const Grid& grid, Bytes was, Bytes now, int axis) {
  std::vector<bool> differs(axis == 0 ? grid.rows : grid.columns);
  for (uint64_t r = 0; r < grid.rows; ++r) {
    const size_t length = grid.columns * grid.size;
    if (length == 0 || std::memcmp(&was[grid.at(r, 0)], &now[grid.at(r, 0)], length) == 0) continue;
    if (axis == 0) {
      differs[r] = true;
      continue;
    }
    for (uint64_t c = 0; c < grid.columns; ++c)
      differs[c] = differs[c] || std::memcmp(&was[grid.at(r, c)], &now[grid.at(r, c)], grid.size) != 0;
  }
  std::vector<uint64_t> lines;
  for (uint64_t i = 0; i < differs.size(); ++i) {
    if (differs[i]) lines.push_back(i);
  }
  return lines;
}

// Calls `move(offset in the tensor, offset in the kept bytes, bytes)` for every run that a change holds.
template <class Move>
void for_each_run(const Grid& grid, const Change& change, const Move& move) {
  size_t kept = 0;
  if (change.axis == 0) {
    for (uint64_t row : change.indices) {
      move(grid.at(row, 0), kept, grid.columns * grid.size);
      kept += grid.columns * grid.size;
    }
    return;
  }
  for (uint64_t row = 0; row < grid.rows; ++row) {
    for (uint64_t column : change.indices) {
      move(grid.at(row, column), kept, grid.size);
      kept += grid.size;
    }
  }
}

Change difference(const Stored& was, const Stored& now) {
  Change change{.tensor = was.name,
                .axis = std::nullopt,
                .indices = {},
                .dtype = written_dtype(was, {}),
                .shape = was.shape,
                .bytes = bytes_as(was, written_dtype(was, {}))};
  if (change.dtype != written_dtype(now, {})) return change;  // all of it
  const Grid grid(change.dtype, change.shape, was.name);
  const std::vector<std::byte> bytes = bytes_as(now, change.dtype);
  std::vector<uint64_t> rows = lines_that_differ(grid, change.bytes, bytes, 0);
  std::vector<uint64_t> columns = lines_that_differ(grid, change.bytes, bytes, 1);
  const bool by_row = rows.size() * grid.columns <= columns.size() * grid.rows;
  const auto count = static_cast<int64_t>(by_row ? rows.size() : columns.size());
  change.axis = by_row ? 0 : 1;
  change.indices = by_row ? std::move(rows) : std::move(columns);
  change.shape = by_row ? Shape{count, static_cast<int64_t>(grid.columns)}
                        : Shape{static_cast<int64_t>(grid.rows), count};
  std::vector<std::byte> kept(element_count(change.shape, was.name) * grid.size);
  for_each_run(grid, change, [&](size_t there, size_t here, size_t length) {
    std::memcpy(&kept[here], &change.bytes[there], length);
  });
  change.bytes = std::move(kept);
  return change;
}

void write_changes(const std::vector<Change>& changes, const fs::path& path) {
  safetensors::Header header;
  for (const Change& change : changes)
    header.tensors.push_back({.name = change.tensor, .dtype = change.dtype, .shape = change.shape});
  safetensors::lay_out(header.tensors);
  AtomicFile file(path);
  file.write(safetensors::write_header(header));
  for (const Change& change : changes) file.write(change.bytes);
  file.commit();
}

// What stands in undo.json and undo.safetensors of one tensor, held against the tensor that it is for.
Change read_change(const Json& json, const safetensors::Header& header, Bytes file, const Stored& now,
                   std::string_view what) {
  const auto kept = std::ranges::find(header.tensors, now.name, &safetensors::TensorInfo::name);
  if (kept == header.tensors.end()) fail("{}: {} holds no {}", what, kUndoWeights, now.name);
  const Bytes bytes = file.subspan(header.data_start + kept->begin, kept->end - kept->begin);
  Change change{.tensor = now.name,
                .axis = std::nullopt,
                .indices = {},
                .dtype = kept->dtype,
                .shape = kept->shape,
                .bytes = {bytes.begin(), bytes.end()}};
  Shape expected = now.shape;
  if (json_has(json, "axis")) {
    if (change.dtype != now.dtype)
      fail("{}: {} is {} in {} and {} in the model", what, now.name, dtype_name(change.dtype), kUndoWeights,
           dtype_name(now.dtype));
    change.axis = static_cast<int>(json_integer(json, "axis", what, {0, 1}));
    const Grid grid(now.dtype, now.shape, now.name);
    const auto lines = static_cast<int64_t>(*change.axis == 0 ? grid.rows : grid.columns);
    if (!json_has(json, "indices") || !json.at("indices").is_array())
      fail("{}: {} has no list \"indices\"", what, now.name);
    int64_t last = -1;
    for (const Json& index : json.at("indices")) {
      if (!index.is_number_integer() || index.get<int64_t>() <= last || index.get<int64_t>() >= lines) {
        fail("{}: the indices of {} hold {} where rising numbers below {} were expected", what, now.name,
             in_quotes(index.dump(), 40), lines);
      }
      change.indices.push_back(static_cast<uint64_t>(last = index.get<int64_t>()));
    }
    const auto count = static_cast<int64_t>(change.indices.size());
    expected = *change.axis == 0 ? Shape{count, static_cast<int64_t>(grid.columns)}
                                 : Shape{static_cast<int64_t>(grid.rows), count};
  }
  if (change.shape != expected) fail("{}: {} has another shape than its place", what, now.name);
  return change;
}

void put_back(Change change, Stored& tensor) {
  std::vector<std::byte> bytes;
  if (change.axis) {
    bytes = bytes_as(tensor, tensor.dtype);
    for_each_run(Grid(tensor.dtype, tensor.shape, tensor.name), change,
                 [&](size_t there, size_t here, size_t length) {
                   std::memcpy(&bytes[there], &change.bytes[here], length);
                 });
  } else {
    bytes = std::move(change.bytes);
  }
  tensor.dtype = change.dtype;
  own(tensor, std::move(bytes));
}

}  // namespace

void write_undo(const Checkpoint& original, const Checkpoint& edited, const fs::path& folder,
                const Watch& watch) {
  const Checkpoint written = open_folder(folder);
  std::set<std::string_view> before;
  std::vector<Change> changes;
  Json list = Json::array(), added = Json::array();
  for (const Stored& was : original.tensors) {
    if (watch.stop.stop_requested()) throw Stopped{};
    before.insert(was.name);
    const Stored *now = edited.find(was.name), *there = written.find(was.name);
    if (!now || now->shape != was.shape) {
      fail("{}: {} was cut, which no undo file keeps; keep the model that came in", folder.string(),
           was.name);
    }
    if (!there || there->shape != now->shape || there->dtype != written_dtype(*now, {})) {
      fail("{}: {} was not written as it was meant; an undo needs weights whose types are left as they came",
           folder.string(), was.name);
    }
    if (same_bytes(was, *now)) continue;
    Change change = difference(was, *now);
    if (change.axis && change.indices.empty()) continue;
    Json entry = {{"tensor", was.name}};
    if (change.axis) {
      entry["axis"] = *change.axis;
      entry["indices"] = change.indices;
    }
    list.push_back(std::move(entry));
    changes.push_back(std::move(change));
  }
  for (const Stored& now : edited.tensors) {
    if (!before.contains(now.name)) added.push_back(now.name);
  }
  const Json document = {
      {"lamina_undo", 1},
      {"original",
       {{"weights_sha256", original.hash(watch)},
        {"config", original.config_text.empty() ? original.config.dump(2) + "\n" : original.config_text}}},
      {"edited", {{"weights_sha256", written.hash(watch)}}},
      {"added", added},
      {"changed", list}};
  write_changes(changes, folder / kUndoWeights);
  write_file(folder / kUndoText, document.dump(2) + "\n");
}

Checkpoint undo(const fs::path& folder, const Watch& watch) {
  const std::string what = (folder / kUndoText).string();
  if (!fs::exists(folder / kUndoText) || !fs::exists(folder / kUndoWeights)) {
    fail("{}: holds no {} and {}; only a model whose neurons were edited here can be undone", folder.string(),
         kUndoText, kUndoWeights);
  }
  const Json document = parse_json(read_file(folder / kUndoText), what);
  if (!document.is_object()) fail("{}: is not a JSON object", what);
  if (json_integer(document, "lamina_undo", what) != 1) fail("{}: was written by a newer lamina", what);
  check_keys(document, {"lamina_undo", "original", "edited", "added", "changed"}, what);
  for (const char* key : {"original", "edited", "added", "changed"}) {
    const bool list = key[0] == 'a' || key[0] == 'c';
    if (!json_has(document, key) || (list ? !document.at(key).is_array() : !document.at(key).is_object()))
      fail("{}: \"{}\" is missing or malformed", what, key);
  }
  Checkpoint checkpoint = open_folder(folder);
  if (json_string(document.at("edited"), "weights_sha256", what) != checkpoint.hash(watch))
    fail("{}: the weights beside it are not those that it was written for", what);

  const Json& original = document.at("original");
  checkpoint.config_text = json_string(original, "config", what);
  checkpoint.config = parse_json(checkpoint.config_text, what);
  if (!checkpoint.config.is_object()) fail("{}: the config that it holds is not a JSON object", what);
  for (const Json& name : document.at("added")) {
    if (!name.is_string() || std::erase_if(checkpoint.tensors, [&](const Stored& tensor) {
                               return tensor.name == name.get<std::string>();
                             }) != 1)
      fail("{}: {} is no tensor of the model", what, in_quotes(name.dump()));
  }
  const auto file = MappedFile::open(folder / kUndoWeights);
  const safetensors::Header header =
      safetensors::parse_header(file->bytes(), (folder / kUndoWeights).string());
  for (const Json& json : document.at("changed")) {
    if (!json.is_object()) fail("{}: an entry of \"changed\" is no object", what);
    check_keys(json, {"tensor", "axis", "indices"}, what);
    const std::string name = json_string(json, "tensor", what);
    const auto it = std::ranges::find(checkpoint.tensors, name, &Stored::name);
    if (it == checkpoint.tensors.end()) fail("{}: {} is no tensor of the model", what, in_quotes(name));
    put_back(read_change(json, header, file->bytes(), *it, what), *it);
  }
  return checkpoint;
}

}  // namespace lamina
