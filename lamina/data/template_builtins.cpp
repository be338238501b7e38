#include "lamina/data/template_builtins.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/unicode.h"

namespace lamina::jinja {

namespace {

using Items = std::vector<Value>;

Value charged(std::string text, Budget& budget) {
  budget.charge(text.size());
  return text;
}

Value charged(Items items, Budget& budget) {
  budget.charge(items.size() * sizeof(Value));
  return Value::list(std::move(items));
}

const std::string& text_of(const Value& value, std::string_view purpose) {
  if (!value.text()) fail("{} needs a str, not {}", purpose, value.type_name());
  return *value.text();
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t length = first_code_point(text).length;
    out.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return out;
}

// Python's str.strip: white space, or any of `chars`.
enum class Side { left = 1, right = 2, both = 3 };
std::string_view strip(std::string_view text, const Value* chars, Side side) {
  const bool left = side != Side::right, right = side != Side::left;
  if (!chars || chars->is_none()) {
    // Python's white space has the separators U+001C to U+001F besides the property White_Space.
    const auto is_blank = [](char32_t c) { return is_whitespace(c) || (c >= 0x1C && c <= 0x1F); };
    while (left && !text.empty() && is_blank(first_code_point(text).value))
      text.remove_prefix(first_code_point(text).length);
    while (right && !text.empty() && is_blank(last_code_point(text).value))
      text.remove_suffix(last_code_point(text).length);
    return text;
  }
  const std::string& set = text_of(*chars, "strip");
  const auto is_in_set = [&](CodePoint c) { return set.find(utf8(c.value)) != std::string::npos; };
  while (left && !text.empty() && is_in_set(first_code_point(text)))
    text.remove_prefix(first_code_point(text).length);
  while (right && !text.empty() && is_in_set(last_code_point(text)))
    text.remove_suffix(last_code_point(text).length);
  return text;
}

std::string capitalized(std::string_view text) {
  if (text.empty()) return {};
  const size_t length = first_code_point(text).length;
  return uppercase(text.substr(0, length)) + lowercase(text.substr(length));
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to, int64_t count,
                     Budget& budget) {
  if (count < 0) count = std::numeric_limits<int64_t>::max();
  std::string out;
  size_t done = 0;
  for (; count > 0; --count) {
    size_t at = done;
    if (from.empty()) {  // before each character and at the end
      out += to;
      if (done == text.size()) return out;
      at = first_code_point(text.substr(done)).length;
      out += text.substr(done, at);
      done += at;
    } else {
      at = text.find(from, done);
      if (at == std::string_view::npos) break;
      out += text.substr(done, at - done);
      out += to;
      done = at + from.size();
    }
    budget.charge(to.size());
  }
  return out += text.substr(done);
}

// ---- the fields of items: map(attribute="function.name")

Value field_of(const Value& value, std::string_view path) {
  Value current = value;
  for (const std::string& part : split(path, '.')) {
    int64_t index = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = error == std::errc() && end == part.data() + part.size();
    current = item_of(current, is_index ? Value(index) : Value(part));
  }
  return current;
}

// ---- filters

Value filter_default(const Value& value, const Arguments& arguments, Budget&) {
  const Reader read(arguments, {"default_value", "boolean"});
  const bool missing = value.is_undefined() || (read.truth("boolean", false) && !value.truth());
  return missing ? read.value("default_value", "") : value;
}

Value filter_trim(const Value& value, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"chars"});
  return charged(std::string(strip(value.str(), read.find("chars"), Side::both)), budget);
}

Value filter_tojson(const Value& value, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  DumpOptions options{.indent = read.integer("indent", -1),
                      .ensure_ascii = read.truth("ensure_ascii", false),
                      .sort_keys = read.truth("sort_keys", false)};
  if (options.indent > 100) fail("tojson: an indent of {} is too large", options.indent);
  const Value* separators = read.find("separators");
  if (separators && !separators->is_none()) {
    const List* pair = separators->list();
    if (!pair || pair->items.size() != 2) fail("tojson: separators must be two texts");
    options.item_separator = text_of(pair->items[0], "tojson");
    options.key_separator = text_of(pair->items[1], "tojson");
  }
  return charged(dump_json(value, options), budget);
}

Value filter_length(const Value& value, const Arguments&, Budget&) {
  if (value.text()) return static_cast<int64_t>(count_code_points(*value.text()));
  if (value.list()) return static_cast<int64_t>(value.list()->items.size());
  if (value.dict()) return static_cast<int64_t>(value.dict()->items.size());
  if (value.is_undefined()) return int64_t{0};
  fail("a value of the type {} has no length", value.type_name());
}

Value filter_upper(const Value& value, const Arguments&, Budget& budget) {
  return charged(uppercase(value.str()), budget);
}
Value filter_lower(const Value& value, const Arguments&, Budget& budget) {
  return charged(lowercase(value.str()), budget);
}
Value filter_string(const Value& value, const Arguments&, Budget& budget) {
  return charged(value.str(), budget);
}
Value filter_safe(const Value& value, const Arguments&, Budget&) {
  return value;
}

Value filter_capitalize(const Value& value, const Arguments&, Budget& budget) {
  return charged(capitalized(value.str()), budget);
}

