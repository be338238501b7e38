#include "lamina/base/staging.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "lamina/base/error.h"
#include "lamina/base/file.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

constexpr const char* kLock = ".lock";

fs::path with_ending(fs::path path, const char* ending) {
  path += ending;
  return path;
}

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// "out/" means "out", and a link means the folder that it leads to.
fs::path folder_meant(fs::path out) {
  while (out.has_relative_path() && !out.has_filename()) out = out.parent_path();
  if (out.empty() || !out.has_filename() || out.filename() == "." || out.filename() == "..") {
    fail("{}: name a new folder for the output", out.string());
  }
  if (!fs::is_symlink(out)) return out;
  std::error_code error;
  fs::path there = fs::canonical(out, error);
  if (error) {
    fail("{}: is a link that leads nowhere ({}); remove it or name another folder", out.string(),
         error.message());
  }
  return there;
}

bool is_full(const fs::path& folder) {
  return fs::exists(folder) && !fs::is_empty(folder);
}

// What an earlier run left to go on from: a file, or a folder with something in it.
bool is_left(const fs::path& path) {
  return fs::is_regular_file(path) || (fs::is_directory(path) && !fs::is_empty(path));
}

// True if `folder` is `path` or one of the folders above it.
bool holds(const fs::path& folder, const fs::path& path) {
  std::error_code error;
  fs::path at = fs::canonical(path, error);
  for (; !error; at = at.parent_path()) {
    if (fs::equivalent(at, folder, error)) return true;
    if (at == at.parent_path()) return false;
  }
  return false;
}

bool same_file(int descriptor, const fs::path& path) {
  struct stat held{}, named{};
  return fstat(descriptor, &held) == 0 && stat(path.c_str(), &named) == 0 && held.st_dev == named.st_dev &&
         held.st_ino == named.st_ino;
}

// Runs that end at once beside each other take turns, so that none removes what another has just put down.
class Turn {
 public:
  explicit Turn(const fs::path& folder)
      : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (descriptor_ >= 0) flock(descriptor_, LOCK_EX);
  }
  ~Turn() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  int descriptor_;
};

}  // namespace

StagedFolder::StagedFolder(fs::path out, Options options)
    : out_(folder_meant(std::move(out))),
      partial_(with_ending(out_, ".partial")),
      replaced_(with_ending(out_, ".replaced")),
      replace_(options.replace) {
  if (fs::exists(out_) && holds(out_, "."))
    fail("{}: holds the current folder; name another folder for the output", out_.string());
  for (const fs::path& input : options.inputs) {
    if (input.empty() || !fs::exists(out_)) continue;
    if (is_full(out_) && fs::is_directory(input) && !fs::equivalent(out_, input) && holds(input, out_))
      fail("{}: is a part of the input {}; name another folder for the output", out_.string(),
           input.string());
    if (!holds(out_, input)) continue;
    if (fs::equivalent(out_, input))
      fail("{}: is the input; name another folder for the output", out_.string());
    fail("{}: holds the input {}; name another folder for the output", out_.string(), input.string());
  }
  check_target();
  std::error_code error;
  for (fs::path at = parent_of(out_); !fs::exists(at, error) && at != at.parent_path();
       at = at.parent_path()) {
    if (!at.empty()) made_.push_back(at);
    if (!at.has_parent_path()) break;
  }
  take_lock();
  try {
    const Turn turn(parent_of(out_));
    const fs::path kept = partial_ / options.resume;
    keep_ = !options.resume.empty() && is_left(kept);
    // A run that was killed between two renames, where they cannot be one.
    if (replace_ && !fs::exists(out_) && fs::exists(replaced_)) fs::rename(replaced_, out_);
    check_target();  // once more: the run that held the lock may have made it
    for (const auto& entry : fs::directory_iterator(partial_)) {
      const bool stays = entry.path().filename() == kLock || (keep_ && entry.path() == kept);
      if (!stays) fs::remove_all(entry.path());
    }
  } catch (...) {
    if (!keep_) fs::remove_all(partial_, error);
    for (const fs::path& folder : made_) fs::remove(folder, error);
    ::close(lock_);
    throw;
  }
}

