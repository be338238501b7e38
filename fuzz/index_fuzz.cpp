#include "fuzz/invariant.h"
#include "lamina/format/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  const auto index =
      fuzz::accepted([&] { return safetensors::parse_index(fuzz::text_of(data, size), "fuzz"); });
  if (!index) return 0;
  for (const auto& [tensor, shard] : index->weights) {
    fuzz::must(!tensor.empty() && shard.ends_with(".safetensors") && shard.find('/') == std::string::npos);
  }
  const auto back = safetensors::parse_index(index->document.dump(), "written again");
  fuzz::must(back.weights == index->weights && back.document == index->document);
  return 0;
}
