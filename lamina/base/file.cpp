#include "lamina/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "lamina/base/error.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

std::string reason() {
  return std::strerror(errno);
}

uint64_t size_of(int descriptor, const fs::path& path) {
  struct stat info{};
  if (fstat(descriptor, &info) != 0) fail("{}: cannot be read: {}", path.string(), reason());
  if (S_ISDIR(info.st_mode)) fail("{}: is a folder where a file was expected", path.string());
  return static_cast<uint64_t>(info.st_size);
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail("{}: cannot be opened: {}", path.string(), reason());
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  file->descriptor_ = descriptor;
  const uint64_t size = size_of(descriptor, path);
  if (size > 0) {
    void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) fail("{}: cannot be mapped: {}", path.string(), reason());
    file->bytes_ = {static_cast<const std::byte*>(address), size};
  }
  return file;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MappedFile::check_not_truncated() const {
  if (size_of(descriptor_, path_) < bytes_.size()) {
    fail("{}: became shorter while it was being read; is another program writing it?", path_.string());
  }
}

void MappedFile::release(Bytes range) const {
  if (range.empty()) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(range.data()) & ~(page - 1);
  const auto last = reinterpret_cast<uintptr_t>(range.data() + range.size());
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

std::string read_file(const fs::path& path, size_t max_bytes) {
  const auto file = MappedFile::open(path);
  if (file->bytes().size() > max_bytes) {
    fail("{}: has {} bytes where at most {} make sense", path.string(), file->bytes().size(), max_bytes);
  }
  return std::string(as_text(file->bytes()));
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), partial_(path_) {
  partial_ += ".partial";
  descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail("{}: cannot be written: {}", path_.string(), reason());
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    ::unlink(partial_.c_str());
  }
}

void AtomicFile::write(Bytes bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      fail("{}: writing stopped after {} bytes: {}; nothing was replaced", path_.string(), written_,
           reason());
    }
    written_ += static_cast<uint64_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void AtomicFile::commit() {
  const auto give_up = [&] {
    fail("{}: could not be completed: {}; nothing was replaced", path_.string(), reason());
  };
  if (::fsync(descriptor_) != 0) give_up();
  if (::close(std::exchange(descriptor_, -1)) != 0 || ::rename(partial_.c_str(), path_.c_str()) != 0) {
    const int saved = errno;
    ::unlink(partial_.c_str());
    errno = saved;
    give_up();
  }
  sync_folder(path_.has_parent_path() ? path_.parent_path() : ".");
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0)
    return;  // some file systems do not let folders be opened; the rename itself has happened
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace lamina
