#include <string>

#include "fuzz/invariant.h"
#include "lamina/format/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  const std::string_view file = fuzz::text_of(data, size);
  const auto header = fuzz::accepted([&] { return safetensors::parse_header(as_bytes(file), "fuzz"); });
  if (!header) return 0;

  uint64_t end = 0;
  for (const auto& tensor : header->tensors) {
    fuzz::must(tensor.begin == end);
    end = tensor.end;
  }
  fuzz::must(header->data_start + end == size);

  const std::string written = safetensors::write_header(*header);
  const std::string again = written + std::string(file.substr(header->data_start));
  const auto back = safetensors::parse_header(as_bytes(again), "written again");
  fuzz::must(back.order == header->order && back.metadata == header->metadata);
  fuzz::must(safetensors::write_header(back) == written);
  return 0;
}
