#include <algorithm>
#include <map>
#include <set>

#include "lamina/base/error.h"
#include "lamina/blueprint/absence.h"
#include "lamina/blueprint/variants.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/plan/fold.h"
#include "lamina/plan/impl/clamp_list.h"
#include "lamina/plan/impl/mixing.h"

namespace lamina {

namespace {

Stored& stored_of(Checkpoint& checkpoint, const std::string& name) {
  return *std::ranges::find(checkpoint.tensors, name, &Stored::name);
}

// Numbers that stand at equal distances: a neuron's row or column in a matrix.
struct Line {
  int64_t first = 0, step = 1, count = 0;
  int64_t operator[](int64_t i) const { return first + i * step; }
};

// What tells neurons from the residual is the axis, not the place in the shape: some families store [in,
// out].
size_t neuron_axis(const Slot& slot, const Blueprint& blueprint) {
  const std::vector<Axis>& outer = blueprint.slot(blueprint.embedding)->axes;
  return std::ranges::find(outer, slot.axes[0].name, &Axis::name) == outer.end() ? 0 : 1;
}

Line line_of(const std::string& weight, int64_t neuron, const Blueprint& blueprint) {
  const Slot& slot = *blueprint.slot(weight);
  const int64_t rows = slot.axes[0].size(), columns = slot.axes[1].size();
  if (neuron_axis(slot, blueprint) == 0) return {neuron * columns, 1, columns};
  return {neuron, columns, rows};
}

// Biases of zeros for every feed-forward that is left: the config's key speaks of all of them.
void add_biases(Checkpoint& checkpoint, const Blueprint& blueprint, const std::string& key) {
  checkpoint.config[key] = true;
  for (Site site : blueprint.with_neurons()) {
    const Neurons& neurons = *blueprint.part(site).neurons;
    for (const std::string& path : {neurons.gate, neurons.up, neurons.down}) {
      const auto weight = std::ranges::find(checkpoint.tensors, path + ".weight", &Stored::name);
      if (path.empty() || weight == checkpoint.tensors.end() || checkpoint.find(path + ".bias")) continue;
      const size_t axis = neuron_axis(*blueprint.slot(weight->name), blueprint);
      const size_t out = path == neurons.down ? 1 - axis : axis;
      Stored bias{.name = path + ".bias",
                  .dtype = editable_dtype(weight->dtype),
                  .shape = {weight->shape[out]},
                  .zero = true,
                  .shard = weight->shard};
      checkpoint.tensors.insert(std::next(weight), std::move(bias));
    }
  }
}

struct Effect {
  const Blueprint& blueprint;
  const Checkpoint& whole;  // before the plan
  Checkpoint& checkpoint;
  Absences& absences;
  NormsRemoved& removed;
  Unmasked& unmasked;
  Regionals& regionals;
  Mixtures& mixtures;
  std::vector<Clamp>& held;                 // those that the config carries
  const std::vector<Clamp>& beyond;         // those of the plan that it will
  std::map<std::string, Numbers>& numbers;  // of the tensors that change, until they are put back

  void operator()(const Cut& cut) {
    const Site site = blueprint.site(cut.site);
    std::set<std::string_view> gone;
    for (const Slot& slot : blueprint.slots) {
      if (slot.part == site.index) gone.insert(slot.name);
    }
    // What the file holds for the part beside its weights (an old file's mask) goes with it.
    const std::string inside = blueprint.part(site).path + ".";
    regionals.erase(cut.site);
    for (const Experts& experts : blueprint.part(site).experts) mixtures.erase(experts.conv);
    const bool listed = !blueprint.removed_key.empty();  // by path; a shortcut inside stays
    std::erase_if(checkpoint.tensors, [&](const Stored& tensor) {
      return gone.contains(tensor.name) || (!listed && tensor.name.starts_with(inside));
    });
    if (listed) {
      Json& list = checkpoint.config[blueprint.removed_key];
      list.push_back(cut.site);
      std::sort(list.begin(), list.end(), [&](const Json& a, const Json& b) {  // as the blueprint has them
        return blueprint.site(a.get<std::string>()) < blueprint.site(b.get<std::string>());
      });
      return;
    }
    const std::pair part(blueprint.part(site).block, blueprint.part(site).kind);
    absences.insert(part);
    removed.parts.erase(part);  // a part that is gone has no norm to speak of, and no mask
    if (part.second == Kind::attention) unmasked.erase(part.first);
    let_go(cut.site);
  }