Value filter_title(const Value& value, const Arguments&, Budget& budget) {
  const std::string text = value.str();
  std::string out;
  bool begins = true;
  for (const std::string_view character : characters(text)) {
    out += begins ? uppercase(character) : lowercase(character);
    begins = std::string_view(" \t\n\r\v\f-([{<").find(character) != std::string_view::npos;
  }
  return charged(std::move(out), budget);
}

Value filter_join(const Value& value, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"d", "attribute"});
  const std::string gap = read.value("d", "").str();
  const Value* attribute = read.find("attribute");
  std::string out;
  bool first = true;
  for (const Value& item : items_of(value, budget)) {
    if (!first) out += gap;
    first = false;
    const std::string text = (attribute ? field_of(item, attribute->str()) : item).str();
    budget.charge(gap.size() + text.size());
    out += text;
  }
  return out;
}

Value filter_items(const Value& value, const Arguments&, Budget& budget) {
  if (value.is_undefined()) return Value::list({});
  if (!value.dict()) fail("items needs a dict, not {}", value.type_name());
  Items items;
  for (const auto& [key, item] : value.dict()->items) items.push_back(Value::tuple({key, item}));
  return charged(std::move(items), budget);
}

Value filter_dictsort(const Value& value, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"case_sensitive", "by", "reverse"});
  const bool by_value = read.text("by", "key") == "value", fold = !read.truth("case_sensitive", false);
  const Value pairs = filter_items(value, {}, budget);
  Items items = pairs.list()->items;
  const auto key = [&](const Value& pair) -> Value {
    const Value& part = pair.list()->items[by_value ? 1 : 0];
    return fold && part.text() ? Value(lowercase(*part.text())) : part;
  };
  std::vector<std::pair<Value, size_t>> order;
  for (const Value& item : items) order.emplace_back(key(item), order.size());
  const bool reverse = read.truth("reverse", false);
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    if (reverse ? b.first < a.first : a.first < b.first) return true;
    if (reverse ? a.first < b.first : b.first < a.first) return false;
    return a.second < b.second;
  });
  Items sorted;
  for (const auto& [unused, index] : order) sorted.push_back(items[index]);
  return charged(std::move(sorted), budget);
}

Value filter_replace(const Value& value, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"old", "new", "count"});
  return charged(replaced(value.str(), read.required("old").str(), read.required("new").str(),
                          read.integer("count", -1), budget),
                 budget);
}

Value filter_first(const Value& value, const Arguments&, Budget& budget) {
  const Items items = items_of(value, budget);
  return items.empty() ? Value(Undefined{"the first item of nothing"}) : items.front();
}

Value filter_last(const Value& value, const Arguments&, Budget& budget) {
  const Items items = items_of(value, budget);
  return items.empty() ? Value(Undefined{"the last item of nothing"}) : items.back();
}

Value filter_list(const Value& value, const Arguments&, Budget& budget) {
  return charged(items_of(value, budget), budget);
}

Value filter_reverse(const Value& value, const Arguments&, Budget& budget) {
  Items items = items_of(value, budget);
  std::reverse(items.begin(), items.end());
  if (!value.text()) return charged(std::move(items), budget);
  std::string out;
  for (const Value& item : items) out += *item.text();
  return charged(std::move(out), budget);
}

Value filter_sort(const Value& value, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"reverse", "case_sensitive", "attribute"});
  const bool reverse = read.truth("reverse", false), fold = !read.truth("case_sensitive", false);
  const Value* attribute = read.find("attribute");
  const Items items = items_of(value, budget);
  std::vector<std::pair<Value, size_t>> order;
  for (const Value& item : items) {
    Value key = attribute && !attribute->is_none() ? field_of(item, attribute->str()) : item;
    if (fold && key.text()) key = lowercase(*key.text());
    order.emplace_back(std::move(key), order.size());
  }
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    if (reverse ? b.first < a.first : a.first < b.first) return true;
    if (reverse ? a.first < b.first : b.first < a.first) return false;
    return a.second < b.second;
  });
  Items sorted;
  for (const auto& [key, index] : order) sorted.push_back(items[index]);
  return charged(std::move(sorted), budget);
}

Value filter_unique(const Value& value, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"case_sensitive", "attribute"});
  const bool fold = !read.truth("case_sensitive", false);
  const Value* attribute = read.find("attribute");
  Items keys, out;
  for (const Value& item : items_of(value, budget)) {
    Value key = attribute && !attribute->is_none() ? field_of(item, attribute->str()) : item;
    if (fold && key.text()) key = lowercase(*key.text());
    for (size_t i = 0; i < keys.size(); ++i) budget.step();
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    keys.push_back(std::move(key));
    out.push_back(item);
  }
  return charged(std::move(out), budget);
}

Arguments after_first(const Arguments& arguments, size_t count) {
  return {Items(arguments.positional.begin() + static_cast<ptrdiff_t>(count), arguments.positional.end()),
          arguments.named};
}

// map(attribute=...) or map("filter", arguments...)
Value filter_map(const Value& value, const Arguments& arguments, Budget& budget) {
  Items out;
  const bool by_attribute = arguments.positional.empty();
  const Arguments none;
  const Reader read(by_attribute ? arguments : none, {"attribute", "default"});
  for (const Value& item : items_of(value, budget)) {
    budget.step();
    if (by_attribute) {
      Value field = field_of(item, read.required("attribute").str());
      out.push_back(field.is_undefined() ? read.value("default", std::move(field)) : std::move(field));
    } else {
      const std::string& name = text_of(arguments.positional[0], "map");
      out.push_back(apply_filter(name, item, after_first(arguments, 1), budget));
    }
  }
  return charged(std::move(out), budget);
}

