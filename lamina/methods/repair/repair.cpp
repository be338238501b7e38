#include "lamina/methods/repair/repair.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/methods/repair/impl/events.h"
#include "lamina/models/registry.h"
#include "lamina/tensor/autograd.h"
#include "lamina/tensor/store.h"

namespace lamina::repair {

namespace {

constexpr double kRidges[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};

// Inputs on a device.
Inputs moved(const Inputs& inputs, const at::Device& device) {
  Inputs there = inputs;
  for (Tensor* tensor : {&there.ids, &there.sample, &there.time, &there.text}) {
    if (tensor->defined()) *tensor = tensor->to(device);
  }
  for (auto& [name, tensor] : there.added) tensor = tensor.to(device);
  return there;
}

// A map that is fitted: its tensors are those that the model computes with.
struct Map {
  Tensor weight, bias;
};

struct Target {
  std::string path;
  int step = 0;
};

// One repair: maps that write at one event, and where the stream is to match.
struct Unit {
  Event event;
  std::vector<Target> targets;
};

class Work {
 public:
  Work(const Opened& cut, const Model& teacher, std::span<const Inputs> samples, const RepairOptions& options,
       const Watch& watch)
      : cut_(cut), teacher_(teacher), options_(options), watch_(watch) {
    if (samples.size() < 2) fail("a repair needs two batches of samples or more: one decides");
    const double held = std::round(options.held_out * static_cast<double>(samples.size()));
    const auto deciding =
        std::clamp<int64_t>(static_cast<int64_t>(held), 1, static_cast<int64_t>(samples.size()) - 1);
    fitted_ = samples.size() - static_cast<size_t>(deciding);
    for (const Inputs& inputs : samples) samples_.push_back(moved(inputs, options.device));
  }

  Repaired run() {
    plan();
    build();
    for (const Inputs& inputs : samples_) {
      if (watch_.stop.stop_requested()) throw Stopped{};
      answers_.push_back(teacher_.run(inputs));
      ours_.push_back(student_->begin(inputs));
      theirs_.push_back(teacher_.begin(inputs));
    }
    Repaired repaired{.opened = cut_};
    best_ = repaired.before = joint(0, true);
    repaired.fitted_before = joint(0, false);
    const int parts = static_cast<int>(teacher_.blueprint().parts.size());
    size_t next = 0;
    for (int step = 0; step <= parts; ++step) {
      for (; next < units_.size() && units_[next].event.step == step; ++next) {
        report(next);
        for (const Row& row : settled(units_[next])) repaired.rows.push_back(row);
      }
      if (step == parts) break;
      for (size_t b = 0; b < samples_.size(); ++b) {
        Tap none;
        student_->step(ours_[b], {step}, none);
        teacher_.step(theirs_[b], {step}, none);
      }
    }
    repaired.after = best_;
    repaired.fitted_after = whole_fitted();
    repaired.opened = written();
    return repaired;
  }

 private:
  int parts() const { return static_cast<int>(teacher_.blueprint().parts.size()); }

  // What is to be repaired: where the cut model's stream is no longer the uncut one's.
  void plan() {
    const std::vector<Event> theirs = events_of(teacher_, samples_[0]);
    const auto plain = build_model(cut_, {.dtype = teacher_.dtype(), .trained = tensors({}, true)});
    const std::vector<Event> ours = events_of(*plain, samples_[0]);
    size_t at = 0;
    bool apart = false;
    for (size_t i = 0; i < ours.size(); ++i) {
      const size_t first = place(theirs, ours[i], at);
      // Something in front of it is gone, or it is what a part that is gone leaves: its shortcut.
      const auto part = cut_.blueprint.find(ours[i].path);
      apart = apart || first > at || (part && !cut_.blueprint.part(*part).present);
      const size_t end = i + 1 < ours.size() ? place(theirs, ours[i + 1], first + 1) : theirs.size();
      Unit unit{.event = ours[i], .targets = {}};
      for (size_t t = end; t-- > first;) {  // behind the gap first
        if (theirs[t].shape != ours[i].shape) continue;
        if (t == first && !apart) continue;  // there is nothing to mend
        unit.targets.push_back({theirs[t].path, theirs[t].step});
        t = std::min(t, first + 1);  // between the two ends there is no place that is better
      }
      apart = apart || end > first + 1;
      at = first + 1;
      if (!unit.targets.empty() && !unit.event.maps.empty() && !too_large(unit)) units_.push_back(unit);
    }
  }

  static size_t place(const std::vector<Event>& events, const Event& event, size_t from) {
    for (size_t i = from; i < events.size(); ++i) {
      if (events[i].path == event.path) return i;
    }
    fail("{} is not in the walk of the uncut model; is the cut one made of it?",
         event.path.empty() ? "the answer" : event.path);
  }

