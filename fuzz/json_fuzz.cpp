#include "fuzz/invariant.h"
#include "lamina/base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  const auto json = fuzz::accepted([&] { return parse_json(fuzz::text_of(data, size), "fuzz"); });
  if (!json) return 0;
  const std::string text = json->dump();
  const Json back = parse_json(text, "written again");
  fuzz::must(back == *json && back.dump() == text);
  fuzz::accepted([&] { return json_integer_or(*json, "a", 0, "fuzz"); });
  fuzz::accepted([&] { return json_number_or(*json, "a", 0, "fuzz"); });
  fuzz::accepted([&] { return json_string_or(*json, "a", "", "fuzz"); });
  return 0;
}