enum class Keep { passing, failing };

// select("test", arguments...); without a test, what is true
template <Keep keep>
Value filter_select(const Value& value, const Arguments& arguments, Budget& budget) {
  Items out;
  for (const Value& item : items_of(value, budget)) {
    budget.step();
    const bool passes = arguments.positional.empty() ? item.truth()
                                                     : apply_test(text_of(arguments.positional[0], "select"),
                                                                  item, after_first(arguments, 1));
    if (passes == (keep == Keep::passing)) out.push_back(item);
  }
  return charged(std::move(out), budget);
}

// selectattr("field", "test", arguments...)
template <Keep keep>
Value filter_selectattr(const Value& value, const Arguments& arguments, Budget& budget) {
  if (arguments.positional.empty()) fail("selectattr needs the name of a field");
  const std::string& field = text_of(arguments.positional[0], "selectattr");
  Items out;
  for (const Value& item : items_of(value, budget)) {
    budget.step();
    const Value part = field_of(item, field);
    const bool passes =
        arguments.positional.size() == 1
            ? part.truth()
            : apply_test(text_of(arguments.positional[1], "selectattr"), part, after_first(arguments, 2));
    if (passes == (keep == Keep::passing)) out.push_back(item);
  }
  return charged(std::move(out), budget);
}

Value filter_int(const Value& value, const Arguments& arguments, Budget&) {
  const Reader read(arguments, {"default", "base"});
  const Value otherwise = read.value("default", int64_t{0});
  if (const auto whole = value.integer()) return *whole;
  double number = 0;
  if (const auto* real = value.as<double>()) {
    number = *real;
  } else if (value.text()) {
    std::string_view text = strip(*value.text(), nullptr, Side::both);
    if (text.starts_with('+')) text.remove_prefix(1);
    int64_t whole = 0;
    const auto base = static_cast<int>(std::clamp<int64_t>(read.integer("base", 10), 2, 36));
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), whole, base);
    if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return whole;
    const auto real = std::from_chars(text.data(), text.data() + text.size(), number);
    if (real.ec != std::errc() || real.ptr != text.data() + text.size()) return otherwise;
  } else {
    return otherwise;
  }
  if (!(std::abs(number) < 9e18)) return otherwise;
  return static_cast<int64_t>(number);
}

Value filter_float(const Value& value, const Arguments& arguments, Budget&) {
  const Reader read(arguments, {"default"});
  if (value.is_number()) return value.number();
  if (value.text()) {
    const std::string_view text = strip(*value.text(), nullptr, Side::both);
    double number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return number;
  }
  return read.value("default", 0.0);
}

Value filter_abs(const Value& value, const Arguments&, Budget&) {
  if (const auto whole = value.integer()) {
    if (*whole == std::numeric_limits<int64_t>::min()) fail("abs: the number {} is too large", *whole);
    return std::abs(*whole);
  }
  if (!value.is_number()) fail("abs needs a number, not {}", value.type_name());
  return std::abs(value.number());
}

Value filter_round(const Value& value, const Arguments& arguments, Budget&) {
  const Reader read(arguments, {"precision", "method"});
  if (!value.is_number()) fail("round needs a number, not {}", value.type_name());
  const std::string method = read.text("method", "common");
  const double scale =
      std::pow(10.0, static_cast<double>(std::clamp<int64_t>(read.integer("precision", 0), -15, 15)));
  const double scaled = value.number() * scale;
  if (method == "common") return std::nearbyint(scaled) / scale;
  if (method == "ceil") return std::ceil(scaled) / scale;
  if (method == "floor") return std::floor(scaled) / scale;
  fail("round: the method {} is not supported", in_quotes(method));
}

Value filter_sum(const Value& value, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"attribute", "start"});
  const Value* attribute = read.find("attribute");
  Value sum = read.value("start", int64_t{0});
  for (const Value& item : items_of(value, budget)) {
    sum = apply_operator(
        "+", sum, attribute && !attribute->is_none() ? field_of(item, attribute->str()) : item, budget);
  }
  return sum;
}

template <Keep keep>
Value filter_extreme(const Value& value, const Arguments&, Budget& budget) {
  const Items items = items_of(value, budget);
  if (items.empty()) return Undefined{"the least or greatest of nothing"};
  return keep == Keep::passing ? *std::min_element(items.begin(), items.end())
                               : *std::max_element(items.begin(), items.end(),
                                                   [](const Value& a, const Value& b) { return a < b; });
}

Value filter_indent(const Value& value, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"width", "first", "blank"});
  const Value width = read.value("width", int64_t{4});
  const std::string indent =
      width.text()
          ? *width.text()
          : std::string(static_cast<size_t>(std::clamp<int64_t>(read.integer("width", 4), 0, 1000)), ' ');
  const bool blank = read.truth("blank", false);
  std::string out = read.truth("first", false) ? indent : "";
  const std::string text = value.str();
  bool first = true;
  for (const std::string& line : split(text, '\n')) {
    if (!first) {
      out += '\n';
      if (blank || !line.empty()) out += indent;
      budget.charge(indent.size());
    }
    first = false;
    out += line;
  }
  return charged(std::move(out), budget);
}

