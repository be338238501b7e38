#include "lamina/data/chat_template.h"

#include <algorithm>
#include <ctime>
#include <memory>
#include <utility>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/template_builtins.h"
#include "lamina/data/template_syntax.h"
#include "lamina/data/unicode.h"

namespace lamina {

namespace jinja {

namespace {

using Variables = std::vector<std::pair<std::string, Value>>;

// Names seen from one place: those set here, then those around. Lives on the stack of the renderer.
class Scope {
 public:
  explicit Scope(const Scope* around) : around_(around) {}
  void set(std::string_view name, Value value) {
    for (auto& [known, current] : variables_) {
      if (known == name) {
        current = std::move(value);
        return;
      }
    }
    variables_.emplace_back(name, std::move(value));
  }
  const Value* find(std::string_view name) const {
    for (const Scope* scope = this; scope; scope = scope->around_) {
      for (const auto& [known, value] : scope->variables_) {
        if (known == name) return &value;
      }
    }
    return nullptr;
  }

 private:
  Variables variables_;
  const Scope* around_;
};

enum class Flow { on, leave, next };

// An Error with the line, so that the frames around it add no second one.
class LocatedError : public Error {
 public:
  using Error::Error;
};

class Renderer {
 public:
  explicit Renderer(const ChatOptions& options) : options_(options) {}

  std::string run(const std::vector<Statement>& body, Variables variables) {
    Scope globals(nullptr);
    globals.set("range", Value::callable([this](const Arguments& a) { return range(a, budget_); }));
    globals.set("dict", Value::callable([](const Arguments& a) {
                  if (!a.positional.empty()) fail("dict takes named arguments only");
                  return Value::dict(a.named);
                }));
    globals.set("namespace", Value::callable([](const Arguments& a) { return make_namespace(a); }));
    globals.set("raise_exception", Value::callable([](const Arguments& a) -> Value {
                  fail("the template refuses these messages: {}",
                       Reader(a, {"message"}).value("message", "").str());
                }));
    globals.set("strftime_now", Value::callable([this](const Arguments& a) {
                  return Value(time_text(Reader(a, {"format"}).required_text("format")));
                }));
    for (auto& [name, value] : variables) globals.set(name, std::move(value));
    Scope scope(&globals);
    std::string out;
    execute(body, scope, out);
    return out;
  }

 private:
  // Counts how deep the renderer recurses, through expressions, statements and macros alike.
  struct Nested {
    explicit Nested(Renderer& r) : renderer(r) {
      constexpr size_t deepest = 1200;
      if (++renderer.depth_ > deepest) {
        --renderer.depth_;
        fail("macros and expressions nest deeper than {} levels", deepest);
      }
    }
    ~Nested() { --renderer.depth_; }
    Renderer& renderer;
  };

  static Value make_namespace(const Arguments& arguments) {
    auto space = std::make_shared<Namespace>();
    for (const Value& value : arguments.positional) {
      if (!value.dict()) fail("namespace takes a dict or named arguments");
      space->items.insert(space->items.end(), value.dict()->items.begin(), value.dict()->items.end());
    }
    for (const auto& [name, value] : arguments.named) set_field(*space, name, value);
    return space;
  }

  // Macros and namespaces in a namespace could outlive what they refer to, or form a ring that is never
  // freed.
  static void set_field(Namespace& space, const std::string& name, const Value& value) {
    if (value.as<std::shared_ptr<const Callable>>() || value.as<std::shared_ptr<Namespace>>()) {
      fail("a macro or a namespace cannot be a field of a namespace");
    }
    for (auto& [known, current] : space.items) {
      if (known == name) {
        current = value;
        return;
      }
    }
    space.items.emplace_back(name, value);
  }

  std::string time_text(const std::string& format) const {
    const std::time_t now = std::chrono::system_clock::to_time_t(options_.clock());
    std::tm parts{};
    gmtime_r(&now, &parts);
    if (format.empty() || format.size() > 200) return {};
    std::string buffer(4096, '\0');
    buffer.resize(std::strftime(buffer.data(), buffer.size(), format.c_str(), &parts));
    return buffer;
  }