  void operator()(const Silence& silence) {
    const Site site = blueprint.site(silence.site);
    for (const Slot& slot : blueprint.slots) {
      if (slot.part != site.index || !slot.silences) continue;
      const auto it = std::ranges::find(checkpoint.tensors, slot.name, &Stored::name);
      if (it != checkpoint.tensors.end()) it->zero = true;
    }
    let_go(silence.site);
  }

  void operator()(const Replace& replace) {
    const Neurons& neurons = *blueprint.part(blueprint.site(replace.site)).neurons;
    const std::string& path = replace.vector == NeuronVector::gate ? neurons.gate
                              : replace.vector == NeuronVector::up ? neurons.up
                                                                   : neurons.down;
    const std::string weight = path + ".weight";
    const Line line = line_of(weight, replace.neuron, blueprint);
    Numbers& w = open(weight);
    for (int64_t i = 0; i < line.count; ++i) w.set(line[i], replace.values[static_cast<size_t>(i)]);
  }

  void operator()(const FreezeNorm&) {}  // folded when all else is done

  void operator()(const Unmask& unmask) {
    unmasked.insert(blueprint.part(blueprint.site(unmask.site)).block);
  }

  void operator()(const Regional& regional) {
    const Part& part = blueprint.part(blueprint.site(regional.site));
    set_gate(checkpoint, blueprint, part, regional.windows);
    regionals[regional.site] = regional.windows;
  }

  void operator()(const Inherit& inherit) {
    Experts experts = add_experts(whole, checkpoint, blueprint, inherit);
    const std::string conv = experts.conv;
    mixtures[conv] = std::move(experts);
  }

  void operator()(const Blend& blend) {
    blend_kernels(checkpoint, blueprint, blend);
    mixtures.erase(blend.site + "." + blend.conv);
  }

  void operator()(const Clamp& clamp) {
    if (std::ranges::find(beyond, clamp) != beyond.end()) {
      held.push_back(clamp);
      return;
    }
    const double c = clamp.value;
    const bool scales = clamp.mode == ClampMode::scale || (clamp.mode == ClampMode::set && c == 0);
    if (clamp.mode == ClampMode::add && c == 0) return;
    const Neurons& neurons = *blueprint.part(blueprint.site(clamp.site)).neurons;
    const bool at_post = clamp.place == NeuronPlace::post;
    const std::string& path = at_post                            ? neurons.down
                              : clamp.place == NeuronPlace::gate ? neurons.gate
                                                                 : neurons.up;
    const std::string weight = path + ".weight", bias = path + ".bias";
    const Line line = line_of(weight, clamp.neuron, blueprint);
    if (!scales && !checkpoint.find(bias)) add_biases(checkpoint, blueprint, neurons.bias_key);

    if (at_post && !scales) {  // a constant times what the neuron writes is a bias of what the part writes
      const Numbers& w = open(weight);
      Numbers& b = open(bias);
      for (int64_t i = 0; i < line.count; ++i) b.set(i, b.at(i) + c * w.at(line[i]));
    }
    if (scales || clamp.mode == ClampMode::set) {
      Numbers& w = open(weight);
      for (int64_t i = 0; i < line.count; ++i) w.set(line[i], scales && c != 0 ? c * w.at(line[i]) : 0);
    }
    if (!at_post && checkpoint.find(bias)) {
      Numbers& b = open(bias);
      const double was = b.at(clamp.neuron);
      b.set(clamp.neuron, scales ? c * was : clamp.mode == ClampMode::add ? was + c : c);
    }
  }

