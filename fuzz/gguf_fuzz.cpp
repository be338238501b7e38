#include <string>
#include <vector>

#include "fuzz/invariant.h"
#include "lamina/format/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  const Bytes bytes = as_bytes(fuzz::text_of(data, size));
  const auto file = fuzz::accepted([&] { return gguf::parse(bytes, "fuzz"); });
  if (!file) return 0;

  std::string data_section;
  if (file->data_start < size) data_section = as_text(bytes.subspan(file->data_start));
  for (const gguf::TensorInfo& tensor : file->tensors) {
    fuzz::must(tensor.offset <= data_section.size() && tensor.bytes <= data_section.size() - tensor.offset);
    if (!is_floating(tensor.dtype)) continue;
    std::vector<float> values(element_count(tensor.shape, tensor.name));
    decode_f32(tensor.dtype, as_bytes(data_section).subspan(tensor.offset, tensor.bytes), values);
  }

  const std::string written = gguf::write_header(*file);
  fuzz::must(written.size() == file->data_start);
  const std::string again = written + data_section;
  fuzz::must(gguf::write_header(gguf::parse(as_bytes(again), "written again")) == written);
  return 0;
}