  // Runs `work`; an Error without a line gets this one.
  template <class Work>
  auto at_line(int line, const Work& work) {
    try {
      return work();
    } catch (const LocatedError&) {
      throw;
    } catch (const Error& error) {
      throw LocatedError(fmt::format("{}, line {}: {}", options_.what, line, error.what()));
    }
  }

  void put(std::string& out, std::string_view text) {
    constexpr size_t longest = size_t{64} << 20;
    if (text.size() > longest - std::min(out.size(), longest))
      fail("it writes more than {}", human_bytes(longest));
    budget_.charge(text.size());
    out += text;
  }

  // -- statements

  Flow execute(const std::vector<Statement>& body, Scope& scope, std::string& out) {
    for (const Statement& statement : body) {
      const Flow flow = at_line(statement.line, [&] { return execute(statement, scope, out); });
      if (flow != Flow::on) return flow;
    }
    return Flow::on;
  }

  Flow execute(const Statement& statement, Scope& scope, std::string& out) {
    const Nested nested(*this);
    budget_.step();
    using Kind = Statement::Kind;
    switch (statement.kind) {
      case Kind::text:
        put(out, statement.text);
        return Flow::on;
      case Kind::output:
        put(out, evaluate(*statement.expression, scope).str());
        return Flow::on;
      case Kind::condition:
        return execute(evaluate(*statement.expression, scope).truth() ? statement.body : statement.otherwise,
                       scope, out);
      case Kind::loop:
        return execute_loop(statement, scope, out);
      case Kind::set:
        execute_set(statement, scope);
        return Flow::on;
      case Kind::set_field:
        execute_set_field(statement, scope);
        return Flow::on;
      case Kind::macro:
        scope.set(statement.text, make_macro(statement, scope));
        return Flow::on;
      case Kind::call:
        execute_call(statement, scope, out);
        return Flow::on;
      case Kind::filter: {
        Scope inner(&scope);
        put(out, filtered(*statement.filter, render_apart(statement.body, inner), scope).str());
        return Flow::on;
      }
      case Kind::with: {
        Scope inner(&scope);
        for (size_t i = 0; i < statement.targets.size(); ++i) {
          inner.set(statement.targets[i], evaluate(*statement.values[i], scope));
        }
        return execute(statement.body, inner, out);
      }
      case Kind::block:
        return execute(statement.body, scope, out);
      case Kind::leave:
        return Flow::leave;
      case Kind::next:
        return Flow::next;
    }
    return Flow::on;
  }

  std::string render_apart(const std::vector<Statement>& body, Scope& scope) {
    std::string out;
    execute(body, scope, out);
    return out;
  }

  static void assign(const std::vector<std::string>& targets, const Value& value, Scope& scope,
                     Budget& budget) {
    if (targets.size() == 1) return scope.set(targets[0], value);
    const std::vector<Value> parts = items_of(value, budget);
    if (parts.size() != targets.size()) {
      fail("{} values cannot be unpacked into {} names", parts.size(), targets.size());
    }
    for (size_t i = 0; i < targets.size(); ++i) scope.set(targets[i], parts[i]);
  }

  Flow execute_loop(const Statement& statement, Scope& scope, std::string& out) {
    std::vector<Value> items = items_of(evaluate(*statement.expression, scope), budget_);
    if (statement.filter) {
      std::vector<Value> kept;
      for (const Value& item : items) {
        Scope inner(&scope);
        assign(statement.targets, item, inner, budget_);
        if (evaluate(*statement.filter, inner).truth()) kept.push_back(item);
      }
      items = std::move(kept);
    }
    if (items.empty()) return execute(statement.otherwise, scope, out);
    ++loops_;
    for (size_t i = 0; i < items.size(); ++i) {
      budget_.charge(sizeof(Value) * 16);  // the scope and `loop`
      Scope inner(&scope);
      inner.set("loop", loop_value(items, i));
      assign(statement.targets, items[i], inner, budget_);
      if (execute(statement.body, inner, out) == Flow::leave) break;
    }
    --loops_;
    return Flow::on;
  }

