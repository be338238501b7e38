// An output folder that appears whole or not at all. Work goes into OUT.partial, held by a lock; `commit`
// renames it to OUT. What a killed run leaves is named .partial or .replaced: the next run cleans it, or
// resumes from what it finds there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lamina {

class StagedFolder {
 public:
  struct Options {
    bool replace = false;     // an existing OUT may be replaced
    std::string resume = {};  // of what an earlier run left in OUT.partial, the file or folder named so stays
    std::vector<std::filesystem::path> inputs = {};  // what the run reads: OUT may not be it nor hold it
  };
  // Throws Error when OUT exists and may not be replaced, is a file, is or holds an input or the current
  // folder, is a part of an input, cannot be written, or another run holds it.
  StagedFolder(std::filesystem::path out, Options options);
  ~StagedFolder();  // without commit: what was made goes, unless `keep` was called or an earlier run is
                    // resumed
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const std::filesystem::path& path() const { return partial_; }  // write here
  const std::filesystem::path& target() const { return out_; }    // where a link to a folder leads
  void keep() { keep_ = true; }
  void commit();

 private:
  void take_lock();
  void check_target() const;

  std::filesystem::path out_, partial_, replaced_;
  std::vector<std::filesystem::path> made_;  // folders above OUT that were not there, innermost first
  bool replace_ = false;
  bool keep_ = false;
  bool committed_ = false;
  int lock_ = -1;
};

// Removes a folder with what it holds; its name goes first. Who is killed on the way leaves NAME.removed,
// never half a folder under its own name. What cannot be removed stays there: the next call looks at it
// again.
void remove_folder(const std::filesystem::path& path);

// Bytes free for this user on the file system that holds `path` (or its nearest existing parent).
uint64_t free_bytes(const std::filesystem::path& path);

}  // namespace lamina