  bool too_large(const Unit& unit) const {
    int64_t unknowns = 0;
    for (const std::string& map : unit.event.maps) {
      const Slot& slot = *cut_.blueprint.slot(map + ".weight");
      int64_t of = 1;
      for (size_t axis = 1; axis < slot.axes.size(); ++axis) of *= slot.axes[axis].size();
      unknowns += of;
    }
    return unknowns > options_.unknowns;
  }

  // Tensors for the model to be built on: copies of those that are repaired, and all where they must move.
  std::map<std::string, Tensor> tensors(const std::set<std::string>& maps, bool only_moved) const {
    std::map<std::string, Tensor> made;
    for (const Slot& slot : cut_.blueprint.slots) {
      const bool repaired = maps.contains(slot.name.substr(0, slot.name.rfind('.')));
      if (!repaired && options_.device.is_cpu()) continue;
      if (only_moved && options_.device.is_cpu()) continue;
      made[slot.name] = load(*cut_.checkpoint.find(slot.name), teacher_.dtype()).to(options_.device).clone();
    }
    return made;
  }

  void build() {
    std::set<std::string> maps;
    for (const Unit& unit : units_) maps.insert(unit.event.maps.begin(), unit.event.maps.end());
    std::map<std::string, Tensor> made = tensors(maps, false);
    for (const std::string& map : maps) {
      const auto bias = made.find(map + ".bias");
      maps_[map] = {made.at(map + ".weight"), bias == made.end() ? Tensor() : bias->second};
    }
    student_ = build_model(cut_, {.dtype = teacher_.dtype(), .trained = std::move(made)});
  }

  bool held(size_t batch) const { return batch >= fitted_; }

  // Mean square of the difference of the answers, from the streams kept before `step`.
  double joint(int step, bool decides) const {
    double sum = 0, count = 0;
    for (size_t b = decides ? fitted_ : 0; b < (decides ? samples_.size() : fitted_); ++b) {
      Stream stream = ours_[b];
      Tap none;
      for (int i = step; i < parts(); ++i) student_->step(stream, {i}, none);
      sum += (student_->finish(stream, none) - answers_[b]).to(at::kDouble).square().sum().item<double>();
      count += static_cast<double>(answers_[b].numel());
    }
    return sum / count;
  }
  // From the very beginning, as the walk is over.
  double whole_fitted() const {
    double sum = 0, count = 0;
    for (size_t b = 0; b < fitted_; ++b) {
      sum += (student_->run(samples_[b]) - answers_[b]).to(at::kDouble).square().sum().item<double>();
      count += static_cast<double>(answers_[b].numel());
    }
    return sum / count;
  }

  // Tries every target of the unit; the best stays, if it is better than what there was.
  std::vector<Row> settled(const Unit& unit) {
    std::vector<Row> rows;
    const std::vector<Tensor> before = numbers(unit);
    std::vector<Tensor> best = before;
    for (const Target& target : unit.targets) {
      Row row{.path = unit.event.maps.front(), .target = target.path, .joint = best_};
      if (const auto change = fitted(unit, target, row)) {
        write(unit, before, *change);
        row.joint = joint(unit.event.step, true);
        if (row.joint < best_) {
          best_ = row.joint;
          best = numbers(unit);
          for (Row& other : rows) other.kept = false;
          row.kept = true;
          changed_.insert(unit.event.maps.begin(), unit.event.maps.end());
        }
        put(unit, before);
      }
      rows.push_back(row);
    }
    put(unit, best);
    return rows;
  }

  // The change of the unit's maps, [outputs, unknowns + 1], with the ridge that is best on what is held out.
  std::optional<Tensor> fitted(const Unit& unit, const Target& target, Row& row) const {
    Normal fit, decide;
    for (size_t b = 0; b < samples_.size(); ++b) {
      if (watch_.stop.stop_requested()) throw Stopped{};
      const auto [read, missing] = rows_of(unit, target, b);
      (held(b) ? decide : fit).add(read, missing);
      row.unknowns = read.size(1);
    }
    row.local_before = row.local_after = decide.missing();
    std::optional<Tensor> best;
    for (const double ridge : kRidges) {
      const std::optional<Tensor> change = fit.solved(ridge);
      if (!change) continue;
      const double left = decide.left(*change);
      if (!(left < row.local_after)) continue;
      row.local_after = left;
      row.ridge = ridge;
      best = change;
    }
    return best;
  }