 private:
  Numbers& open(const std::string& name) {
    return numbers.try_emplace(name, stored_of(checkpoint, name)).first->second;
  }
  void let_go(const std::string& site) {
    std::erase_if(held, [&](const Clamp& clamp) { return clamp.site == site; });
  }
};

// A wrapper goes with the last of its parts, and is silent when all that is left in it is.
void close_wrappers(Checkpoint& checkpoint, const Blueprint& blueprint, const Plan& plan) {
  std::set<int> cut, removed;
  for (const Edit& edit : plan.edits) {
    if (const auto* one = std::get_if<Cut>(&edit)) cut.insert(blueprint.site(one->site).index);
  }
  for (Site site : removed_sites(plan, blueprint)) removed.insert(site.index);
  for (size_t w = 0; w < blueprint.wrappers.size(); ++w) {
    const std::vector<int>& parts = blueprint.wrappers[w].parts;
    const auto all = [&](const std::set<int>& gone) {
      return std::ranges::all_of(parts, [&](int part) {
        return gone.contains(part) || !blueprint.parts[static_cast<size_t>(part)].present;
      });
    };
    if (!all(removed)) continue;
    for (const Slot& slot : blueprint.slots) {
      if (slot.wrapper != static_cast<int>(w)) continue;
      const auto it = std::ranges::find(checkpoint.tensors, slot.name, &Stored::name);
      if (it == checkpoint.tensors.end()) continue;
      if (all(cut))
        checkpoint.tensors.erase(it);
      else if (slot.silences)
        it->zero = true;
    }
  }
}

// Parts go first, so that nothing is made for them; clamps act on what replacements have left.
constexpr int kLastTurn = 2;
int turn(const Edit& edit) {
  return std::holds_alternative<Clamp>(edit) ? kLastTurn : std::holds_alternative<Replace>(edit) ? 1 : 0;
}

}  // namespace

Checkpoint apply(const Checkpoint& checkpoint, const Blueprint& blueprint, const Plan& plan) {
  check_plan(plan, blueprint);
  const std::string what = checkpoint.what();
  Checkpoint result = checkpoint;
  const Absences before = read_absences(checkpoint.config, blueprint.blocks, what);
  const std::vector<Clamp> held_before = clamps_of(checkpoint.config, blueprint, what);
  const std::vector<Clamp> beyond = beyond_weights(plan, blueprint, held_before);
  const NormsRemoved removed_before = read_norms_removed(checkpoint.config, blueprint.blocks, what);
  const Unmasked unmasked_before = read_unmasked(checkpoint.config, blueprint.blocks, what);
  Absences absences = before;
  NormsRemoved removed = removed_before;
  Unmasked unmasked = unmasked_before;
  const Regionals regionals_before = read_regionals(checkpoint.config, what);
  const Mixtures mixtures_before = read_mixtures(checkpoint.config, what);
  Regionals regionals = regionals_before;
  Mixtures mixtures = mixtures_before;
  std::vector<Clamp> held = held_before;
  std::map<std::string, Numbers> numbers;
  for (int now = 0; now <= kLastTurn; ++now) {
    for (const Edit& edit : plan.edits) {
      if (turn(edit) == now)
        std::visit(Effect{blueprint, checkpoint, result, absences, removed, unmasked, regionals, mixtures,
                          held, beyond, numbers},
                   edit);
    }
  }
  close_wrappers(result, blueprint, plan);
  for (auto& [name, values] : numbers) std::move(values).put(stored_of(result, name));
  if (absences != before) write_absences(result.config, absences);
  if (held != held_before) write_clamps(result.config, held);
  if (removed != removed_before) write_norms_removed(result.config, removed);
  if (unmasked != unmasked_before) write_unmasked(result.config, unmasked);
  if (regionals != regionals_before) write_regionals(result.config, regionals);
  if (mixtures != mixtures_before) write_mixtures(result.config, mixtures);
  result = folded(std::move(result), blueprint, frozen_by(plan));
  if (result.config != checkpoint.config) name_for_loaders(result.config, blueprint);
  return result;
}

}  // namespace lamina
