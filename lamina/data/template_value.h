// Values of the template language, with Python's notions of truth, equality, order and printing.
// Immutable but for namespaces. A list or dict knows how deep it nests, which bounds every walk over it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lamina/base/json.h"

namespace lamina::jinja {

class Value;
struct Arguments;

struct Undefined {
  std::string name;  // of what was asked for
};
struct None {};
struct List;
struct Dict;
struct Namespace;
using Callable = std::function<Value(const Arguments&)>;

class Value {
 public:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::string, std::shared_ptr<const List>,
                   std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, std::shared_ptr<const Callable>>;

  Value() : data_(Undefined{}) {}
  template <class T>
    requires std::is_constructible_v<Data, T>
  Value(T&& data) : data_(std::forward<T>(data)) {}
  Value(std::string_view text) : data_(std::string(text)) {}
  Value(const char* text) : data_(std::string(text)) {}
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  static Value dict(std::vector<std::pair<std::string, Value>> items);
  static Value callable(Callable function);
  static Value from_json(const Json& json);

  template <class T>
  const T* as() const {
    return std::get_if<T>(&data_);
  }
  const std::string* text() const { return as<std::string>(); }
  const List* list() const;
  const Dict* dict() const;
  bool is_undefined() const { return as<Undefined>() != nullptr; }
  bool is_none() const { return as<None>() != nullptr; }
  bool is_number() const;                  // bools are numbers, as in Python
  double number() const;                   // of a number
  std::optional<int64_t> integer() const;  // of an integer or a bool

  bool truth() const;
  std::string_view type_name() const;  // as Python calls it
  std::string str() const;             // what {{ value }} prints
  std::string repr() const;            // what it prints inside a list
  size_t depth() const;                // how deep lists and dicts nest

  friend bool operator==(const Value& a, const Value& b);
  // Throws Error for values that have no order between them.
  friend bool operator<(const Value& a, const Value& b);

 private:
  Data data_;
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  size_t depth = 1;
};

struct Dict {
  std::vector<std::pair<std::string, Value>> items;  // in order
  size_t depth = 1;
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct DumpOptions {
  int64_t indent = -1;  // negative: on one line
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::string item_separator = {};  // empty: as Python's json.dumps has it
  std::string key_separator = {};
};
std::string dump_json(const Value& value, const DumpOptions& options);

}  // namespace lamina::jinja
