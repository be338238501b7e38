#include <algorithm>
#include <string_view>

#include "fuzz/invariant.h"
#include "lamina/base/text.h"
#include "lamina/data/clip_vocabulary.h"
#include "lamina/data/prompt_tokenizer.h"

namespace {

// What stands before the next empty line, which is taken out of `rest`.
std::string_view next(std::string_view& rest) {
  const size_t gap = std::min(rest.find("\n\n"), rest.size());
  const std::string_view part = rest.substr(0, gap);
  rest.remove_prefix(std::min(gap + 2, rest.size()));
  return part;
}

}  // namespace

// The input is a vocab.json, a merges.txt, a tokenizer_config.json, a special_tokens_map.json and a prompt,
// with empty lines between.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  std::string_view rest = fuzz::text_of(data, size);
  const std::string_view vocabulary = next(rest), merges = next(rest), config = next(rest), map = next(rest);
  const auto prompts = fuzz::accepted([&] {
    const auto json = [](std::string_view text) { return text.empty() ? Json() : parse_json(text, "fuzz"); };
    return prompt_tokenizer(clip_tokenizer({.vocabulary = json(vocabulary),
                                            .merges = merges,
                                            .config = json(config),
                                            .special_tokens = json(map)},
                                           "fuzz"),
                            "fuzz");
  });
  if (!prompts) return 0;
  const auto ids = fuzz::accepted([&] { return prompts->ids(rest); });
  if (!ids) return 0;
  fuzz::must(static_cast<int64_t>(ids->size()) == prompts->length);
  for (const int32_t id : *ids) fuzz::must(id >= 0 && id < prompts->tokenizer.size());
  const auto decoded = fuzz::accepted([&] { return prompts->tokenizer.decode(*ids); });
  if (decoded) fuzz::must(is_utf8(*decoded));
  return 0;
}
