// What templates bring along from Jinja2 and Python: filters, tests, methods of values, and operators.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "lamina/data/template_value.h"

namespace lamina::jinja {

// Bounds the work and the memory of one rendering.
class Budget {
 public:
  void step();                // throws Error after too many
  void charge(size_t bytes);  // for values as they are made; throws Error after too many

 private:
  uint64_t steps_ = 0;
  uint64_t bytes_ = 0;
};

// All throw Error for unknown names and for arguments that do not fit.
Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments, Budget& budget);
bool apply_test(std::string_view name, const Value& value, const Arguments& arguments);
// The bound method, or nothing if values of this type have no such method.
std::optional<Value> method_of(const Value& value, std::string_view name, Budget& budget);
Value apply_operator(std::string_view sign, const Value& left, const Value& right, Budget& budget);

// The arguments of a builtin, by position or by name.
class Reader {
 public:
  Reader(const Arguments& arguments, std::initializer_list<std::string_view> names);
  const Value* find(std::string_view name) const;  // null when it was left out
  Value value(std::string_view name, Value otherwise) const;
  std::string text(std::string_view name, std::string_view otherwise) const;
  int64_t integer(std::string_view name, int64_t otherwise) const;
  bool truth(std::string_view name, bool otherwise) const;
  const Value& required(std::string_view name) const;
  std::string required_text(std::string_view name) const;

 private:
  const Arguments& arguments_;
  std::vector<std::string_view> names_;
};

// The items of a list, the keys of a dict, the characters of a text; nothing for undefined. Throws Error for
// others.
std::vector<Value> items_of(const Value& value, Budget& budget);
// value[index] and value.name: undefined when there is none.
Value item_of(const Value& value, const Value& index);
Value slice_of(const Value& value, const Value& begin, const Value& end, const Value& step, Budget& budget);
bool contains(const Value& container, const Value& item);
Value range(const Arguments& arguments, Budget& budget);

}  // namespace lamina::jinja
