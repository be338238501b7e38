// An output folder that appears whole or not at all. Work goes into OUT.partial, held by a lock; `commit`
// renames it to OUT. What a killed run leaves is named .partial: the next run cleans it, or resumes from what
// it finds there.
#pragma once

#include <filesystem>
#include <string>

namespace lamina {

class StagedFolder {
 public:
  struct Options {
    bool replace = false;  // an existing OUT may be replaced
    bool resume = false;   // keep what an earlier run left in OUT.partial
  };
  // Throws Error when OUT exists and may not be replaced, is a file, cannot be written, or another run holds
  // it.
  StagedFolder(std::filesystem::path out, Options options);
  ~StagedFolder();  // without commit: the partial folder goes, unless `keep` was called
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const std::filesystem::path& path() const { return partial_; }  // write here
  const std::filesystem::path& target() const { return out_; }
  void keep() { keep_ = true; }
  void commit();

 private:
  std::filesystem::path out_, partial_;
  bool replace_ = false;
  bool keep_ = false;
  bool committed_ = false;
  int lock_ = -1;
};

// Bytes free for this user on the file system that holds `path` (or its nearest existing parent).
uint64_t free_bytes(const std::filesystem::path& path);

}  // namespace lamina