  // What the maps read and what is missing behind them, at some positions of one batch.
  std::pair<Tensor, Tensor> rows_of(const Unit& unit, const Target& target, size_t batch) const {
    Recorder ours(cut_.blueprint), theirs(teacher_.blueprint());
    walk(*student_, ours_[batch], ours, unit.event.step, unit.event.step);
    walk(teacher_, theirs_[batch], theirs, unit.event.step, target.step);
    const Tensor *here = ours.residual(unit.event.path), *there = theirs.residual(target.path);
    if (!here || !there) fail("{} was not met again in the same walk", target.path);
    const Tensor missing = at_positions(*there - *here);
    std::vector<Tensor> read;
    int64_t unknowns = 0;
    for (const std::string& map : unit.event.maps) {
      read.push_back(read_at_positions(ours.ran(map)));
      unknowns += read.back().size(1);
    }
    const int64_t most =
        std::max<int64_t>(1, options_.positions * unknowns / static_cast<int64_t>(samples_.size()));
    Tensor all = read.size() == 1 ? read[0] : at::cat(read, 1);
    if (missing.size(0) <= most) return {all, missing};
    auto generator = at::make_generator<at::CPUGeneratorImpl>(options_.seed + batch);
    const Tensor some = at::randperm(missing.size(0), generator, at::TensorOptions(at::kLong))
                            .narrow(0, 0, most)
                            .to(options_.device);
    return {all.index_select(0, some), missing.index_select(0, some)};
  }

  // From the stream before `first` to behind `last`, or to the answer.
  void walk(const Model& model, Stream stream, Recorder& recorder, int first, int last) const {
    for (int i = first; i <= std::min(last, parts() - 1); ++i) {
      recorder.begin(i);
      model.step(stream, {i}, recorder);
    }
    recorder.begin(parts());
    if (last == parts()) recorder.said(model.finish(stream, recorder));
  }

  std::vector<Tensor> numbers(const Unit& unit) const {
    std::vector<Tensor> all;
    for (const std::string& map : unit.event.maps) {
      for (const Tensor& tensor : {maps_.at(map).weight, maps_.at(map).bias})
        all.push_back(tensor.defined() ? tensor.clone() : tensor);
    }
    return all;
  }
  void put(const Unit& unit, const std::vector<Tensor>& numbers) {
    size_t i = 0;
    for (const std::string& map : unit.event.maps) {
      for (const Tensor& tensor : {maps_.at(map).weight, maps_.at(map).bias}) {
        if (tensor.defined()) tensor.copy_(numbers[i]);
        ++i;
      }
    }
  }
  void write(const Unit& unit, const std::vector<Tensor>& before, const Tensor& change) {
    int64_t first = 0;
    bool constant = false;  // goes to one of the biases
    for (size_t i = 0; i < unit.event.maps.size(); ++i) {
      const Map& map = maps_.at(unit.event.maps[i]);
      const int64_t unknowns = map.weight.numel() / map.weight.size(0);
      const Tensor added = change.narrow(1, first, unknowns).reshape(map.weight.sizes());
      map.weight.copy_(before[2 * i].to(at::kDouble) + added);
      first += unknowns;
      if (constant || !map.bias.defined()) continue;
      map.bias.copy_(before[2 * i + 1].to(at::kDouble) + change.select(1, change.size(1) - 1));
      constant = true;
    }
  }

  Opened written() const {
    Checkpoint checkpoint = cut_.checkpoint;
    for (const std::string& path : changed_) {
      const Map& map = maps_.at(path);
      for (const auto& [name, tensor] : {std::pair{".weight", map.weight}, {".bias", map.bias}}) {
        if (!tensor.defined()) continue;
        Stored& stored = *std::ranges::find(checkpoint.tensors, path + name, &Stored::name);
        store(stored, tensor.cpu());
      }
    }
    return declare(std::move(checkpoint));
  }

  void report(size_t unit) const {
    watch_.report({.phase = "repair",
                   .done = static_cast<double>(unit),
                   .total = static_cast<double>(units_.size()),
                   .detail = fmt::format("{}, loss {:.4g}", units_[unit].event.maps.front(), best_)});
  }

  const Opened& cut_;
  const Model& teacher_;
  const RepairOptions& options_;
  const Watch& watch_;
  std::vector<Inputs> samples_;
  size_t fitted_ = 0;  // the first so many batches are fitted to
  std::vector<Unit> units_;
  std::map<std::string, Map> maps_;
  std::set<std::string> changed_;
  std::unique_ptr<Model> student_;
  std::vector<Tensor> answers_;
  std::vector<Stream> ours_, theirs_;  // before the step that the walk has come to
  double best_ = std::numeric_limits<double>::infinity();
};

}  // namespace

Repaired repair(const Opened& cut, const Model& teacher, std::span<const Inputs> samples,
                const RepairOptions& options, const Watch& watch) {
  if (!(options.held_out > 0) || options.held_out >= 1)
    fail("the share of samples that decide is between 0 and 1, not {}", options.held_out);
  if (options.positions < 1) fail("a repair needs a row or more for each unknown");
  if (cut.blueprint.parts.size() != teacher.blueprint().parts.size())
    fail("the cut model has {} parts where the uncut one has {}", cut.blueprint.parts.size(),
         teacher.blueprint().parts.size());
  const c10::NoGradGuard evaluating;
  return Work(cut, teacher, samples, options, watch).run();
}

}  // namespace lamina::repair
