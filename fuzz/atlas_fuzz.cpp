#include "fuzz/invariant.h"
#include "lamina/atlas/atlas.h"
#include "lamina/base/file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  using namespace lamina::atlas;
  const auto atlas = fuzz::accepted([&] { return Atlas::over(as_bytes(fuzz::text_of(data, size)), "fuzz"); });
  if (!atlas) return 0;
  const Header& header = atlas->header();
  fuzz::must(header.blocks > 0 && header.neurons > 0 && header.vocabulary > 0);
  for (const Set& set : atlas->sets()) {
    for (const int block : {0, 1, static_cast<int>(header.blocks) - 1}) {
      fuzz::accepted([&] {
        const auto shown = atlas->show(set, {block, 1});
        if (shown) fuzz::must(static_cast<int64_t>(shown->top.size()) <= header.top);
        return 0;
      });
    }
    fuzz::accepted([&] { return atlas->by_kurtosis(set, -1, 20); });
    fuzz::accepted([&] { return atlas->by_kurtosis(set, 0, 20); });
    fuzz::accepted([&] { return atlas->summary(set); });
  }
  fuzz::accepted([&] { return atlas->angles({0, 1}); });
  fuzz::accepted([&] { return atlas->token_text(1); });
  fuzz::accepted([&] { return atlas->tokens_like("d", 20); });
  fuzz::accepted([&] {
    const Found found = atlas->find("dog", {});
    for (const Hit& hit : found.hits)
      fuzz::must(hit.rank >= 1 && hit.id.block >= 0 && hit.id.block < header.blocks);
    for (const Control& control : found.controls)
      fuzz::must(control.above_tokens >= 0 && control.above_tokens <= 1);
    return 0;
  });
  if (header.neurons <= 1 << 12) fuzz::accepted([&] { return compare(*atlas, *atlas); });
  return 0;
}
