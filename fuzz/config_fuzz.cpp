#include "fuzz/invariant.h"
#include "lamina/base/json.h"
#include "lamina/family/family.h"
#include "lamina/family/unet_layout.h"

namespace {

void declare(const lamina::Json& config) {
  using namespace lamina;
  const auto blueprint =
      fuzz::accepted([&] { return architecture_of(config, "fuzz").blueprint(config, "fuzz"); });
  if (!blueprint) return;
  fuzz::must(blueprint->stack.empty() ||
             blueprint->parts.size() == 2 * static_cast<size_t>(blueprint->blocks));
  for (const Slot& slot : blueprint->slots) {
    fuzz::must(!slot.name.empty() && slot.part < static_cast<int>(blueprint->parts.size()));
    fuzz::must(slot.part < 0 || blueprint->parts[static_cast<size_t>(slot.part)].present);
    for (const Axis& axis : slot.axes) fuzz::must(axis.size() > 0);
  }
  if (blueprint->family != "unet") return;
  const unet::LayoutOptions stock{.wiring = unet::Wiring::stock};
  const unet::Expressed whole = unet::express(config, *blueprint, {}, stock);
  fuzz::must(!whole.possible || whole.renamed.size() <= blueprint->slots.size());
  fuzz::accepted([&] { return unet::choices(config, *blueprint, stock); });
}

}  // namespace

// A config.json, or the header of a GGUF, up to the blueprint of the model.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  const std::string_view input = fuzz::text_of(data, size);
  const Bytes bytes = as_bytes(input);
  if (!gguf::has_magic(bytes)) {
    const auto config = fuzz::accepted([&] { return parse_json(input, "fuzz"); });
    if (config) declare(*config);
    return 0;
  }
  const auto file = fuzz::accepted([&] { return gguf::parse(bytes, "fuzz"); });
  if (!file) return 0;
  for (const Architecture& architecture : architectures()) {
    for (const GgufDialect& dialect : architecture.dialects) {
      const auto config = fuzz::accepted([&] { return dialect.config(*file, bytes, "fuzz"); });
      if (config) declare(*config);
    }
  }
  return 0;
}
