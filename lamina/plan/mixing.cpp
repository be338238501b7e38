#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/plan/impl/mixing.h"

namespace lamina {

namespace {

// Of gates that cannot start at the kept kernel exactly: how far their router's biases stand apart, so that
// e^-6 of the donors is in the mixture and both have a gradient.
constexpr double kApart = 6;

// A convolution of a ResNet.
struct Kernel {
  const Part* part = nullptr;
  std::string path;
  int64_t out = 0, in = 0, taps = 0;
  int64_t skip = 0;  // of `in`, the last ones, from the stack
};

Kernel kernel_at(const std::string& path, const Blueprint& blueprint) {
  const size_t dot = path.rfind('.');
  const std::string name = dot == std::string::npos ? "" : path.substr(dot + 1);
  if (name != "conv1" && name != "conv2")
    fail("the plan names {} for its kernel, where conv1 or conv2 of a ResNet was expected", in_quotes(path));
  const Part& part = blueprint.part(blueprint.site(path.substr(0, dot)));
  const Slot* slot = blueprint.slot(path + ".weight");
  if (part.kind != Kind::resnet || !part.present || !slot || slot->axes.size() != 4)
    fail("the plan names the kernel of {}, but the model has none there", in_quotes(path));
  return {.part = &part,
          .path = path,
          .out = slot->axes[0].size(),
          .in = slot->axes[1].size(),
          .taps = slot->axes[2].size() * slot->axes[3].size(),
          .skip = name == "conv1" ? part.skip : 0};
}

// Input channels that a donor's kernel has in common with the kept one: the first so many.
int64_t shared_channels(const Kernel& kept, const Kernel& donor) {
  if (donor.out != kept.out || donor.taps != kept.taps) return 0;
  const int64_t stream = kept.in - kept.skip;
  if (donor.in - donor.skip != stream) return 0;
  return donor.skip == kept.skip ? kept.in : stream;
}

const Experts* experts_of(const Part& part, const std::string& conv) {
  const auto it = std::ranges::find(part.experts, conv, &Experts::conv);
  return it == part.experts.end() ? nullptr : &*it;
}

std::vector<Stored>::iterator place_of(Checkpoint& checkpoint, const std::string& name) {
  const auto it = std::ranges::find(checkpoint.tensors, name, &Stored::name);
  if (it == checkpoint.tensors.end()) fail("{}: {} is missing", checkpoint.path.string(), name);
  return it;
}

// The donor's kernel with the kept one's numbers on the channels that they do not share.
Stored sliced(const Stored& donor, const Stored& kept, const Kernel& from, const Kernel& to, int64_t shared) {
  Numbers numbers(kept), given(donor);
  for (int64_t o = 0; o < to.out; ++o)
    numbers.set_run(o * to.in * to.taps, given.run(o * from.in * from.taps, shared * to.taps));
  Stored result = kept;
  std::move(numbers).put(result);
  return result;
}

Stored zeros(std::string name, DType dtype, Shape shape, int shard) {
  return {.name = std::move(name),
          .dtype = editable_dtype(dtype),
          .shape = std::move(shape),
          .zero = true,
          .shard = shard};
}

}  // namespace

void check_inherit(const Inherit& inherit, const Blueprint& blueprint) {
  const Kernel kept = kernel_at(inherit.site + "." + inherit.conv, blueprint);
  if (experts_of(*kept.part, kept.path)) fail("the plan gives {} experts, but it has some", kept.path);
  if (inherit.donors.empty()) fail("the plan gives {} experts, but names no donor", kept.path);
  for (const std::string& path : inherit.donors) {
    const Kernel donor = kernel_at(path, blueprint);
    if (path == kept.path) fail("the plan has {} inherit from itself", path);
    if (shared_channels(kept, donor) == 0)
      fail(
          "the plan has {} inherit from {}, whose kernel reads or writes other channels ({} to {}, not {} to "
          "{})",
          kept.path, path, donor.in, donor.out, kept.in, kept.out);
    if (std::ranges::count(inherit.donors, path) > 1)
      fail("the plan has {} inherit from {} twice", kept.path, path);
  }
}

Experts add_experts(const Checkpoint& whole, Checkpoint& checkpoint, const Blueprint& blueprint,
                    const Inherit& inherit) {
  const Kernel kept = kernel_at(inherit.site + "." + inherit.conv, blueprint);
  const Experts experts{
      .conv = kept.path, .donors = inherit.donors, .gate = inherit.gate, .reads = inherit.reads};
  const Stored weight = *place_of(checkpoint, kept.path + ".weight");
  std::vector<Stored> added;
  for (size_t e = 0; e < inherit.donors.size(); ++e) {
    const Kernel donor = kernel_at(inherit.donors[e], blueprint);
    for (const char* name : {".weight", ".bias"}) {
      const Stored* given = whole.find(donor.path + name);
      if (!given) fail("{}: {}{} is missing", whole.path.string(), donor.path, name);
      const int64_t shared = shared_channels(kept, donor);
      Stored expert = std::string_view(name) == ".weight" && shared < kept.in
                          ? sliced(*given, weight, donor, kept, shared)
                          : *given;
      expert.name = fmt::format("{}.experts.{}{}", kept.path, e, name);
      expert.shard = weight.shard;
      added.push_back(std::move(expert));
    }
  }
  const Slot& time = *blueprint.slot(kept.part->path + ".time_emb_proj.weight");
  const int64_t read = (inherit.reads == Experts::Reads::time ? 0 : kept.in) +
                       (inherit.reads == Experts::Reads::input ? 0 : time.axes[1].size());
  const std::string router = kept.path + ".router";
  added.push_back(zeros(router + ".weight", weight.dtype, {experts.gates(), read}, weight.shard));
  added.push_back(zeros(router + ".bias", weight.dtype, {experts.gates()}, weight.shard));
  if (inherit.gate != Experts::Gate::tanh_residual) {
    Numbers biases(added.back());
    for (int64_t g = 0; g < experts.gates(); ++g) biases.set(g, g == 0 ? kApart : -kApart);
    std::move(biases).put(added.back());
  }
  const auto behind = std::next(place_of(checkpoint, kept.path + ".bias"));
  checkpoint.tensors.insert(behind, added.begin(), added.end());
  return experts;
}

void check_blend(const Blend& blend, const Blueprint& blueprint) {
  const Kernel kept = kernel_at(blend.site + "." + blend.conv, blueprint);
  const Experts* experts = experts_of(*kept.part, kept.path);
  if (!experts) fail("the plan blends the kernels of {}, which has but one", kept.path);
  if (static_cast<int64_t>(blend.gates.size()) != experts->gates())
    fail("the plan blends the kernels of {} by {} gates where it has {}", kept.path, blend.gates.size(),
         experts->gates());
  if (!std::ranges::all_of(blend.gates, [](double gate) { return std::isfinite(gate); }))
    fail("the plan blends the kernels of {} by gates that are not all finite", kept.path);
}

void blend_kernels(Checkpoint& checkpoint, const Blueprint& blueprint, const Blend& blend) {
  const Kernel kept = kernel_at(blend.site + "." + blend.conv, blueprint);
  const Experts& experts = *experts_of(*kept.part, kept.path);
  const bool residual = experts.gate == Experts::Gate::tanh_residual;
  for (const char* name : {".weight", ".bias"}) {
    Stored& own = *place_of(checkpoint, kept.path + name);
    Numbers mixed(own);
    std::vector<Numbers> given;
    for (size_t e = 0; e < experts.donors.size(); ++e)
      given.emplace_back(*place_of(checkpoint, fmt::format("{}.experts.{}{}", kept.path, e, name)));
    const size_t skipped = residual ? 0 : 1;
    for (int64_t i = 0; i < static_cast<int64_t>(own.elements()); ++i) {
      const double before = mixed.at(i);
      double sum = residual ? before : blend.gates[0] * before;
      for (size_t e = 0; e < given.size(); ++e)
        sum += blend.gates[e + skipped] * (given[e].at(i) - (residual ? before : 0));
      mixed.set(i, sum);
    }
    std::move(mixed).put(own);
  }
  std::erase_if(checkpoint.tensors, [&](const Stored& tensor) {
    return tensor.name.starts_with(kept.path + ".experts.") ||
           tensor.name.starts_with(kept.path + ".router.");
  });
}

void set_gate(Checkpoint& checkpoint, const Blueprint& blueprint, const Part& part, const Windows& windows) {
  const auto query = std::ranges::find_if(blueprint.slots, [&](const Slot& slot) {
    return slot.name.starts_with(part.path + ".") && slot.name.ends_with(".attn1.to_q.weight");
  });
  if (query == blueprint.slots.end()) fail("{} has no self-attention to give windows", part.path);
  const std::string attention = query->name.substr(0, query->name.size() - std::string("to_q.weight").size());
  const std::string name = attention + "regional_gate";
  const bool there = checkpoint.find(name) != nullptr, wanted = windows.mix == Windows::Mix::gate;
  if (there && !wanted) checkpoint.tensors.erase(place_of(checkpoint, name));
  if (there || !wanted) return;
  const auto behind = place_of(checkpoint, query->name);
  Stored gate = zeros(name, behind->dtype, {part.map_heads}, behind->shard);
  checkpoint.tensors.insert(std::next(behind), std::move(gate));
}

}  // namespace lamina
