#include "lamina/data/template_value.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/unicode.h"

namespace lamina::jinja {

namespace {

constexpr size_t deepest = 80;

template <class Items, class Element>
size_t depth_around(const Items& items, const Element& element) {
  size_t depth = 1;
  for (const auto& item : items) {
    const Value& value = element(item);
    if (value.as<std::shared_ptr<const Callable>>() || value.as<std::shared_ptr<Namespace>>()) {
      fail("a macro or a namespace cannot stand in a list or a dict");
    }
    depth = std::max(depth, 1 + value.depth());
  }
  if (depth > deepest) fail("lists and dicts nest deeper than {} levels", deepest);
  return depth;
}

std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{}", number);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string python_quotes(std::string_view text) {
  const char quote =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == quote || c == '\\')
      out += {'\\', c};
    else if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (byte < 0x20 || byte == 0x7F)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  return out += quote;
}

class JsonWriter {
 public:
  explicit JsonWriter(const DumpOptions& options) : options_(options) {
    const bool one_line = options.indent < 0;
    if (options_.item_separator.empty()) options_.item_separator = one_line ? ", " : ",";
    if (options_.key_separator.empty()) options_.key_separator = ": ";
  }

  std::string take() { return std::move(out_); }

  void write(const Value& value, int64_t level = 0) {
    if (const auto* text = value.text()) {
      write_text(*text);
    } else if (value.is_none()) {
      out_ += "null";
    } else if (const auto* boolean = value.as<bool>()) {
      out_ += *boolean ? "true" : "false";
    } else if (value.is_number()) {
      out_ += value.str();
    } else if (const List* list = value.list()) {
      write_items('[', list->items, ']', level, [&](const Value& item) { write(item, level + 1); });
    } else if (const Dict* dict = value.dict()) {
      auto items = dict->items;
      const auto by_key = [](const auto& a, const auto& b) { return a.first < b.first; };
      if (options_.sort_keys) std::sort(items.begin(), items.end(), by_key);
      write_items('{', items, '}', level, [&](const auto& item) {
        write_text(item.first);
        out_ += options_.key_separator;
        write(item.second, level + 1);
      });
    } else {
      fail("a value of the type {} cannot be written as JSON", value.type_name());
    }
  }

 private:
  void break_line(int64_t level) {
    if (options_.indent >= 0) out_ += '\n' + std::string(static_cast<size_t>(options_.indent * level), ' ');
  }

  template <class Items, class Write>
  void write_items(char open, const Items& items, char close, int64_t level, const Write& write_item) {
    out_ += open;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += options_.item_separator;
      break_line(level + 1);
      write_item(items[i]);
    }
    if (!items.empty()) break_line(level);
    out_ += close;
  }

  void write_text(std::string_view text) {
    const Json json = text;
    out_ += json.dump(-1, ' ', options_.ensure_ascii);
  }

  DumpOptions options_;
  std::string out_;
};

}  // namespace

Value Value::list(std::vector<Value> items) {
  const size_t depth = depth_around(items, [](const Value& item) -> const Value& { return item; });
  return std::make_shared<const List>(List{std::move(items), false, depth});
}

Value Value::tuple(std::vector<Value> items) {
  const size_t depth = depth_around(items, [](const Value& item) -> const Value& { return item; });
  return std::make_shared<const List>(List{std::move(items), true, depth});
}

Value Value::dict(std::vector<std::pair<std::string, Value>> items) {
  const size_t depth = depth_around(items, [](const auto& item) -> const Value& { return item.second; });
  return std::make_shared<const Dict>(Dict{std::move(items), depth});
}

Value Value::callable(Callable function) {
  return std::make_shared<const Callable>(std::move(function));
}

Value Value::from_json(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return json.get<int64_t>();
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      return is_utf8(text) ? text : repair_utf8(text);
    }
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) items.push_back(from_json(item));
      return list(std::move(items));
    }
    case Json::value_t::object: {
      std::vector<std::pair<std::string, Value>> items;
      for (const auto& [key, item] : json.items()) items.emplace_back(repair_utf8(key), from_json(item));
      return dict(std::move(items));
    }
    default:
      return None{};
  }
}

