// One description of an options struct serves the flags, the help, the plan's record and the report. A struct
// says
//   template <class V> void fields(V& visit) { visit(remove, "remove", "how many parts to cut, N or P%"); }
// and each visitor does its own thing with (field, name, help).
#pragma once

#include "lamina/base/json.h"

namespace lamina {

template <class Options>
Json options_to_json(Options options) {
  Json json = Json::object();
  const auto visit = [&json](const auto& field, const char* name, const char* /*help*/) {
    json[name] = field;
  };
  options.fields(visit);
  return json;
}

}  // namespace lamina
