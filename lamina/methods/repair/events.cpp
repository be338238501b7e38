#include <algorithm>

#include "lamina/methods/repair/impl/events.h"

namespace lamina::repair {

const Tensor* Recorder::residual(std::string_view path) const {
  const auto it = residuals_.find(path);
  return it == residuals_.end() ? nullptr : &it->second;
}

bool Recorder::mixed(const std::string& path) const {
  return std::ranges::any_of(blueprint_.parts, [&](const Part& part) {
    return std::ranges::find(part.experts, path, &Experts::conv) != part.experts.end();
  });
}

void Recorder::begin(int step) {
  close();
  step_ = step;
}

// A shortcut behind which no branch ran is what its part leaves.
void Recorder::close() {
  if (shortcut_.empty()) return;
  writes_.clear();
  happened(blueprint_.part(part_).path, ran_.at(shortcut_).out);
}

void Recorder::happened(const std::string& path, const Tensor& x) {
  if (!x.is_same(last_)) {
    Event event{.path = path, .step = step_, .shape = x.sizes().vec()};
    for (const std::string& map : {writes_, shortcut_}) {
      if (!map.empty()) event.maps.push_back(map);
    }
    events_.push_back(std::move(event));
  }
  last_ = x;
  residuals_[path] = x;
  writes_.clear();
  shortcut_.clear();
}

void Recorder::saw_map(Site site, std::string_view path, const Tensor& in, const Tensor& out) {
  if (site != part_) close();
  part_ = site;
  const std::string map(path);
  const Slot* slot = blueprint_.slot(map + ".weight");
  if (!slot) return;
  const bool inside = slot->part >= 0 || slot->wrapper >= 0;
  if (inside && !slot->silences) return;
  (site.index >= 0 && !inside ? shortcut_ : writes_) = mixed(map) ? "" : map;
  ran_[map] = {.in = in, .out = out, .kernel = slot->axes.size() == 4 ? slot->axes[2].size() : 1};
}

void Recorder::saw(Site site, const Tensor&, const Tensor& after) {
  happened(blueprint_.part(site).path, after);
}

void Recorder::saw_between(std::string_view path, const Tensor& x) {
  if (part_.index >= 0) close();
  happened(std::string(path), x);
}

void Recorder::said(const Tensor& answer) {
  if (part_.index >= 0) close();
  happened("", answer);
}

std::vector<Event> events_of(const Model& model, const Inputs& inputs) {
  const InferenceMode evaluating;
  Recorder recorder(model.blueprint());
  Stream stream = model.begin(inputs);
  const int parts = static_cast<int>(model.blueprint().parts.size());
  for (int i = 0; i < parts; ++i) {
    recorder.begin(i);
    model.step(stream, {i}, recorder);
  }
  recorder.begin(parts);
  recorder.said(model.finish(stream, recorder));
  return recorder.events();
}

}  // namespace lamina::repair
