// A checkpoint as a value: config, named tensors (views of mapped files), sidecar files. It knows no
// architecture and no torch. Editing makes a new value that shares the mapped bytes; nothing is copied until
// it is written. Invariant: names are the family's published ones, whichever kind of file they came from.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lamina/base/file.h"
#include "lamina/base/json.h"
#include "lamina/base/progress.h"
#include "lamina/format/dtype.h"
#include "lamina/format/gguf.h"

namespace lamina {

// A tensor as it stands in its file.
struct Stored {
  std::string name;
  DType dtype = DType::f32;
  Shape shape = {};                                         // in the family's own orientation: [out, in]
  Bytes bytes = {};                                         // of `file` or of `made`; unused when `zero`
  std::shared_ptr<const MappedFile> file = {};              // keeps `bytes` alive
  std::shared_ptr<const std::vector<std::byte>> made = {};  // in place of `file`: numbers that were edited
  // 0: rows stand in the order of the name. h: the rows of each of h heads stand as interleaved rotary pairs
  // (row 2j + s holds row s * D/2 + j), as GGUF stores the q and k of Llama.
  int64_t paired_heads = 0;
  bool zero = false;  // silenced: all zeros, whatever the file holds
  int shard = 0;      // index into `Checkpoint::shards`

  uint64_t elements() const;
  uint64_t stored_bytes() const;
};

// Walks the tensor in pieces of a few megabytes, rows in the order that `paired_heads` asks for (0: the
// family's own), converted to `as`. Pages that were read are given back, so that memory stays flat.
struct StreamOptions {
  DType as;
  int64_t paired_heads = 0;
};
void stream(const Stored& tensor, const StreamOptions& options, const std::function<void(Bytes)>& sink);

struct Sidecar {
  std::string name;                                       // "tokenizer.json"
  std::variant<std::filesystem::path, std::string> body;  // copied byte for byte, or written from memory
};

struct Checkpoint {
  std::filesystem::path path;
  Json config;
  std::string config_text;  // as read, written back untouched while `config` still equals it
  std::vector<Stored> tensors;
  struct Shard {
    std::string name;  // "model-00001-of-00002.safetensors"
    std::vector<std::pair<std::string, std::string>> metadata;
    bool metadata_present = false;
    std::vector<std::string> order = {};  // of the names in the header, where it is not that of the data
  };
  std::vector<Shard> shards;
  Json index;  // model.safetensors.index.json as read; null for a single file
  std::vector<Sidecar> sidecars;
  std::vector<std::shared_ptr<const MappedFile>> files;  // every weight file
  std::shared_ptr<const gguf::File> gguf;                // the header, when it came as GGUF

  std::string what() const { return (path / "config.json").string(); }
  const Stored* find(std::string_view name) const;
  uint64_t file_bytes() const;
  // SHA-256 over the weight files. Reads everything once: about a second a gigabyte.
  std::string hash(const Watch& watch = {}) const;
};

// Opens a Hugging Face folder: model.safetensors, of diffusers' models diffusion_pytorch_model.safetensors,
// or shards with their index.
Checkpoint open_folder(const std::filesystem::path& folder);

struct WriteOptions {
  std::optional<DType> dtype =
      {};  // floating tensors become this; default: each keeps its own, block types become float32
  Watch watch;
};
// Writes config, weights and sidecars into an existing empty folder. Load then write is the identity, to the
// byte.
void write_folder(const Checkpoint& checkpoint, const std::filesystem::path& folder,
                  const WriteOptions& options);

// What a tensor becomes in a safetensors file.
DType written_dtype(const Stored& tensor, const std::optional<DType>& wanted);

// Throws Error unless both hold the same tensors with the same values, bit for bit, after `options` were
// applied to `expected`. The check that a written folder is what was meant.
void check_equal(const Checkpoint& expected, const Checkpoint& written, const WriteOptions& options);

}  // namespace lamina