Value filter_escape(const Value& value, const Arguments&, Budget& budget) {
  std::string out;
  for (const char c : value.str()) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return charged(std::move(out), budget);
}

struct Filter {
  std::string_view name;
  Value (*apply)(const Value&, const Arguments&, Budget&);
};

constexpr Filter filters[] = {
    {"abs", filter_abs},
    {"capitalize", filter_capitalize},
    {"count", filter_length},
    {"d", filter_default},
    {"default", filter_default},
    {"dictsort", filter_dictsort},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"first", filter_first},
    {"float", filter_float},
    {"indent", filter_indent},
    {"int", filter_int},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"lower", filter_lower},
    {"map", filter_map},
    {"max", filter_extreme<Keep::failing>},
    {"min", filter_extreme<Keep::passing>},
    {"reject", filter_select<Keep::failing>},
    {"rejectattr", filter_selectattr<Keep::failing>},
    {"replace", filter_replace},
    {"reverse", filter_reverse},
    {"round", filter_round},
    {"safe", filter_safe},
    {"select", filter_select<Keep::passing>},
    {"selectattr", filter_selectattr<Keep::passing>},
    {"sort", filter_sort},
    {"string", filter_string},
    {"sum", filter_sum},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"unique", filter_unique},
    {"upper", filter_upper},
};

// ---- tests

struct Test {
  std::string_view name;
  size_t arguments;
  bool (*apply)(const Value& value, const Value& argument);
};

int64_t whole(const Value& value) {
  if (!value.integer()) fail("a test needs an integer, not {}", value.type_name());
  return *value.integer();
}

bool is_sequence(const Value& value) {
  return value.text() || value.list() || value.dict();
}
bool is_equal(const Value& value, const Value& other) {
  return value == other;
}
bool is_less(const Value& value, const Value& other) {
  return value < other;
}
bool is_greater(const Value& value, const Value& other) {
  return other < value;
}
bool is_at_most(const Value& value, const Value& other) {
  return !(other < value);
}
bool is_at_least(const Value& value, const Value& other) {
  return !(value < other);
}
bool is_other(const Value& value, const Value& other) {
  return !(value == other);
}

constexpr Test tests[] = {
    {"defined", 0, [](const Value& v, const Value&) { return !v.is_undefined(); }},
    {"undefined", 0, [](const Value& v, const Value&) { return v.is_undefined(); }},
    {"none", 0, [](const Value& v, const Value&) { return v.is_none(); }},
    {"string", 0, [](const Value& v, const Value&) { return v.text() != nullptr; }},
    {"number", 0, [](const Value& v, const Value&) { return v.is_number(); }},
    {"integer", 0, [](const Value& v, const Value&) { return v.as<int64_t>() != nullptr; }},
    {"float", 0, [](const Value& v, const Value&) { return v.as<double>() != nullptr; }},
    {"boolean", 0, [](const Value& v, const Value&) { return v.as<bool>() != nullptr; }},
    {"true", 0, [](const Value& v, const Value&) { return v.as<bool>() && *v.as<bool>(); }},
    {"false", 0, [](const Value& v, const Value&) { return v.as<bool>() && !*v.as<bool>(); }},
    {"mapping", 0, [](const Value& v, const Value&) { return v.dict() != nullptr; }},
    {"iterable", 0, [](const Value& v, const Value&) { return is_sequence(v) || v.is_undefined(); }},
    {"sequence", 0, [](const Value& v, const Value&) { return is_sequence(v) || v.is_undefined(); }},
    {"callable", 0,
     [](const Value& v, const Value&) { return v.as<std::shared_ptr<const Callable>>() != nullptr; }},
    {"odd", 0, [](const Value& v, const Value&) { return whole(v) % 2 != 0; }},
    {"even", 0, [](const Value& v, const Value&) { return whole(v) % 2 == 0; }},
    {"lower", 0,
     [](const Value& v, const Value&) {
       return lowercase(v.str()) == v.str() && uppercase(v.str()) != v.str();
     }},
    {"upper", 0,
     [](const Value& v, const Value&) {
       return uppercase(v.str()) == v.str() && lowercase(v.str()) != v.str();
     }},
    {"divisibleby", 1,
     [](const Value& v, const Value& by) {
       if (whole(by) == 0) fail("division by zero");
       return whole(by) == -1 || whole(v) % whole(by) == 0;
     }},
    {"in", 1, [](const Value& v, const Value& container) { return contains(container, v); }},
    {"sameas", 1, [](const Value& v, const Value& o) { return v.type_name() == o.type_name() && v == o; }},
    {"eq", 1, is_equal},
    {"equalto", 1, is_equal},
    {"==", 1, is_equal},
    {"ne", 1, is_other},
    {"!=", 1, is_other},
    {"lt", 1, is_less},
    {"lessthan", 1, is_less},
    {"<", 1, is_less},
    {"gt", 1, is_greater},
    {"greaterthan", 1, is_greater},
    {">", 1, is_greater},
    {"le", 1, is_at_most},
    {"<=", 1, is_at_most},
    {"ge", 1, is_at_least},
    {">=", 1, is_at_least},
};

// ---- methods

