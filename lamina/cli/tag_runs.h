// The runs of `lamina tag train` that are done, as files: what they came to, and of the best run of an arm
// what it had learnt. The same command goes on behind them after whatever ended it.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lamina/heal/student.h"
#include "lamina/methods/unmask/run.h"

namespace lamina::cli {

// Everything that a run's outcome depends on, by name: two runs that differ in it are not one.
using RunFields = std::map<std::string, std::string>;

struct DoneRun {
  unmask::RunResult result;
  std::vector<unmask::Span> spans = {};  // where its blocks look; empty: that was not measured
};

class RunFiles {
 public:
  // `folder` is made on the first write. `data` gives the tags that scores are counted from again.
  RunFiles(std::filesystem::path folder, const unmask::TagData& data);

  // What a run that is done came to; nothing if it is not, or if its file is damaged. Throws Error that says
  // what differs when the run that is there had other fields.
  std::optional<DoneRun> find(const std::string& name, const RunFields& fields) const;
  void write(const std::string& name, const RunFields& fields, const DoneRun& run) const;

  // What the run's student had learnt: its adapter, or the tensors that are no longer the base's, as
  // `weights` (default: in the base's own types).
  void keep(const std::string& name, const Student& student, const Opened& base,
            std::optional<DType> weights) const;
  bool kept(const std::string& name) const;
  void drop(const std::string& name) const;
  std::filesystem::path kept_at(const std::string& name) const;

 private:
  std::filesystem::path folder_;
  const unmask::TagData& data_;
};

// The classifier with what was kept: tensors in its place, or an adapter merged.
Opened with_kept(const Opened& classifier, const std::filesystem::path& kept);
// Tensors that were made here as `weights`, or in the type that the base has them in.
Opened in_types_of(const Opened& model, const Opened& base, std::optional<DType> weights);

// A name as part of a file's: "blocks-8-15-20".
std::string slug(const std::string& name);

}  // namespace lamina::cli
