#include "fuzz/invariant.h"
#include "lamina/image/captions.h"

// No name that is accepted leads out of the folder.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  const auto captions = fuzz::accepted([&] { return parse_captions(fuzz::text_of(data, size), "fuzz"); });
  if (!captions) return 0;
  for (const auto& [name, caption] : *captions) fuzz::must(name.find('/') == std::string::npos);
  return 0;
}
