#include <algorithm>
#include <string_view>

#include "fuzz/invariant.h"
#include "lamina/base/text.h"
#include "lamina/data/tokenizer.h"

// The input is a tokenizer.json, an empty line, and a text to encode.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  const std::string_view input = fuzz::text_of(data, size);
  const size_t gap = std::min(input.find("\n\n"), input.size());
  const std::string_view text = input.substr(std::min(gap + 2, input.size()));
  const auto json = fuzz::accepted([&] { return parse_json(input.substr(0, gap), "fuzz"); });
  if (!json) return 0;
  const auto tokenizer = fuzz::accepted([&] { return Tokenizer::from_json(*json, nullptr, "fuzz"); });
  if (!tokenizer) return 0;

  const auto ids = fuzz::accepted([&] { return tokenizer->encode(text); });
  if (!ids) return 0;
  for (const int32_t id : *ids) fuzz::must(id >= 0);
  const auto decoded = fuzz::accepted([&] { return tokenizer->decode(*ids); });
  if (decoded) fuzz::must(is_utf8(*decoded));
  fuzz::accepted([&] {
    TokenStream stream(*tokenizer);
    for (const int32_t id : *ids) fuzz::must(is_utf8(stream.push(id)));
    return stream.finish();
  });
  return 0;
}
