// How the parts of a tokenizer.json are read: each kind of part has one table from its "type" to a maker.
// A type that is not in the table is an error that names it: a part left out would silently change the
// tokens.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/error.h"
#include "lamina/base/json.h"
#include "lamina/base/text.h"
#include "lamina/data/pattern.h"

namespace lamina {

template <class Part>
struct ComponentType {
  std::string_view name;
  Part (*make)(const Json& component, std::string_view what);
};

template <class Part>
Part make_component(std::string_view kind, std::span<const ComponentType<Part>> types, const Json& component,
                    std::string_view what) {
  const std::string name = json_string(component, "type", fmt::format("{}: a {}", what, kind));
  const auto type = std::find_if(types.begin(), types.end(), [&](const auto& t) { return t.name == name; });
  if (type != types.end()) return type->make(component, what);
  std::vector<std::string_view> names;
  for (const auto& t : types) names.push_back(t.name);
  fail("{}: the {} {} is not supported; the supported ones are {}", what, kind, in_quotes(name),
       fmt::join(names, ", "));
}

// Collects the parts of a "Sequence", under `key`; a Sequence in it lends its own, which means the same.
inline void collect_parts(std::string_view key, const Json& component, std::string_view what,
                          std::vector<const Json*>& parts) {
  if (!json_has(component, key) || !component.at(std::string(key)).is_array()) {
    fail("{}: a Sequence has no list \"{}\"", what, key);
  }
  constexpr size_t most = 64;  // real ones have up to five; bounds the time of a text, and the stack
  for (const Json& part : component.at(std::string(key))) {
    if (part.is_object() && part.value("type", Json()) == "Sequence")
      collect_parts(key, part, what, parts);
    else
      parts.push_back(&part);
    if (parts.size() > most) fail("{}: a Sequence has more than {} \"{}\"", what, most, key);
  }
}

template <class Part>
std::vector<Part> make_components(std::string_view key, const Json& component, std::string_view what,
                                  Part (*make)(const Json&, std::string_view)) {
  std::vector<const Json*> components;
  collect_parts(key, component, what, components);
  std::vector<Part> parts;
  for (const Json* part : components) parts.push_back(make(*part, what));
  return parts;
}

// {"String": "..."} or {"Regex": "..."} under "pattern".
inline Pattern make_pattern(const Json& component, std::string_view what) {
  const Json pattern = component.value("pattern", Json());
  if (json_has(pattern, "Regex")) return Pattern(json_string(pattern, "Regex", what), what);
  return Pattern::literal(json_string(pattern, "String", fmt::format("{}: a pattern", what)), what);
}

// How long a text of `bytes` may become. Unicode's longest decomposition is elevenfold; parts that each
// double a text would otherwise fill the memory after thirty of them.
inline size_t longest_from(size_t bytes) {
  return 16 * bytes + 4096;
}

inline void check_growth(size_t bytes, size_t longest) {
  if (bytes > longest)
    fail("the tokenizer makes more than {} of a text that is sixteen times shorter; is its file damaged?",
         human_bytes(longest));
}

inline std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content) {
  const size_t longest = longest_from(text.size());
  std::string out;
  size_t done = 0;
  for (size_t from = 0; from <= text.size();) {
    const auto match = pattern.find(text, from);
    if (!match) break;
    out += text.substr(done, match->begin - done);
    out += content;
    check_growth(out.size(), longest);
    done = match->end;
    from = match->end;
    if (match->begin == match->end) {  // step over one code point, whole
      ++from;
      while (from < text.size() && (text[from] & 0xC0) == 0x80) ++from;
    }
  }
  return out += text.substr(std::min(done, text.size()));
}

}  // namespace lamina