Value text_split(std::string_view text, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"sep", "maxsplit"});
  const Value* separator = read.find("sep");
  int64_t left = read.integer("maxsplit", -1);
  if (left < 0) left = std::numeric_limits<int64_t>::max();
  budget.charge(text.size());
  Items parts;
  if (!separator || separator->is_none()) {
    for (text = strip(text, nullptr, Side::left); !text.empty() && left > 0; --left) {
      size_t end = 0;
      while (end < text.size() && !is_whitespace(first_code_point(text.substr(end)).value)) {
        end += first_code_point(text.substr(end)).length;
      }
      parts.emplace_back(text.substr(0, end));
      text = strip(text.substr(end), nullptr, Side::left);
    }
    if (!text.empty()) parts.emplace_back(strip(text, nullptr, Side::right));
  } else {
    const std::string& gap = text_of(*separator, "split");
    if (gap.empty()) fail("split: the separator is empty");
    for (; left > 0; --left) {
      const size_t at = text.find(gap);
      if (at == std::string_view::npos) break;
      parts.emplace_back(text.substr(0, at));
      text.remove_prefix(at + gap.size());
    }
    parts.emplace_back(text);
  }
  return charged(std::move(parts), budget);
}

Value text_rsplit(std::string_view text, const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"sep", "maxsplit"});
  int64_t left = read.integer("maxsplit", -1);
  if (left < 0) return text_split(text, arguments, budget);
  const std::string gap = read.required_text("sep");
  if (gap.empty()) fail("rsplit: the separator is empty");
  Items parts;
  for (; left > 0; --left) {
    const size_t at = text.rfind(gap);
    if (at == std::string_view::npos) break;
    parts.emplace_back(text.substr(at + gap.size()));
    text = text.substr(0, at);
  }
  parts.emplace_back(text);
  std::reverse(parts.begin(), parts.end());
  return charged(std::move(parts), budget);
}

Value text_splitlines(std::string_view text, const Arguments& arguments, Budget& budget) {
  const bool keep_ends = Reader(arguments, {"keepends"}).truth("keepends", false);
  Items lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("\r\n"), text.size());
    const size_t next = std::min(text.size(), end + (text.substr(end, 2) == "\r\n" ? 2 : 1));
    lines.emplace_back(text.substr(0, keep_ends ? next : end));
    text.remove_prefix(next);
  }
  return charged(std::move(lines), budget);
}

enum class End { start, finish };
bool has_affix(std::string_view text, const Value& affix, End end) {
  if (const List* choices = affix.list()) {
    return std::any_of(choices->items.begin(), choices->items.end(),
                       [&](const Value& choice) { return has_affix(text, choice, end); });
  }
  const std::string& part = text_of(affix, "startswith or endswith");
  return end == End::start ? text.starts_with(part) : text.ends_with(part);
}

// Counted in characters, as Python does.
int64_t position(std::string_view text, size_t at) {
  return at == std::string_view::npos ? -1 : static_cast<int64_t>(count_code_points(text.substr(0, at)));
}

template <class IsMember>
bool all_characters(std::string_view text, const IsMember& is_member) {
  const auto all = characters(text);
  return !all.empty() && std::all_of(all.begin(), all.end(), [&](std::string_view c) {
    return is_member(first_code_point(c).value);
  });
}

struct TextMethod {
  std::string_view name;
  Value (*call)(const std::string& text, const Arguments&, Budget&);
};

template <Side side>
Value text_strip(const std::string& text, const Arguments& arguments, Budget& budget) {
  return charged(std::string(strip(text, Reader(arguments, {"chars"}).find("chars"), side)), budget);
}

constexpr TextMethod text_methods[] = {
    {"strip", text_strip<Side::both>},
    {"lstrip", text_strip<Side::left>},
    {"rstrip", text_strip<Side::right>},
    {"split", [](const std::string& t, const Arguments& a, Budget& b) { return text_split(t, a, b); }},
    {"rsplit", [](const std::string& t, const Arguments& a, Budget& b) { return text_rsplit(t, a, b); }},
    {"splitlines",
     [](const std::string& t, const Arguments& a, Budget& b) { return text_splitlines(t, a, b); }},
    {"upper", [](const std::string& t, const Arguments&, Budget& b) { return charged(uppercase(t), b); }},
    {"lower", [](const std::string& t, const Arguments&, Budget& b) { return charged(lowercase(t), b); }},
    {"title", [](const std::string& t, const Arguments& a, Budget& b) { return filter_title(t, a, b); }},
    {"capitalize",
     [](const std::string& t, const Arguments&, Budget& b) { return charged(capitalized(t), b); }},
    {"startswith",
     [](const std::string& t, const Arguments& a, Budget&) -> Value {
       return has_affix(t, Reader(a, {"prefix"}).required("prefix"), End::start);
     }},
    {"endswith",
     [](const std::string& t, const Arguments& a, Budget&) -> Value {
       return has_affix(t, Reader(a, {"suffix"}).required("suffix"), End::finish);
     }},
    {"removeprefix",
     [](const std::string& t, const Arguments& a, Budget& b) {
       const std::string prefix = Reader(a, {"prefix"}).required_text("prefix");
       return charged(t.starts_with(prefix) ? t.substr(prefix.size()) : t, b);
     }},
    {"removesuffix",
     [](const std::string& t, const Arguments& a, Budget& b) {
       const std::string suffix = Reader(a, {"suffix"}).required_text("suffix");
       return charged(t.ends_with(suffix) ? t.substr(0, t.size() - suffix.size()) : t, b);
     }},
    {"replace",
     [](const std::string& t, const Arguments& a, Budget& b) {
       const Reader read(a, {"old", "new", "count"});
       return charged(
           replaced(t, read.required_text("old"), read.required_text("new"), read.integer("count", -1), b),
           b);
     }},
    {"find",
     [](const std::string& t, const Arguments& a, Budget&) -> Value {
       return position(t, t.find(Reader(a, {"sub"}).required_text("sub")));
     }},
    {"rfind",
     [](const std::string& t, const Arguments& a, Budget&) -> Value {
       return position(t, t.rfind(Reader(a, {"sub"}).required_text("sub")));
     }},
    {"count",
     [](const std::string& t, const Arguments& a, Budget&) -> Value {
       const std::string part = Reader(a, {"sub"}).required_text("sub");
       if (part.empty()) return static_cast<int64_t>(count_code_points(t)) + 1;
       int64_t count = 0;
       for (size_t at = t.find(part); at != std::string::npos; at = t.find(part, at + part.size())) ++count;
       return count;
     }},
    {"join",
     [](const std::string& t, const Arguments& a, Budget& b) {
       return filter_join(Reader(a, {"iterable"}).required("iterable"), {{Value(t)}, {}}, b);
     }},
    {"isdigit",
     [](const std::string& t, const Arguments&, Budget&) -> Value { return all_characters(t, is_numeric); }},
    {"isspace",
     [](const std::string& t, const Arguments&, Budget&) -> Value {
       return all_characters(t, is_whitespace);
     }},
};

