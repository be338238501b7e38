#include "lamina/base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "lamina/base/bus_error.h"
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
  if (!S_ISREG(info.st_mode)) fail("{}: is a pipe or a device; save it to a file first", path.string());
  return static_cast<uint64_t>(info.st_size);
}

// Without O_NONBLOCK the mere opening of a pipe that nobody writes would wait for ever.
int open_to_read(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) fail("{}: cannot be opened: {}", path.string(), reason());
  return descriptor;
}

// What is mapped now, for a signal handler: slots that are free or hold a file. A model has fewer shards than
// this; a mapping that finds no slot is only missing from a message.
std::array<std::atomic<const MappedFile*>, 256> g_mapped;

void list(const MappedFile* file) {
  for (auto& slot : g_mapped) {
    const MappedFile* free = nullptr;
    if (slot.compare_exchange_strong(free, file)) return;
  }
}

void unlist(const MappedFile* file) {
  for (auto& slot : g_mapped) {
    const MappedFile* held = file;
    if (slot.compare_exchange_strong(held, nullptr)) return;
  }
}

const MappedFile* mapped_at(const void* address) {
  for (const auto& slot : g_mapped) {
    const MappedFile* file = slot.load();
    if (!file) continue;
    const Bytes bytes = file->bytes();
    if (address >= bytes.data() && address < bytes.data() + bytes.size()) return file;
  }
  return nullptr;
}

void say(std::string_view text) {
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

void on_bus_error(int, siginfo_t* info, void*) {
  if (const MappedFile* file = mapped_at(info->si_addr)) {
    say("lamina: ");
    say(file->path().native());
    say(": became shorter while it was being read, or its disk failed; is another program writing it?\n");
    _exit(1);
  }
  std::signal(SIGBUS, SIG_DFL);  // not ours: the faulting instruction runs again and ends the program
}

}  // namespace

void explain_bus_errors() {
  struct sigaction action{};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  const int descriptor = file->descriptor_ = open_to_read(path);
  const uint64_t size = size_of(descriptor, path);
  if (size > 0) {
    void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) fail("{}: cannot be mapped: {}", path.string(), reason());
    file->bytes_ = {static_cast<const std::byte*>(address), size};
    list(file.get());
  }
  return file;
}

MappedFile::~MappedFile() {
  unlist(this);
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

// Read, not mapped: a file that becomes shorter meanwhile is then a short text and no signal.
std::string read_file(const fs::path& path, size_t max_bytes) {
  const int descriptor = open_to_read(path);
  const struct Closing {
    int descriptor;
    ~Closing() { ::close(descriptor); }
  } closing{descriptor};
  const uint64_t size = size_of(descriptor, path);
  if (size > max_bytes) {
    fail("{}: has {} bytes where at most {} make sense", path.string(), size, max_bytes);
  }
  std::string text(size, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = ::read(descriptor, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("{}: cannot be read: {}", path.string(), reason());
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  text.resize(done);
  return text;
}

namespace {

// A link means the file that it leads to; what is no file is left alone.
fs::path file_meant(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) fail("{}: is a folder; name a file for the output", path.string());
  if (fs::exists(status) && !fs::is_regular_file(status))
    fail("{}: is a pipe or a device; name a file for the output", path.string());
  if (!fs::is_symlink(fs::symlink_status(path, error))) return path;
  fs::path there = fs::canonical(path, error);
  if (error) {
    fail("{}: is a link that leads nowhere ({}); remove it or name another file", path.string(),
         error.message());
  }
  return there;
}

bool same_file(int descriptor, const fs::path& path) {
  struct stat held{}, named{};
  return fstat(descriptor, &held) == 0 && stat(path.c_str(), &named) == 0 && held.st_dev == named.st_dev &&
         held.st_ino == named.st_ino;
}

}  // namespace

// The part is locked while it is written, and taken over from a run that was killed. A run that has finished
// has renamed it: then there is a new one to take.
AtomicFile::AtomicFile(fs::path path) : path_(file_meant(path)), partial_(path_) {
  partial_ += ".partial";
  for (;;) {
    descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (descriptor_ < 0) fail("{}: cannot be written: {}", path_.string(), reason());
    const bool is_held = ::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    const bool is_ours = !is_held && same_file(descriptor_, partial_);
    if (is_ours && ::ftruncate(descriptor_, 0) == 0) return;
    const std::string why = is_held ? "another run is writing it" : reason();
    ::close(std::exchange(descriptor_, -1));
    if (is_held || is_ours) fail("{}: cannot be written: {}", path_.string(), why);
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) {
    ::unlink(partial_.c_str());
    ::close(descriptor_);
  }
}

void AtomicFile::write(Bytes bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int why = errno;
      // What is written lies in a mapping whose file became shorter: the kernel says so here, without a
      // signal.
      if (const MappedFile* source = why == EFAULT ? mapped_at(bytes.data()) : nullptr)
        source->check_not_truncated();
      errno = why;
      fail("{}: writing stopped after {} bytes: {}; nothing was replaced", path_.string(), written_,
           reason());
    }
    written_ += static_cast<uint64_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0 || ::rename(partial_.c_str(), path_.c_str()) != 0)
    fail("{}: could not be completed: {}; nothing was replaced", path_.string(), reason());
  ::close(std::exchange(descriptor_, -1));  // after fsync there is nothing left that could fail
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
