// The syntax tree of a template, and the parser that makes it. Nesting is bounded, so walks over a tree may
// recurse.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/data/template_value.h"

namespace lamina::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    literal,     // value
    name,        // text
    list,        // operands
    tuple,       // operands
    dict,        // operands: key, value, key, value, ...
    attribute,   // operands[0] . text
    item,        // operands[0] [ operands[1] ]
    slice,       // operands[0] [ operands[1] : operands[2] : operands[3] ], each of the three may be null
    call,        // operands[0] ( operands[1..], named )
    filter,      // operands[0] | text ( operands[1..], named )
    test,        // operands[0] is text ( operands[1..] )
    unary,       // text: "-", "+", "not"
    binary,      // text: "+", "and", ...
    comparison,  // operands[0] names[0] operands[1] names[1] operands[2] ...
    condition,   // operands[0] if operands[1] else operands[2], which may be null
  };
  Kind kind = Kind::literal;
  int line = 0;
  size_t depth = 1;
  std::string text;
  Value value;
  std::vector<ExpressionPtr> operands;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<std::string> names;
};

struct Statement {
  enum class Kind {
    text,       // text
    output,     // expression
    condition,  // if expression: body, else: otherwise (an elif is a condition in there)
    loop,       // for targets in expression if filter: body, else: otherwise
    set,        // set targets = expression; without expression the rendered body
    set_field,  // set targets[0].targets[1] = expression
    macro,      // macro text(parameters): body
    call,       // call(parameters) expression: body
    filter,     // filter text: body; `expression` is the chain of filters on the name ""
    with,       // with targets = values: body
    leave,      // break
    next,       // continue
    block,      // body in the scope around it
  };
  struct Parameter {
    std::string name;
    ExpressionPtr otherwise;  // null: undefined
  };
  Kind kind = Kind::text;
  int line = 0;
  std::string text;
  ExpressionPtr expression, filter;
  std::vector<std::string> targets;
  std::vector<ExpressionPtr> values;
  std::vector<Parameter> parameters;
  std::vector<Statement> body, otherwise;
};

// Throws Error: "<what>, line 3: ...".
std::vector<Statement> parse_template(std::string_view source, std::string_view what);

}  // namespace lamina::jinja