Value dict_get(const Dict& dict, const Arguments& arguments) {
  const Reader read(arguments, {"key", "default"});
  const Value& key = read.required("key");
  const Value* found = key.text() ? dict.find(*key.text()) : nullptr;
  return found ? *found : read.value("default", None{});
}

constexpr size_t longest_text = size_t{64} << 20;

int64_t checked(bool overflowed, int64_t number) {
  if (overflowed) fail("an integer leaves the range of 64 bits");
  return number;
}

Value integer_operator(std::string_view sign, int64_t a, int64_t b) {
  int64_t out = 0;
  if (sign == "+") return checked(__builtin_add_overflow(a, b, &out), out);
  if (sign == "-") return checked(__builtin_sub_overflow(a, b, &out), out);
  if (sign == "*") return checked(__builtin_mul_overflow(a, b, &out), out);
  if (sign == "**") {
    if (b < 0) return std::pow(static_cast<double>(a), static_cast<double>(b));
    out = 1;
    for (int64_t i = 0; i < b; ++i) {
      if (a == 0 || a == 1) return a;
      if (a == -1) return b % 2 ? int64_t{-1} : int64_t{1};
      checked(__builtin_mul_overflow(out, a, &out), out);
    }
    return out;
  }
  if (b == 0) fail("division by zero");
  if (sign == "/") return static_cast<double>(a) / static_cast<double>(b);
  if (b == -1)
    return sign == "%" ? Value(int64_t{0}) : Value(checked(__builtin_sub_overflow(0, a, &out), out));
  const bool floors = a % b != 0 && (a < 0) != (b < 0);
  return sign == "//" ? a / b - (floors ? 1 : 0) : a % b + (floors ? b : 0);
}

Value real_operator(std::string_view sign, double a, double b) {
  if (sign == "+") return a + b;
  if (sign == "-") return a - b;
  if (sign == "*") return a * b;
  if (sign == "**") return std::pow(a, b);
  if (b == 0) fail("division by zero");
  if (sign == "/") return a / b;
  if (sign == "//") return std::floor(a / b);
  return a - b * std::floor(a / b);
}

template <class Sequence>
Sequence repeated(const Sequence& sequence, int64_t times, size_t unit, Budget& budget) {
  Sequence out;
  if (times <= 0 || sequence.empty()) return out;
  const size_t bytes = sequence.size() * unit;
  if (static_cast<uint64_t>(times) > longest_text / bytes)
    fail("a repetition grows beyond {}", human_bytes(longest_text));
  budget.charge(bytes * static_cast<size_t>(times));
  for (int64_t i = 0; i < times; ++i) out.insert(out.end(), sequence.begin(), sequence.end());
  return out;
}

}  // namespace

void Budget::step() {
  constexpr uint64_t most = 5'000'000;
  if (++steps_ > most) fail("it takes more than {} steps", thousands(most));
}

void Budget::charge(size_t bytes) {
  constexpr uint64_t most = uint64_t{512} << 20;
  bytes_ += bytes;
  if (bytes_ > most) fail("it makes more than {} of values", human_bytes(most));
}

Reader::Reader(const Arguments& arguments, std::initializer_list<std::string_view> names)
    : arguments_(arguments), names_(names) {
  if (arguments.positional.size() > names_.size()) {
    fail("{} arguments were given where at most {} fit", arguments.positional.size(), names_.size());
  }
  for (const auto& [name, value] : arguments.named) {
    if (std::find(names_.begin(), names_.end(), name) == names_.end())
      fail("there is no argument {}", in_quotes(name));
  }
}