  Value loop_value(const std::vector<Value>& items, size_t i) {
    const auto index = static_cast<int64_t>(i), count = static_cast<int64_t>(items.size());
    auto loop = std::make_shared<Namespace>();
    loop->items = {
        {"index", index + 1},
        {"index0", index},
        {"revindex", count - index},
        {"revindex0", count - index - 1},
        {"first", index == 0},
        {"last", index + 1 == count},
        {"length", count},
        {"depth", static_cast<int64_t>(loops_)},
        {"depth0", static_cast<int64_t>(loops_) - 1},
        {"previtem", i > 0 ? items[i - 1] : Value(Undefined{"the item before the first"})},
        {"nextitem", i + 1 < items.size() ? items[i + 1] : Value(Undefined{"the item after the last"})},
        {"cycle", Value::callable([i](const Arguments& arguments) {
           if (arguments.positional.empty()) fail("loop.cycle needs values");
           return arguments.positional[i % arguments.positional.size()];
         })},
    };
    return loop;
  }

  void execute_set(const Statement& statement, Scope& scope) {
    if (statement.expression)
      return assign(statement.targets, evaluate(*statement.expression, scope), scope, budget_);
    Scope inner(&scope);
    Value body = render_apart(statement.body, inner);
    if (statement.filter) body = filtered(*statement.filter, std::move(body), scope);
    scope.set(statement.targets[0], std::move(body));
  }

  void execute_set_field(const Statement& statement, Scope& scope) {
    const Value value = statement.expression ? evaluate(*statement.expression, scope) : Value();
    const Value* target = scope.find(statement.targets[0]);
    const auto* space = target ? target->as<std::shared_ptr<Namespace>>() : nullptr;
    if (!space) fail("{} is not a namespace, so its fields cannot be set", in_quotes(statement.targets[0]));
    set_field(**space, statement.targets[1], value);
  }

  // A chain of filters on the name "", which stands for `value`.
  Value filtered(const Expression& chain, Value value, Scope& scope) {
    Scope inner(&scope);
    inner.set("", std::move(value));
    return evaluate(chain, inner);
  }

  // `scope` outlives the macro, for values never leave the scope that they are set in but downwards.
  Value make_macro(const Statement& macro, Scope& scope) {
    return Value::callable([this, &macro, &scope](const Arguments& arguments) -> Value {
      const Nested nested(*this);
      Scope inner(&scope);
      std::vector<std::string_view> known;
      for (size_t i = 0; i < macro.parameters.size(); ++i) {
        const auto& parameter = macro.parameters[i];
        known.push_back(parameter.name);
        const auto named =
            std::find_if(arguments.named.begin(), arguments.named.end(),
                         [&](const auto& argument) { return argument.first == parameter.name; });
        if (i < arguments.positional.size()) {
          inner.set(parameter.name, arguments.positional[i]);
        } else if (named != arguments.named.end()) {
          inner.set(parameter.name, named->second);
        } else if (parameter.otherwise) {
          inner.set(parameter.name, evaluate(*parameter.otherwise, inner));
        } else {
          inner.set(parameter.name, Undefined{fmt::format("the parameter {}", in_quotes(parameter.name))});
        }
      }
      if (arguments.positional.size() > macro.parameters.size()) {
        fail("the macro {} takes {} arguments, not {}", in_quotes(macro.text), macro.parameters.size(),
             arguments.positional.size());
      }
      for (const auto& [name, value] : arguments.named) {
        if (name == "caller") {
          inner.set(name, value);
        } else if (std::find(known.begin(), known.end(), name) == known.end()) {
          fail("the macro {} has no parameter {}", in_quotes(macro.text), in_quotes(name));
        }
      }
      return render_apart(macro.body, inner);
    });
  }

