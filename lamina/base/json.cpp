#include "lamina/base/json.h"

#include <algorithm>
#include <set>
#include <vector>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace {

size_t line_of(std::string_view text, size_t position) {
  return 1 +
         static_cast<size_t>(std::count(text.begin(), text.begin() + std::min(position, text.size()), '\n'));
}

// Builds the document while it holds the rules that nlohmann's own parser leaves open: depth, duplicate keys,
// and unsigned numbers above 2^63-1.
class StrictReader : public nlohmann::json_sax<Json> {
 public:
  StrictReader(std::string_view text, std::string_view what, const JsonLimits& limits)
      : text_(text), what_(what), limits_(limits) {}

  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(int64_t value) override { return put(value); }
  bool number_unsigned(uint64_t value) override {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      fail("{}: the number {} is too large for an integer of 64 bits", what_, value);
    }
    return put(static_cast<int64_t>(value));
  }
  bool number_float(double value, const std::string&) override { return put(value); }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(Json::binary_t&) override { return false; }

  bool start_object(size_t) override { return open(Json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }
  bool key(std::string& value) override {
    if (!keys_.back().insert(value).second)
      fail("{}: the key {} stands twice in one object", what_, in_quotes(value));
    key_ = std::move(value);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // `position` counts what was read; the end of the text counts as one character.
    if (position > text_.size())
      fail("{}: not valid JSON: it ends in the middle; was the file cut off?", what_);
    const std::string_view message = error.what();
    fail("{}: line {}: not valid JSON: {}", what_, line_of(text_, position),
         message.find("UTF-8") != std::string_view::npos ? "a string is not UTF-8"
         : message.find("overflow") != std::string_view::npos
             ? "a number is too large"
             : "unexpected character " + in_quotes(text_.substr(position ? position - 1 : 0, 1)));
  }

 private:
  Json* place(Json value) {
    if (++values_ > limits_.values) fail("{}: holds more than the {} values allowed", what_, limits_.values);
    if (stack_.empty()) return &(root_ = std::move(value));
    Json& top = *stack_.back();
    if (top.is_array()) return &top.emplace_back(std::move(value));
    return &(top.get_ref<Json::object_t&>().emplace_back(std::move(key_), std::move(value)).second);
  }
  bool put(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (stack_.size() >= limits_.depth) fail("{}: nested deeper than {} levels", what_, limits_.depth);
    stack_.push_back(place(std::move(value)));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  std::string_view text_, what_;
  const JsonLimits& limits_;
  Json root_;
  std::vector<Json*> stack_;
  std::vector<std::set<std::string, std::less<>>> keys_;
  std::string key_;
  size_t values_ = 0;
};

const Json* find(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(std::string(key));
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

// A value in a message: whole when it is short.
std::string shown(const Json& value) {
  constexpr size_t longest = 60;
  std::string text = value.dump();
  if (text.size() <= longest) return text;
  text.resize(longest);
  while (!is_utf8(text)) text.pop_back();
  return text + "...";
}

int64_t as_integer(const Json& value, std::string_view key, std::string_view what, IntegerRange range) {
  if (!value.is_number_integer())
    fail("{}: \"{}\" is {} where an integer was expected", what, key, shown(value));
  const auto number = value.get<int64_t>();
  if (number < range.min || number > range.max) {
    fail("{}: \"{}\" is {}, outside {} to {}", what, key, number, range.min, range.max);
  }
  return number;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view what, const JsonLimits& limits) {
  if (text.size() > limits.bytes)
    fail("{}: {} of JSON are more than the {} allowed", what, human_bytes(text.size()),
         human_bytes(limits.bytes));
  if (trim(text).empty()) fail("{}: is empty where JSON was expected", what);
  if (text.find('\0') != std::string_view::npos) fail("{}: not valid JSON: it holds a NUL byte", what);
  StrictReader reader(text, what, limits);
  if (!Json::sax_parse(text, &reader)) fail("{}: not valid JSON", what);
  return reader.take();
}

bool json_has(const Json& object, std::string_view key) {
  return find(object, key) != nullptr;
}

int64_t json_integer(const Json& object, std::string_view key, std::string_view what, IntegerRange range) {
  const Json* value = find(object, key);
  if (!value) fail("{}: \"{}\" is missing", what, key);
  return as_integer(*value, key, what, range);
}

int64_t json_integer_or(const Json& object, std::string_view key, int64_t otherwise, std::string_view what,
                        IntegerRange range) {
  const Json* value = find(object, key);
  return value ? as_integer(*value, key, what, range) : otherwise;
}

double json_number_or(const Json& object, std::string_view key, double otherwise, std::string_view what) {
  const Json* value = find(object, key);
  if (!value) return otherwise;
  if (!value->is_number()) fail("{}: \"{}\" is {} where a number was expected", what, key, shown(*value));
  return value->get<double>();
}

bool json_bool_or(const Json& object, std::string_view key, bool otherwise, std::string_view what) {
  const Json* value = find(object, key);
  if (!value) return otherwise;
  if (!value->is_boolean())
    fail("{}: \"{}\" is {} where true or false was expected", what, key, shown(*value));
  return value->get<bool>();
}

std::string json_string(const Json& object, std::string_view key, std::string_view what) {
  const Json* value = find(object, key);
  if (!value) fail("{}: \"{}\" is missing", what, key);
  if (!value->is_string()) fail("{}: \"{}\" is {} where a text was expected", what, key, shown(*value));
  return value->get<std::string>();
}

std::string json_string_or(const Json& object, std::string_view key, std::string_view otherwise,
                           std::string_view what) {
  return find(object, key) ? json_string(object, key, what) : std::string(otherwise);
}

void check_keys(const Json& json, std::initializer_list<std::string_view> known, std::string_view what) {
  for (const auto& [key, value] : json.items()) {
    if (std::ranges::find(known, key) == known.end())
      fail("{}: the key {} is not known", what, in_quotes(key));
  }
}

}  // namespace lamina
