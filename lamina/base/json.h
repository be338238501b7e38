// JSON with the rules that outside bytes need: bounded depth and size, no duplicate keys, finite numbers,
// valid UTF-8, and integers that are integers. Keys keep their order, so that a file written back looks as it
// was.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace lamina {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t depth = 64;
  size_t bytes = size_t{256} << 20;
  size_t values =
      size_t{1} << 25;  // bounds the memory: a value takes two bytes of text but up to a hundred here
};

// Throws Error: "<what>: line 3: the key \"a\" stands twice in one object" and the like.
Json parse_json(std::string_view text, std::string_view what, const JsonLimits& limits = {});

struct IntegerRange {
  int64_t min = std::numeric_limits<int64_t>::min();
  int64_t max = std::numeric_limits<int64_t>::max();
};

// Readers of one key of an object. `what` names the file for the message. A missing key throws, except with
// `_or`; null counts as missing (transformers writes null for "not set").
int64_t json_integer(const Json& object, std::string_view key, std::string_view what,
                     IntegerRange range = {});
int64_t json_integer_or(const Json& object, std::string_view key, int64_t otherwise, std::string_view what,
                        IntegerRange range = {});
double json_number_or(const Json& object, std::string_view key, double otherwise, std::string_view what);
bool json_bool_or(const Json& object, std::string_view key, bool otherwise, std::string_view what);
std::string json_string(const Json& object, std::string_view key, std::string_view what);
std::string json_string_or(const Json& object, std::string_view key, std::string_view otherwise,
                           std::string_view what);
// True if the key is there and not null.
bool json_has(const Json& object, std::string_view key);

// Throws Error when an object has another key than these.
void check_keys(const Json& json, std::initializer_list<std::string_view> known, std::string_view what);

}  // namespace lamina