const Value* Reader::find(std::string_view name) const {
  const auto place = static_cast<size_t>(std::find(names_.begin(), names_.end(), name) - names_.begin());
  if (place < arguments_.positional.size()) return &arguments_.positional[place];
  for (const auto& [given, value] : arguments_.named) {
    if (given == name) return &value;
  }
  return nullptr;
}

Value Reader::value(std::string_view name, Value otherwise) const {
  const Value* found = find(name);
  return found ? *found : otherwise;
}

std::string Reader::text(std::string_view name, std::string_view otherwise) const {
  const Value* found = find(name);
  return found ? text_of(*found, name) : std::string(otherwise);
}

int64_t Reader::integer(std::string_view name, int64_t otherwise) const {
  const Value* found = find(name);
  if (!found || found->is_none()) return otherwise;
  if (!found->integer()) fail("the argument {} must be an integer, not {}", name, found->type_name());
  return *found->integer();
}

bool Reader::truth(std::string_view name, bool otherwise) const {
  const Value* found = find(name);
  return found ? found->truth() : otherwise;
}

const Value& Reader::required(std::string_view name) const {
  const Value* found = find(name);
  if (!found) fail("the argument {} is missing", name);
  return *found;
}

std::string Reader::required_text(std::string_view name) const {
  return text_of(required(name), name);
}

Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments, Budget& budget) {
  for (const Filter& filter : filters) {
    if (filter.name == name) return filter.apply(value, arguments, budget);
  }
  fail("the filter {} is not supported", in_quotes(name));
}

bool apply_test(std::string_view name, const Value& value, const Arguments& arguments) {
  for (const Test& test : tests) {
    if (test.name != name) continue;
    if (arguments.positional.size() != test.arguments || !arguments.named.empty()) {
      fail("the test {} takes {} arguments", in_quotes(name), test.arguments);
    }
    return test.apply(value, test.arguments ? arguments.positional[0] : Value());
  }
  fail("the test {} is not supported", in_quotes(name));
}

std::optional<Value> method_of(const Value& value, std::string_view name, Budget& budget) {
  if (value.text()) {
    for (const TextMethod& method : text_methods) {
      if (method.name != name) continue;
      return Value::callable([text = *value.text(), &method, &budget](const Arguments& arguments) {
        return method.call(text, arguments, budget);
      });
    }
  } else if (const auto* dict = value.as<std::shared_ptr<const Dict>>()) {
    const auto method = [&](auto call) {
      return Value::callable([dict = *dict, call, &budget](const Arguments& arguments) {
        budget.charge(dict->items.size() * sizeof(Value));
        return call(*dict, arguments);
      });
    };
    if (name == "get") return method(dict_get);
    if (name == "copy") return method([](const Dict& d, const Arguments&) { return Value::dict(d.items); });
    if (name == "items") {
      return method([](const Dict& d, const Arguments&) {
        Items items;
        for (const auto& [key, item] : d.items) items.push_back(Value::tuple({key, item}));
        return Value::list(std::move(items));
      });
    }
    if (name == "keys") {
      return method([](const Dict& d, const Arguments&) {
        Items keys;
        for (const auto& [key, item] : d.items) keys.emplace_back(key);
        return Value::list(std::move(keys));
      });
    }
    if (name == "values") {
      return method([](const Dict& d, const Arguments&) {
        Items values;
        for (const auto& [key, item] : d.items) values.push_back(item);
        return Value::list(std::move(values));
      });
    }
  } else if (const auto* list = value.as<std::shared_ptr<const List>>()) {
    if (name == "count" || name == "index") {
      return Value::callable([list = *list, is_count = name == "count"](const Arguments& arguments) -> Value {
        const Value& wanted = Reader(arguments, {"value"}).required("value");
        const auto& items = list->items;
        if (is_count) return static_cast<int64_t>(std::count(items.begin(), items.end(), wanted));
        const auto at = std::find(items.begin(), items.end(), wanted);
        if (at == items.end()) fail("index: {} is not in the list", in_quotes(wanted.repr()));
        return static_cast<int64_t>(at - items.begin());
      });
    }
    if (name == "append" || name == "pop" || name == "insert" || name == "extend") {
      fail("a template may not change a list (\"{}\"); use list + [item]", name);
    }
  }
  return std::nullopt;
}

Value apply_operator(std::string_view sign, const Value& left, const Value& right, Budget& budget) {
  if (sign == "~") return charged(left.str() + right.str(), budget);
  if (left.integer() && right.integer()) return integer_operator(sign, *left.integer(), *right.integer());
  if (left.is_number() && right.is_number()) return real_operator(sign, left.number(), right.number());
  if (sign == "+" && left.text() && right.text()) {
    budget.charge(left.text()->size() + right.text()->size());
    return *left.text() + *right.text();
  }
  if (sign == "+" && left.list() && right.list()) {
    Items items = left.list()->items;
    items.insert(items.end(), right.list()->items.begin(), right.list()->items.end());
    return charged(std::move(items), budget);
  }
  if (sign == "*" && left.text() && right.integer())
    return repeated(*left.text(), *right.integer(), 1, budget);
  if (sign == "*" && right.text() && left.integer())
    return repeated(*right.text(), *left.integer(), 1, budget);
  if (sign == "*" && left.list() && right.integer()) {
    return Value::list(repeated(left.list()->items, *right.integer(), sizeof(Value), budget));
  }
  for (const Value* side : {&left, &right}) {
    if (side->is_undefined()) fail("{} is undefined", side->as<Undefined>()->name);
  }
  fail("{} is not possible between {} and {}", in_quotes(sign), left.type_name(), right.type_name());
}

