// Captions that a user wrote: read as a scene or not at all, and what is read can be said again.
#include <cstddef>
#include <cstdint>

#include "fuzz/invariant.h"
#include "lamina/scene/scene.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina::scene;
  const auto said = parsed(lamina::fuzz::text_of(data, size));
  if (!said) return 0;
  lamina::fuzz::must(parsed(caption(*said)) == said);
  const auto seen = said_by(labels(*said));
  lamina::fuzz::must(seen && same_picture(*seen, *said));
  painted(placed(*said, size, 16));
  return 0;
}
