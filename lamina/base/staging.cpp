#include "lamina/base/staging.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lamina/base/error.h"
#include "lamina/base/file.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

constexpr const char* kLock = ".lock";

}  // namespace

StagedFolder::StagedFolder(fs::path out, Options options) : out_(std::move(out)), replace_(options.replace) {
  while (out_.has_relative_path() && !out_.has_filename()) out_ = out_.parent_path();  // "out/" means "out"
  if (out_.empty() || !out_.has_filename() || out_.filename() == "." || out_.filename() == "..") {
    fail("{}: name a new folder for the output", out_.string());
  }
  if (fs::exists(out_) && !fs::is_directory(out_))
    fail("{}: is a file; name a folder for the output", out_.string());
  if (fs::exists(out_) && !fs::is_empty(out_) && !replace_) {
    fail("{}: exists already; name another folder, or add --force to replace it", out_.string());
  }
  partial_ = out_;
  partial_ += ".partial";
  std::error_code error;
  fs::create_directories(partial_, error);
  if (error) fail("{}: cannot be made: {}", partial_.string(), error.message());
  lock_ = ::open((partial_ / kLock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) {
    const std::string reason = std::strerror(errno);
    fs::remove(partial_, error);
    fail("{}: cannot be written: {}", partial_.string(), reason);
  }
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(std::exchange(lock_, -1));
    fail("{}: another run is writing here; wait for it or name another folder", out_.string());
  }
  if (!options.resume) {
    for (const auto& entry : fs::directory_iterator(partial_)) {
      if (entry.path().filename() != kLock) fs::remove_all(entry.path());
    }
  }
}

StagedFolder::~StagedFolder() {
  std::error_code error;
  if (!committed_ && !keep_) fs::remove_all(partial_, error);
  if (lock_ >= 0) ::close(lock_);
}

void StagedFolder::commit() {
  fs::remove(partial_ / kLock);
  sync_folder(partial_);
  fs::path old;
  if (fs::exists(out_)) {
    if (fs::is_empty(out_)) {
      fs::remove(out_);
    } else {
      old = out_;
      old += ".replaced";
      fs::remove_all(old);
      fs::rename(out_, old);
    }
  }
  std::error_code error;
  fs::rename(partial_, out_, error);
  if (error) {
    if (!old.empty()) fs::rename(old, out_);
    keep_ = true;
    fail("{}: could not be completed: {}; the work is in {}", out_.string(), error.message(),
         partial_.string());
  }
  committed_ = true;
  sync_folder(out_.has_parent_path() ? out_.parent_path() : ".");
  if (!old.empty()) fs::remove_all(old);
}

uint64_t free_bytes(const fs::path& path) {
  fs::path at = fs::absolute(path);
  while (!fs::exists(at) && at.has_parent_path() && at != at.parent_path()) at = at.parent_path();
  std::error_code error;
  const fs::space_info space = fs::space(at, error);
  return error ? UINT64_MAX : space.available;
}

}  // namespace lamina
