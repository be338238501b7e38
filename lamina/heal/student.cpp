#include "lamina/heal/student.h"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/random.h"
#include "lamina/base/text.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/models/registry.h"
#include "lamina/tensor/autograd.h"
#include "lamina/tensor/store.h"

namespace lamina {

namespace {

constexpr std::string_view kWeight = ".weight";

bool matches(const std::vector<std::string>& globs, const std::string& name) {
  return std::ranges::any_of(
      globs, [&](const std::string& glob) { return ::fnmatch(glob.c_str(), name.c_str(), 0) == 0; });
}

void check_globs(const std::vector<std::string>& globs, const std::vector<std::string>& names,
                 std::string_view what) {
  for (const std::string& glob : globs) {
    if (!std::ranges::any_of(names, [&](const std::string& name) { return matches({glob}, name); }))
      fail("{} matches no {} of this model; there is {} for one", in_quotes(glob), what,
           names.empty() ? "none" : names.front());
  }
}

// Numbers of its own, never those of a mapped file.
Tensor copied(const Stored& stored, const Student::Options& options) {
  Tensor value = load(stored, options.dtype);
  if (value.const_data_ptr() == static_cast<const void*>(stored.bytes.data())) value = value.clone();
  if (stored.file) stored.file->release(stored.bytes);
  return value.to(options.device).contiguous();
}

struct Map {
  std::string path;
  bool in_out = false;
  int64_t in = 0, out = 0;
};

// The linear maps of a model: those of its parts, and a head of its own.
std::vector<Map> linear_maps(const Blueprint& blueprint) {
  std::vector<Map> maps;
  for (const Slot& slot : blueprint.slots) {
    const bool head = slot.name == blueprint.head && !blueprint.tied();
    if (slot.axes.size() != 2 || (slot.part < 0 && slot.wrapper < 0 && !head) ||
        !slot.name.ends_with(kWeight))
      continue;
    const bool in_out = stored_in_out(slot);
    const int64_t first = slot.axes[0].size(), second = slot.axes[1].size();
    maps.push_back({.path = slot.name.substr(0, slot.name.size() - kWeight.size()),
                    .in_out = in_out,
                    .in = in_out ? first : second,
                    .out = in_out ? second : first});
  }
  return maps;
}

// torch's kaiming_uniform with a = sqrt(5): uniform in +-1 / sqrt(in).
Tensor first_down(const Map& map, int64_t rank, const Student::Options& options) {
  const std::string own = sha256_hex(fmt::format("{} {}", options.seed, map.path));
  SplitMix random(std::stoull(own.substr(0, 16), nullptr, 16));
  const Tensor down = at::empty({rank, map.in}, at::kDouble);
  auto* numbers = down.data_ptr<double>();
  const double bound = 1 / std::sqrt(static_cast<double>(map.in));
  for (int64_t i = 0; i < down.numel(); ++i) numbers[i] = bound * (2 * random.uniform() - 1);
  return down.to(options.device, options.dtype);
}

void put(Stored& stored, const Tensor& value, const std::optional<DType>& wanted) {
  const DType type = wanted ? *wanted : editable_dtype(stored.dtype);
  const Tensor rounded = value.detach().to(at::kCPU, scalar_type(type)).contiguous();
  if (rounded.scalar_type() != value.scalar_type() && !at::isfinite(rounded).all().item<bool>() &&
      at::isfinite(value).all().item<bool>())
    fail("{} holds numbers that are too large for {}; write the model as float32", stored.name,
         dtype_name(type));
  store(stored, rounded);
}

}  // namespace

bool stored_in_out(const Slot& slot) {
  return slot.axes[slot.silences ? 1 : 0].name == "residual";
}

Student::Student(Opened opened, Options options) : opened_(std::move(opened)), options_(std::move(options)) {
  const InferenceMode off(false);  // what is made under it can never be trained
  if (options_.dtype != at::kFloat && options_.dtype != at::kDouble)
    fail("weights are trained as float32 or float64, not as {}", at::toString(options_.dtype));
  const Checkpoint& checkpoint = opened_.checkpoint;
  const Blueprint& blueprint = opened_.blueprint;
  std::vector<std::string> names;
  for (const Slot& slot : blueprint.slots) names.push_back(slot.name);
  check_globs(options_.frozen, names, "tensor");
  check_globs(options_.whole, names, "tensor");

  Weights::Options weights{.dtype = options_.dtype};
  if (options_.lora) {
    if (options_.lora->rank < 1) fail("adapters have a rank of 1 or more, not {}", options_.lora->rank);
    std::vector<Map> maps = linear_maps(blueprint);
    std::vector<std::string> paths;
    for (const Map& map : maps) paths.push_back(map.path);
    check_globs(options_.lora->targets, paths, "linear map");
    for (const Map& map : maps) {
      const bool wanted = options_.lora->targets.empty() ? map.path + ".weight" != blueprint.head
                                                         : matches(options_.lora->targets, map.path);
      if (!wanted || matches(options_.frozen, map.path + ".weight") ||
          matches(options_.whole, map.path + ".weight"))
        continue;
      const int64_t rank = options_.lora->rank;
      LowRank adapter{
          .down = first_down(map, rank, options_).set_requires_grad(true),
          .up = at::zeros({map.out, rank}, at::TensorOptions(options_.dtype).device(options_.device))
                    .set_requires_grad(true),
          .scale = options_.lora->alpha / static_cast<double>(rank),
          .dropout = options_.lora->dropout};
      parameters_.push_back({.name = map.path + ".lora_A.weight", .value = adapter.down});
      parameters_.push_back({.name = map.path + ".lora_B.weight", .value = adapter.up});
      adapters_.push_back({.path = map.path, .in_out = map.in_out, .low_rank = adapter});
      weights.low_rank.emplace(map.path, adapter);
    }
    if (adapters_.empty()) fail("no linear map is left to put an adapter on");
    if (options_.lora->dropout < 0 || options_.lora->dropout >= 1)
      fail("the dropout of adapters is from 0 up to but not 1, not {}", options_.lora->dropout);
  }
  for (const std::string& name : names) {
    const bool learns = (!options_.lora || matches(options_.whole, name)) && !matches(options_.frozen, name);
    // On the CPU what is frozen stays where it is mapped.
    if (!learns && options_.device.is_cpu()) continue;
    const Stored* stored = checkpoint.find(name);
    if (!stored) fail("{}: {} is missing", checkpoint.path.string(), name);
    Tensor value = copied(*stored, options_);
    if (learns) {
      value.set_requires_grad(true);
      parameters_.push_back({.name = name, .value = value, .decays = options_.decay_all || value.dim() > 1});
    }
    weights.trained.emplace(name, value);
  }
  if (parameters_.empty()) fail("every tensor of the model is frozen; nothing is left to train");
  model_ = build_model(opened_, std::move(weights));
}

const Parameter* Student::find(std::string_view name) const {
  const auto it = std::ranges::find(parameters_, name, &Parameter::name);
  return it == parameters_.end() ? nullptr : &*it;
}

Opened Student::now(std::optional<DType> dtype) const {
  const c10::NoGradGuard reading;
  Checkpoint checkpoint = opened_.checkpoint;
  const auto slot = [&](std::string_view name) -> Stored& {
    return *std::ranges::find(checkpoint.tensors, name, &Stored::name);
  };
  for (const Adapter& adapter : adapters_) {
    Stored& stored = slot(adapter.path + ".weight");
    const Tensor product = at::mm(adapter.low_rank.up, adapter.low_rank.down) * adapter.low_rank.scale;
    const Tensor frozen = load(stored, options_.dtype).to(options_.device);
    put(stored, frozen + (adapter.in_out ? product.t() : product), dtype);
  }
  for (const Parameter& parameter : parameters_) {
    if (opened_.blueprint.slot(parameter.name)) put(slot(parameter.name), parameter.value, dtype);
  }
  // A head stored beside the embedding it is tied to stays equal to it.
  for (const std::string& name : opened_.blueprint.optional_slots) {
    const Stored& embedding = slot(opened_.blueprint.embedding);
    for (Stored& stored : checkpoint.tensors) {
      if (stored.name != name) continue;
      Stored equal = embedding;
      equal.name = stored.name;
      equal.shard = stored.shard;
      stored = std::move(equal);
    }
  }
  return declare(std::move(checkpoint));
}

}  // namespace lamina
