#include "lamina/image/captions.h"

#include "lamina/base/error.h"
#include "lamina/base/json.h"
#include "lamina/base/text.h"

namespace lamina {

std::map<std::string, std::string> parse_captions(std::string_view lines, std::string_view what) {
  std::map<std::string, std::string> captions;
  int64_t number = 0;
  for (const std::string& line : split(lines, '\n')) {
    ++number;
    if (trim(line).empty()) continue;
    const std::string where = fmt::format("{}, line {}", what, number);
    const Json json = parse_json(line, where);
    if (!json.is_object()) fail("{}: is not an object", where);
    const std::string name = json_string(json, "file_name", where);
    if (name.find('/') != std::string::npos) fail("{}: {} lies in another folder", where, in_quotes(name));
    if (!captions.emplace(name, json_string(json, "text", where)).second)
      fail("{}: {} stands twice", where, in_quotes(name));
  }
  return captions;
}

}  // namespace lamina