  void execute_call(const Statement& statement, Scope& scope, std::string& out) {
    const Expression& call = *statement.expression;
    const Value macro = evaluate(*call.operands[0], scope);
    Arguments arguments = arguments_of(call, scope);
    arguments.named.emplace_back("caller", make_macro(statement, scope));
    put(out, call_value(macro, arguments, *call.operands[0]).str());
  }

  // -- expressions

  Value evaluate(const Expression& expression, Scope& scope) {
    const Nested nested(*this);
    budget_.step();
    using Kind = Expression::Kind;
    switch (expression.kind) {
      case Kind::literal:
        return expression.value;
      case Kind::name: {
        const Value* found = scope.find(expression.text);
        return found ? *found : Value(Undefined{in_quotes(expression.text)});
      }
      case Kind::list:
        return Value::list(evaluate_all(expression, 0, scope));
      case Kind::tuple:
        return Value::tuple(evaluate_all(expression, 0, scope));
      case Kind::dict:
        return evaluate_dict(expression, scope);
      case Kind::attribute:
        return attribute_of(evaluate(*expression.operands[0], scope), expression.text);
      case Kind::item: {
        const Value value = evaluate(*expression.operands[0], scope);
        return subscript(value, evaluate(*expression.operands[1], scope));
      }
      case Kind::slice:
        return evaluate_slice(expression, scope);
      case Kind::call:
        return evaluate_call(expression, scope);
      case Kind::filter: {
        const Value value = evaluate(*expression.operands[0], scope);
        return apply_filter(expression.text, value, arguments_of(expression, scope), budget_);
      }
      case Kind::test: {
        const Value value = evaluate(*expression.operands[0], scope);
        return apply_test(expression.text, value, arguments_of(expression, scope));
      }
      case Kind::unary:
        return evaluate_unary(expression, scope);
      case Kind::binary:
        return evaluate_binary(expression, scope);
      case Kind::comparison:
        return evaluate_comparison(expression, scope);
      case Kind::condition:
        if (evaluate(*expression.operands[1], scope).truth()) return evaluate(*expression.operands[0], scope);
        return expression.operands[2] ? evaluate(*expression.operands[2], scope)
                                      : Value(Undefined{"an if without an else"});
    }
    return {};
  }

  std::vector<Value> evaluate_all(const Expression& expression, size_t from, Scope& scope) {
    std::vector<Value> values;
    for (size_t i = from; i < expression.operands.size(); ++i)
      values.push_back(evaluate(*expression.operands[i], scope));
    budget_.charge(values.size() * sizeof(Value));
    return values;
  }

  Arguments arguments_of(const Expression& expression, Scope& scope) {
    Arguments arguments{evaluate_all(expression, 1, scope), {}};
    for (const auto& [name, value] : expression.named)
      arguments.named.emplace_back(name, evaluate(*value, scope));
    return arguments;
  }

  Value evaluate_dict(const Expression& expression, Scope& scope) {
    Variables items;
    for (size_t i = 0; i < expression.operands.size(); i += 2) {
      const Value key = evaluate(*expression.operands[i], scope);
      if (!key.text()) fail("a key of a dict must be a str, not {}", key.type_name());
      Value value = evaluate(*expression.operands[i + 1], scope);
      const auto known = std::find_if(items.begin(), items.end(),
                                      [&](const auto& item) { return item.first == *key.text(); });
      if (known != items.end()) {
        known->second = std::move(value);
      } else {
        items.emplace_back(*key.text(), std::move(value));
      }
    }
    budget_.charge(items.size() * sizeof(Value));
    return Value::dict(std::move(items));
  }

  Value evaluate_slice(const Expression& expression, Scope& scope) {
    const auto part = [&](size_t i) {
      return expression.operands[i] ? evaluate(*expression.operands[i], scope) : Value(None{});
    };
    const Value value = part(0), begin = part(1), end = part(2), step = part(3);
    return slice_of(value, begin, end, step, budget_);
  }

  Value attribute_of(const Value& value, const std::string& name) {
    if (value.is_undefined()) return item_of(value, Value(name));  // throws, naming what is undefined
    if (auto method = method_of(value, name, budget_)) return *std::move(method);
    return item_of(value, Value(name));
  }