std::vector<Value> items_of(const Value& value, Budget& budget) {
  if (value.list()) {
    budget.charge(value.list()->items.size() * sizeof(Value));
    return value.list()->items;
  }
  Items items;
  if (value.dict()) {
    for (const auto& [key, item] : value.dict()->items) items.emplace_back(key);
  } else if (value.text()) {
    budget.charge(value.text()->size() * sizeof(Value));
    for (const std::string_view character : characters(*value.text())) items.emplace_back(character);
  } else if (!value.is_undefined()) {
    fail("a value of the type {} cannot be walked through", value.type_name());
  }
  budget.charge(items.size() * sizeof(Value));
  return items;
}

Value item_of(const Value& value, const Value& index) {
  if (value.is_undefined()) fail("{} is undefined", value.as<Undefined>()->name);
  if (value.dict()) {
    const Value* found = index.text() ? value.dict()->find(*index.text()) : nullptr;
    return found ? *found : Value(Undefined{fmt::format("the key {}", in_quotes(index.str()))});
  }
  if (const auto* space = value.as<std::shared_ptr<Namespace>>()) {
    for (const auto& [name, item] : (*space)->items) {
      if (index.text() && *index.text() == name) return item;
    }
    return Undefined{fmt::format("the field {}", in_quotes(index.str()))};
  }
  if (const auto whole_index = index.integer(); whole_index && (value.list() || value.text())) {
    if (value.list()) {
      const auto& items = value.list()->items;
      const auto size = static_cast<int64_t>(items.size());
      const int64_t at = *whole_index < 0 ? *whole_index + size : *whole_index;
      if (at >= 0 && at < size) return items[static_cast<size_t>(at)];
    } else {
      const auto all = characters(*value.text());
      const auto size = static_cast<int64_t>(all.size());
      const int64_t at = *whole_index < 0 ? *whole_index + size : *whole_index;
      if (at >= 0 && at < size) return all[static_cast<size_t>(at)];
    }
  }
  return Undefined{fmt::format("the item {}", in_quotes(index.str()))};
}

Value slice_of(const Value& value, const Value& begin, const Value& end, const Value& step, Budget& budget) {
  const auto part = [&](const Value& bound, int64_t otherwise) {
    if (bound.is_undefined() || bound.is_none()) return otherwise;
    if (!bound.integer()) fail("the bounds of a slice must be integers, not {}", bound.type_name());
    return *bound.integer();
  };
  if (!value.list() && !value.text()) fail("a value of the type {} cannot be sliced", value.type_name());
  const Items items = items_of(value, budget);
  const auto size = static_cast<int64_t>(items.size());
  const int64_t stride = std::clamp<int64_t>(part(step, 1), -size - 1, size + 1);
  if (part(step, 1) == 0) fail("the step of a slice is zero");
  const auto bound = [&](const Value& given, int64_t otherwise) {
    if (given.is_undefined() || given.is_none()) return otherwise;
    int64_t at = part(given, 0);
    if (at < 0) at = std::max<int64_t>(at, -size) + size - (at < -size ? 1 : 0);
    return std::clamp<int64_t>(at, stride < 0 ? -1 : 0, stride < 0 ? size - 1 : size);
  };
  const int64_t first = bound(begin, stride < 0 ? size - 1 : 0);
  const int64_t last = bound(end, stride < 0 ? -1 : size);
  Items out;
  for (int64_t i = first; stride < 0 ? i > last : i < last; i += stride)
    out.push_back(items[static_cast<size_t>(i)]);
  if (value.list()) return charged(std::move(out), budget);
  std::string text;
  for (const Value& item : out) text += *item.text();
  return charged(std::move(text), budget);
}

bool contains(const Value& container, const Value& item) {
  if (container.text()) return container.text()->find(text_of(item, "\"in\" a str")) != std::string::npos;
  if (container.dict()) return item.text() && container.dict()->find(*item.text());
  if (container.list()) {
    const auto& items = container.list()->items;
    return std::find(items.begin(), items.end(), item) != items.end();
  }
  if (container.is_undefined()) return false;
  fail("nothing can be \"in\" a value of the type {}", container.type_name());
}

Value range(const Arguments& arguments, Budget& budget) {
  const Reader read(arguments, {"start", "stop", "step"});
  const bool only_stop = arguments.positional.size() == 1;
  const int64_t start = only_stop ? 0 : read.integer("start", 0);
  const int64_t stop = only_stop ? read.integer("start", 0) : read.integer("stop", 0);
  const int64_t step = read.integer("step", 1);
  constexpr int64_t widest = int64_t{1} << 40, most = 100'000;
  if (step == 0) fail("range: the step is zero");
  if (std::abs(start / 2) > widest || std::abs(stop / 2) > widest || std::abs(step / 2) > widest)
    fail("range: its numbers are too large");
  Items items;
  for (int64_t i = start; step < 0 ? i > stop : i < stop; i += step) {
    if (static_cast<int64_t>(items.size()) == most) fail("range: more than {} numbers", thousands(most));
    items.emplace_back(i);
  }
  return charged(std::move(items), budget);
}

}  // namespace lamina::jinja
