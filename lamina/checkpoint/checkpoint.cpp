#include "lamina/checkpoint/checkpoint.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/text.h"
#include "lamina/format/safetensors.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kPiece = 4u << 20;

// The row of the file that holds row `row` of the wanted order.
int64_t source_row(int64_t row, int64_t rows, int64_t stored_heads, int64_t wanted_heads) {
  const auto own_from_paired = [rows](int64_t r,
                                      int64_t heads) {  // position in pairs -> position in the own order
    const int64_t head = rows / heads, j = r % head;
    return r - j + (j % 2) * (head / 2) + j / 2;
  };
  const auto paired_from_own = [rows](int64_t r, int64_t heads) {
    const int64_t head = rows / heads, j = r % head;
    return r - j + (j % (head / 2)) * 2 + j / (head / 2);
  };
  const int64_t own = wanted_heads ? own_from_paired(row, wanted_heads) : row;
  return stored_heads ? paired_from_own(own, stored_heads) : own;
}

void stream_zeros(uint64_t bytes, const std::function<void(Bytes)>& sink) {
  const std::vector<std::byte> piece(std::min(bytes, kPiece));
  while (bytes > 0) {
    const uint64_t count = std::min<uint64_t>(bytes, piece.size());
    sink(Bytes(piece).first(count));
    bytes -= count;
  }
}

}  // namespace

uint64_t Stored::elements() const {
  return element_count(shape, name);
}
uint64_t Stored::stored_bytes() const {
  return byte_count(dtype, shape, name);
}

void stream(const Stored& tensor, const StreamOptions& options, const std::function<void(Bytes)>& sink) {
  const uint64_t total = tensor.elements();
  if (total == 0) return;
  if (tensor.zero) return stream_zeros(byte_count(options.as, tensor.shape, tensor.name), sink);
  if (tensor.file) tensor.file->check_not_truncated();

  const bool reorder = tensor.paired_heads != options.paired_heads;
  const int64_t rows = tensor.shape.size() < 2 && !reorder ? 1 : tensor.shape.front();
  const uint64_t row_elements = total / static_cast<uint64_t>(rows);
  const uint64_t row_bytes = tensor.bytes.size() / static_cast<uint64_t>(rows);
  if (options.as == tensor.dtype && !reorder) {
    for (uint64_t at = 0; at < tensor.bytes.size(); at += kPiece) {
      const Bytes piece = tensor.bytes.subspan(at, std::min<uint64_t>(kPiece, tensor.bytes.size() - at));
      sink(piece);
      if (tensor.file) tensor.file->release(piece);
    }
    return;
  }
  if (options.as != tensor.dtype && (!is_floating(tensor.dtype) || !is_floating(options.as))) {
    fail("{}: {} cannot be written as {}", tensor.name, dtype_name(tensor.dtype), dtype_name(options.as));
  }

  // A piece is a run of rows, or of blocks of one very long row (a vector).
  const auto step_rows =
      rows == 1
          ? 1
          : std::max<int64_t>(1, static_cast<int64_t>(kPiece / std::max<uint64_t>(1, 4 * row_elements)));
  std::vector<std::byte> gathered, encoded;
  std::vector<float> values;
  for (int64_t first = 0; first < rows; first += step_rows) {
    const int64_t count = std::min(step_rows, rows - first);
    Bytes piece = tensor.bytes.subspan(static_cast<uint64_t>(first) * row_bytes,
                                       static_cast<uint64_t>(count) * row_bytes);
    if (reorder) {
      gathered.resize(piece.size());
      for (int64_t r = 0; r < count; ++r) {
        const int64_t from = source_row(first + r, rows, tensor.paired_heads, options.paired_heads);
        std::ranges::copy(tensor.bytes.subspan(static_cast<uint64_t>(from) * row_bytes, row_bytes),
                          gathered.begin() + static_cast<ptrdiff_t>(static_cast<uint64_t>(r) * row_bytes));
      }
      piece = gathered;
    }
    if (options.as == tensor.dtype) {
      sink(piece);
      continue;
    }
    values.resize(static_cast<uint64_t>(count) * row_elements);
    decode_f32(tensor.dtype, piece, values);
    if (options.as == DType::f32) {
      sink(std::as_bytes(std::span(values)));
      continue;
    }
    encoded.resize(values.size() / static_cast<uint64_t>(block_elements(options.as)) *
                   static_cast<uint64_t>(block_bytes(options.as)));
    encode_f32(values, options.as, encoded);
    sink(encoded);
  }
  if (tensor.file) tensor.file->release(tensor.bytes);
}

const Stored* Checkpoint::find(std::string_view name) const {
  const auto it = std::ranges::find(tensors, name, &Stored::name);
  return it == tensors.end() ? nullptr : &*it;
}

uint64_t Checkpoint::file_bytes() const {
  uint64_t bytes = 0;
  for (const auto& file : files) bytes += file->bytes().size();
  return bytes;
}

std::string Checkpoint::hash(const Watch& watch) const {
  Sha256 all;
  double done = 0;
  for (const auto& file : files) {
    Sha256 one;
    for (uint64_t at = 0; at < file->bytes().size(); at += 16 * kPiece) {
      if (watch.stop.stop_requested()) throw Stopped{};
      const Bytes piece =
          file->bytes().subspan(at, std::min<uint64_t>(16 * kPiece, file->bytes().size() - at));
      one.add(piece);
      file->release(piece);
      watch.report(
          {"hash", done += static_cast<double>(piece.size()), static_cast<double>(file_bytes()), ""});
    }
    if (files.size() == 1) return one.hex();
    all.add(one.hex());
  }
  return all.hex();
}

DType written_dtype(const Stored& tensor, const std::optional<DType>& wanted) {
  if (wanted && is_floating(tensor.dtype)) return *wanted;
  return is_quantized(tensor.dtype) ? DType::f32 : tensor.dtype;
}

void check_equal(const Checkpoint& expected, const Checkpoint& written, const WriteOptions& options) {
  std::unordered_map<std::string_view, const Stored*> found;
  for (const Stored& tensor : written.tensors) found.emplace(tensor.name, &tensor);
  if (found.size() != expected.tensors.size()) {
    fail("{}: {} tensors were written where {} were meant", written.path.string(), found.size(),
         expected.tensors.size());
  }
  double done = 0;
  for (const Stored& tensor : expected.tensors) {
    options.watch.report({"check", done += 1, static_cast<double>(expected.tensors.size()), tensor.name});
    if (options.watch.stop.stop_requested()) throw Stopped{};
    const auto it = found.find(tensor.name);
    if (it == found.end()) fail("{}: {} is missing after writing", written.path.string(), tensor.name);
    const DType as = written_dtype(tensor, options.dtype);
    const Stored& other = *it->second;
    if (other.dtype != as || other.shape != tensor.shape)
      fail("{}: {} has another type or shape than meant", written.path.string(), tensor.name);
    uint64_t at = 0;
    stream(tensor, {.as = as}, [&](Bytes piece) {
      const Bytes there = other.bytes.subspan(at, piece.size());
      if (!std::ranges::equal(piece, there))
        fail("{}: {} differs from what was meant", written.path.string(), tensor.name);
      if (other.file) other.file->release(there);
      at += piece.size();
    });
  }
}

}  // namespace lamina