  Value subscript(const Value& value, const Value& index) {
    Value item = item_of(value, index);
    if (item.is_undefined() && index.text()) {
      if (auto method = method_of(value, *index.text(), budget_)) return *std::move(method);
    }
    return item;
  }

  Value evaluate_call(const Expression& expression, Scope& scope) {
    const Value function = evaluate(*expression.operands[0], scope);
    return call_value(function, arguments_of(expression, scope), *expression.operands[0]);
  }

  static Value call_value(const Value& function, const Arguments& arguments, const Expression& name) {
    if (const auto* callable = function.as<std::shared_ptr<const Callable>>()) return (**callable)(arguments);
    if (function.is_undefined()) fail("{} is undefined, so it cannot be called", in_quotes(name.text));
    fail("{} is of the type {} and cannot be called", in_quotes(name.text), function.type_name());
  }

  Value evaluate_unary(const Expression& expression, Scope& scope) {
    const Value value = evaluate(*expression.operands[0], scope);
    if (expression.text == "not") return !value.truth();
    if (!value.is_number()) fail("{} needs a number, not {}", in_quotes(expression.text), value.type_name());
    return expression.text == "-" ? apply_operator("-", int64_t{0}, value, budget_) : value;
  }

  Value evaluate_binary(const Expression& expression, Scope& scope) {
    Value left = evaluate(*expression.operands[0], scope);
    if (expression.text == "and") return left.truth() ? evaluate(*expression.operands[1], scope) : left;
    if (expression.text == "or") return left.truth() ? left : evaluate(*expression.operands[1], scope);
    return apply_operator(expression.text, left, evaluate(*expression.operands[1], scope), budget_);
  }

  Value evaluate_comparison(const Expression& expression, Scope& scope) {
    Value left = evaluate(*expression.operands[0], scope);
    for (size_t i = 0; i < expression.names.size(); ++i) {
      Value right = evaluate(*expression.operands[i + 1], scope);
      if (!compare(expression.names[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  static bool compare(std::string_view sign, const Value& left, const Value& right) {
    if (sign == "==") return left == right;
    if (sign == "!=") return !(left == right);
    if (sign == "in") return contains(right, left);
    if (sign == "not in") return !contains(right, left);
    if (sign == "<") return left < right;
    if (sign == ">") return right < left;
    if (sign == "<=") return !(right < left);
    return !(left < right);
  }

  const ChatOptions& options_;
  Budget budget_;
  size_t depth_ = 0;
  size_t loops_ = 0;
};

Value message_value(const ChatMessage& message) {
  Json json = {{"role", message.role}, {"content", message.content}};
  if (message.more.is_object()) {
    for (const auto& [key, value] : message.more.items()) json[key] = value;
  }
  return Value::from_json(json);
}

}  // namespace

}  // namespace jinja

std::string render_chat(std::string_view template_text, const std::vector<ChatMessage>& messages,
                        const ChatOptions& options) {
  using jinja::Value;
  const std::vector<jinja::Statement> body = jinja::parse_template(template_text, options.what);
  std::vector<Value> list;
  for (const ChatMessage& message : messages) list.push_back(jinja::message_value(message));
  jinja::Variables variables;
  variables.emplace_back("tools", jinja::None{});
  variables.emplace_back("documents", jinja::None{});
  variables.emplace_back("messages", Value::list(std::move(list)));
  variables.emplace_back("add_generation_prompt", options.add_generation_prompt);
  if (options.bos_token) variables.emplace_back("bos_token", repair_utf8(*options.bos_token));
  if (options.eos_token) variables.emplace_back("eos_token", repair_utf8(*options.eos_token));
  if (options.variables.is_object()) {
    for (const auto& [name, value] : options.variables.items())
      variables.emplace_back(name, Value::from_json(value));
  }
  return jinja::Renderer(options).run(body, std::move(variables));
}

}  // namespace lamina
