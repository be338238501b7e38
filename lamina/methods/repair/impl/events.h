// The places of a walk where the residual is something new, and the maps that make it so.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/methods/repair/impl/normal.h"
#include "lamina/model/model.h"

namespace lamina::repair {

// Behind a part, behind what stands between two, or what the model says.
struct Event {
  std::string path;  // of the part, the sampler, the wrapper; empty: the answer
  int step = 0;      // the part whose step it is in; as many as there are parts: behind the walk
  std::vector<int64_t> shape = {};
  std::vector<std::string> maps = {};  // that write there, straight into the residual
};

// Sees one pass, or a step of it.
class Recorder : public Tap {
 public:
  explicit Recorder(const Blueprint& blueprint) : blueprint_(blueprint) {}
  // What follows belongs to this step; what came before stays.
  void begin(int step);
  // The answer of the model.
  void said(const Tensor& answer);

  const std::vector<Event>& events() const { return events_; }
  const Tensor* residual(std::string_view path) const;  // null where nothing happened
  const Ran& ran(const std::string& map) const { return ran_.at(map); }

  bool reads_maps(Site) const override { return true; }
  void saw(Site site, const Tensor& before, const Tensor& after) override;
  void saw_between(std::string_view path, const Tensor& x) override;
  void saw_map(Site site, std::string_view path, const Tensor& in, const Tensor& out) override;

 private:
  void happened(const std::string& path, const Tensor& x);
  bool mixed(const std::string& path) const;  // of several kernels
  void close();

  const Blueprint& blueprint_;
  int step_ = 0;
  Site part_ = {};        // of the maps seen last
  std::string writes_;    // the last one of a part, or of what stands between, that writes
  std::string shortcut_;  // beside the branch
  std::vector<Event> events_;
  std::map<std::string, Tensor, std::less<>> residuals_;
  std::map<std::string, Ran> ran_;
  Tensor last_;
};

// Every event of a pass over `inputs`.
std::vector<Event> events_of(const Model& model, const Inputs& inputs);

}  // namespace lamina::repair