const List* Value::list() const {
  const auto* pointer = as<std::shared_ptr<const List>>();
  return pointer ? pointer->get() : nullptr;
}

const Dict* Value::dict() const {
  const auto* pointer = as<std::shared_ptr<const Dict>>();
  return pointer ? pointer->get() : nullptr;
}

bool Value::is_number() const {
  return as<bool>() || as<int64_t>() || as<double>();
}

double Value::number() const {
  if (const auto* number = as<double>()) return *number;
  return static_cast<double>(integer().value_or(0));
}

std::optional<int64_t> Value::integer() const {
  if (const auto* number = as<int64_t>()) return *number;
  if (const auto* boolean = as<bool>()) return *boolean ? 1 : 0;
  return std::nullopt;
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (const auto* t = text()) return !t->empty();
  if (const List* l = list()) return !l->items.empty();
  if (const Dict* d = dict()) return !d->items.empty();
  return true;
}

std::string_view Value::type_name() const {
  constexpr std::string_view names[] = {"undefined", "None", "bool", "int",       "float",
                                        "str",       "list", "dict", "namespace", "function"};
  return names[data_.index()];
}

std::string Value::str() const {
  if (is_undefined()) return "";
  if (const auto* t = text()) return *t;
  return repr();
}

std::string Value::repr() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "None";
  if (const auto* boolean = as<bool>()) return *boolean ? "True" : "False";
  if (const auto* number = as<int64_t>()) return std::to_string(*number);
  if (const auto* number = as<double>()) return float_text(*number);
  if (const auto* t = text()) return python_quotes(*t);
  if (const List* l = list()) {
    std::string out = l->is_tuple ? "(" : "[";
    for (size_t i = 0; i < l->items.size(); ++i) out += (i ? ", " : "") + l->items[i].repr();
    if (l->is_tuple && l->items.size() == 1) out += ',';
    return out += l->is_tuple ? ")" : "]";
  }
  if (const Dict* d = dict()) {
    std::string out = "{";
    for (size_t i = 0; i < d->items.size(); ++i) {
      out += (i ? ", " : "") + python_quotes(d->items[i].first) + ": " + d->items[i].second.repr();
    }
    return out += "}";
  }
  return fmt::format("<{}>", type_name());
}

size_t Value::depth() const {
  if (const List* l = list()) return l->depth;
  if (const Dict* d = dict()) return d->depth;
  return 0;
}

const Value* Dict::find(std::string_view key) const {
  const auto it =
      std::find_if(items.begin(), items.end(), [&](const auto& item) { return item.first == key; });
  return it == items.end() ? nullptr : &it->second;
}

bool operator==(const Value& a, const Value& b) {
  if (a.integer() && b.integer()) return *a.integer() == *b.integer();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.data_.index() != b.data_.index()) return false;
  if (a.text()) return *a.text() == *b.text();
  if (a.list()) return a.list()->items == b.list()->items;
  if (a.dict()) {
    const auto& left = a.dict()->items;
    return left.size() == b.dict()->items.size() &&
           std::all_of(left.begin(), left.end(), [&](const auto& item) {
             const Value* other = b.dict()->find(item.first);
             return other && *other == item.second;
           });
  }
  if (const auto* left = a.as<std::shared_ptr<Namespace>>())
    return *left == *b.as<std::shared_ptr<Namespace>>();
  return a.is_undefined() || a.is_none();
}

bool operator<(const Value& a, const Value& b) {
  if (a.integer() && b.integer()) return *a.integer() < *b.integer();
  if (a.is_number() && b.is_number()) return a.number() < b.number();
  if (a.text() && b.text()) return *a.text() < *b.text();  // UTF-8 sorts as its code points do
  if (a.list() && b.list()) {
    return std::lexicographical_compare(a.list()->items.begin(), a.list()->items.end(),
                                        b.list()->items.begin(), b.list()->items.end());
  }
  fail("values of the types {} and {} cannot be ordered", a.type_name(), b.type_name());
}

std::string dump_json(const Value& value, const DumpOptions& options) {
  JsonWriter writer(options);
  writer.write(value);
  return writer.take();
}

}  // namespace lamina::jinja
