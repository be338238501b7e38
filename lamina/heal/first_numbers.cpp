#include "lamina/heal/first_numbers.h"

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/tensor/store.h"

namespace lamina {

Tensor first_numbers(const Slot& slot, int blocks, const FirstNumbers& options) {
  Shape shape;
  for (const Axis& axis : slot.axes) shape.push_back(axis.size());
  if (slot.axes.size() < 2)
    return slot.name.ends_with(".weight") ? at::ones(shape, at::kFloat) : at::zeros(shape, at::kFloat);
  const std::string own = sha256_hex(fmt::format("{} {}", options.seed, slot.name));
  const double deviation = slot.silences ? options.deviation / std::sqrt(2.0 * blocks) : options.deviation;
  return random_normal(shape, std::stoull(own.substr(0, 16), nullptr, 16)) * deviation;
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
        first_numbers(*slot, opened.blueprint.blocks, options).to(scalar_type(stored.dtype)).contiguous();
    store(stored, numbers);
  }
  return declare(std::move(checkpoint));
}

}  // namespace lamina
