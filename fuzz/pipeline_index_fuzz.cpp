#include <algorithm>

#include "fuzz/invariant.h"
#include "lamina/checkpoint/pipeline.h"

// No component that is accepted leads out of its pipeline, and the index written again says the same.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  const auto index =
      fuzz::accepted([&] { return parse_json(fuzz::text_of(data, size), "fuzz", {.depth = 8}); });
  if (!index) return 0;
  const auto components = fuzz::accepted([&] { return pipeline_components(*index, "fuzz"); });
  if (!components) return 0;
  for (const Pipeline::Component& component : *components) {
    fuzz::must(component.name.find_first_of("/\\") == std::string::npos);
    fuzz::must(!component.name.empty() && component.name.front() != '.');
  }
  const auto back = pipeline_components(parse_json(index->dump(), "written again"), "written again");
  fuzz::must(
      std::ranges::equal(back, *components, {}, &Pipeline::Component::name, &Pipeline::Component::name));
  return 0;
}
