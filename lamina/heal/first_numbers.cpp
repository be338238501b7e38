#include "lamina/heal/first_numbers.h"

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/random.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/tensor/store.h"

namespace lamina {

namespace {

Shape shape_of(const Slot& slot) {
  Shape shape;
  for (const Axis& axis : slot.axes) shape.push_back(axis.size());
  return shape;
}

uint64_t seed_of(const Slot& slot, const FirstNumbers& options) {
  return std::stoull(sha256_hex(fmt::format("{} {}", options.seed, slot.name)).substr(0, 16), nullptr, 16);
}

Tensor as_gpt2(const Slot& slot, int blocks, const FirstNumbers& options) {
  const Shape shape = shape_of(slot);
  if (slot.axes.size() < 2)
    return slot.name.ends_with(".weight") ? at::ones(shape, at::kFloat) : at::zeros(shape, at::kFloat);
  const double deviation = slot.silences ? options.deviation / std::sqrt(2.0 * blocks) : options.deviation;
  return random_normal(shape, seed_of(slot, options)) * deviation;
}

Tensor as_torch(const Slot& slot, const Blueprint& blueprint, const FirstNumbers& options) {
  constexpr std::string_view kBias = ".bias";
  const Shape shape = shape_of(slot);
  const bool bias = slot.name.ends_with(kBias), says = slot.name.starts_with("conv_out.");
  if (options.silent_parts && (slot.silences || says)) return at::zeros(shape, at::kFloat);
  const Slot* map =
      bias ? blueprint.slot(slot.name.substr(0, slot.name.size() - kBias.size()) + ".weight") : &slot;
  if (!map || map->axes.size() < 2) return bias ? at::zeros(shape, at::kFloat) : at::ones(shape, at::kFloat);
  int64_t inputs = 1;
  for (size_t i = 1; i < map->axes.size(); ++i) inputs *= map->axes[i].size();
  const double bound = 1 / std::sqrt(static_cast<double>(inputs));
  SplitMix random(seed_of(slot, options));
  Tensor values = at::empty(shape, at::kFloat);
  auto* numbers = values.data_ptr<float>();
  for (int64_t i = 0; i < values.numel(); ++i)
    numbers[i] = static_cast<float>(bound * (2 * random.uniform() - 1));
  return values;
}

}  // namespace

std::string_view law_name(FirstLaw law) {
  return law == FirstLaw::gpt2 ? "gpt2" : "torch";
}

FirstLaw first_law(const Blueprint& blueprint) {
  const auto convolution = [](const Slot& slot) { return slot.axes.size() == 4; };
  return std::ranges::any_of(blueprint.slots, convolution) ? FirstLaw::torch : FirstLaw::gpt2;
}

Tensor first_numbers(const Slot& slot, const Blueprint& blueprint, const FirstNumbers& options) {
  return options.law.value_or(first_law(blueprint)) == FirstLaw::torch
             ? as_torch(slot, blueprint, options)
             : as_gpt2(slot, blueprint.blocks, options);
}

Opened with_first_numbers(const Opened& opened, const FirstNumbers& options) {
  Checkpoint checkpoint = opened.checkpoint;
  std::erase_if(checkpoint.tensors, [&](const Stored& stored) {
    return std::ranges::find(opened.blueprint.optional_slots, stored.name) !=
           opened.blueprint.optional_slots.end();
  });
  for (Stored& stored : checkpoint.tensors) {
    const Slot* slot = opened.blueprint.slot(stored.name);
    if (!slot) continue;
    stored.dtype = editable_dtype(stored.dtype);
    const Tensor numbers =
        first_numbers(*slot, opened.blueprint, options).to(scalar_type(stored.dtype)).contiguous();
    store(stored, numbers);
  }
  return declare(std::move(checkpoint));
}

}  // namespace lamina
