// Files: read-only mappings, and writes that a crash cannot leave half done (write beside, fsync, rename,
// fsync folder).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace lamina {

using Bytes = std::span<const std::byte>;

inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline Bytes as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// A private read-only mapping. Throws Error when the file is missing, a folder, or cannot be read.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  Bytes bytes() const { return bytes_; }
  // Throws Error if the file on disk is now shorter than the mapping: touching the tail would raise SIGBUS.
  void check_not_truncated() const;
  // Gives the pages of a range back to the system, so that a pass over a large file stays small.
  void release(Bytes range) const;

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  int descriptor_ = -1;
  Bytes bytes_;
};

std::string read_file(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 30);

// A file that appears whole at `commit` or not at all; dropped without commit, the part written is removed.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(Bytes bytes);
  void write(std::string_view text) { write(as_bytes(text)); }
  uint64_t written() const { return written_; }
  void commit();

 private:
  std::filesystem::path path_, partial_;
  int descriptor_ = -1;
  uint64_t written_ = 0;
};

void write_file(const std::filesystem::path& path, std::string_view text);

// fsync on a folder, so that a rename inside it survives a power cut.
void sync_folder(const std::filesystem::path& folder);

}  // namespace lamina