void StagedFolder::check_target() const {
  if (fs::exists(out_) && !fs::is_directory(out_))
    fail("{}: is a file; name a folder for the output", out_.string());
  if (is_full(out_) && !replace_) {
    fail("{}: exists already; name another folder, or add --force to replace it", out_.string());
  }
}

// The run that holds the lock renames the folder with the lock in it: then there is a new one to take.
void StagedFolder::take_lock() {
  for (;;) {
    std::error_code error;
    fs::create_directories(partial_, error);
    if (error) {
      const std::string reason = error.message();
      for (const fs::path& folder : made_) fs::remove(folder, error);
      fail("{}: cannot be made: {}", partial_.string(), reason);
    }
    lock_ = ::open((partial_ / kLock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock_ < 0 && errno == ENOENT) continue;
    if (lock_ < 0) {
      const std::string reason = std::strerror(errno);
      fs::remove(partial_, error);
      for (const fs::path& folder : made_) fs::remove(folder, error);
      fail("{}: cannot be written: {}", partial_.string(), reason);
    }
    if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
      const int reason = errno;
      ::close(std::exchange(lock_, -1));
      if (reason == EWOULDBLOCK)
        fail("{}: another run is writing here; wait for it or name another folder", out_.string());
      fail("{}: cannot be locked: {}", partial_.string(), std::strerror(reason));
    }
    if (same_file(lock_, partial_ / kLock)) return;
    ::close(std::exchange(lock_, -1));
  }
}

StagedFolder::~StagedFolder() {
  std::error_code error;
  if (!committed_ && !keep_) {
    fs::remove_all(partial_, error);
    for (const fs::path& folder : made_) fs::remove(folder, error);
  }
  if (lock_ >= 0) ::close(lock_);
}

void StagedFolder::commit() {
  const auto give_up = [&](std::string_view reason) {
    keep_ = true;
    fail("{}: could not be completed: {}; the work is in {}", out_.string(), reason, partial_.string());
  };
  sync_folder(partial_);
  const Turn turn(parent_of(out_));
  std::error_code error;
  if (is_full(out_) && !replace_) give_up("another program has made it meanwhile");
  const bool replaces = is_full(out_);
  if (replaces) {
    // The new folder and the old one change places in one step, so that one of them is always there.
    fs::remove_all(replaced_);
    fs::rename(partial_, replaced_, error);
    if (error) give_up(error.message());
    if (::renameat2(AT_FDCWD, replaced_.c_str(), AT_FDCWD, out_.c_str(), RENAME_EXCHANGE) != 0) {
      // Not every file system can: then in two steps, which a later run puts right if this one dies between.
      fs::rename(replaced_, partial_);
      fs::rename(out_, replaced_, error);
      if (error) give_up(error.message());
      fs::rename(partial_, out_, error);
      if (error) {
        const std::string reason = error.message();
        fs::rename(replaced_, out_, error);
        give_up(reason);
      }
    }
  } else {
    if (fs::is_directory(out_)) fs::remove(out_);
    fs::rename(partial_, out_, error);
    if (error) give_up(error.message());
  }
  committed_ = true;
  fs::remove(out_ / kLock, error);
  sync_folder(parent_of(out_));
  if (replaces) fs::remove_all(replaced_, error);
}

void remove_folder(const fs::path& path) {
  fs::path aside = path;
  aside += ".removed";
  std::error_code error;
  fs::remove_all(aside, error);
  fs::rename(path, aside, error);
  fs::remove_all(aside, error);
}

uint64_t free_bytes(const fs::path& path) {
  fs::path at = fs::absolute(path);
  while (!fs::exists(at) && at.has_parent_path() && at != at.parent_path()) at = at.parent_path();
  std::error_code error;
  const fs::space_info space = fs::space(at, error);
  return error ? UINT64_MAX : space.available;
}

}  // namespace lamina
