#include "lamina/data/template_syntax.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/unicode.h"

namespace lamina::jinja {

namespace {

constexpr std::string_view blanks = " \t\n\v\f\r";
constexpr size_t deepest = 200;             // of the parser's recursion
constexpr size_t deepest_expression = 500;  // of a tree: a + b + c nests too

bool is_name_start(char c) {
  return c == '_' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c & 0x80);
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// ---- tokens

struct Token {
  enum class Kind {
    text,
    output_begin,
    output_end,
    block_begin,
    block_end,
    name,
    string,
    integer,
    real,
    symbol,
    end
  };
  Kind kind = Kind::end;
  std::string text;
  int line = 1;
};

// "\r\n" and "\r" are newlines too; one newline at the end of the template is not part of it.
std::string unify_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (source.substr(i + 1, 1) == "\n") ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view what) : what_(what), source_(unify_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) read_data();
    push(Token::Kind::end, "");
    return std::move(tokens_);
  }

 private:
  template <class... Args>
  [[noreturn]] void fail_here(fmt::format_string<Args...> format, Args&&... args) const {
    fail("{}, line {}: {}", what_, line_, fmt::format(format, std::forward<Args>(args)...));
  }

  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  void skip(size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                         source_.begin() + static_cast<ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
    if (count > 0) line_starting_ = source_[at_ - 1] == '\n';
  }
  void skip_blanks() { skip(std::min(rest().find_first_not_of(blanks), rest().size())); }
  void push(Token::Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  // Text up to the next tag, less the white space that the tag takes from it; then the tag.
  void read_data() {
    size_t length = 0;
    do {
      length = std::min(rest().find('{', length), rest().size());
    } while (length < rest().size() &&
             std::string_view("{%#").find(rest().substr(length + 1, 1)) == std::string_view::npos &&
             ++length);
    if (length + 1 >= rest().size()) length = rest().size();
    const std::string_view tag = rest().substr(length);
    std::string_view text = rest().substr(0, length);
    const char sign = tag.size() > 2 ? tag[2] : '\0';
    if (!tag.empty() && sign == '-') {
      text = text.substr(0, text.find_last_not_of(blanks) + 1);
    } else if (!tag.empty() && sign != '+' && tag[1] != '{') {
      const size_t line_begin = text.rfind('\n') + 1;
      const std::string_view indent = text.substr(line_begin);
      if ((line_begin > 0 || line_starting_) && indent.find_first_not_of(blanks) == std::string_view::npos) {
        text = text.substr(0, line_begin);
      }
    }
    if (!text.empty()) push(Token::Kind::text, std::string(text));
    skip(length);
    if (tag.empty()) return;
    const bool has_sign = sign == '-' || (sign == '+' && tag[1] != '{');
    if (tag[1] == '#') return skip_comment();
    if (tag[1] == '%' && read_raw()) return;
    push(tag[1] == '{' ? Token::Kind::output_begin : Token::Kind::block_begin, "");
    skip(has_sign ? 3 : 2);
    if (tag[1] == '{') {
      read_tag("}}", Token::Kind::output_end);
    } else {
      read_tag("%}", Token::Kind::block_end);
    }
  }

  void skip_comment() {
    const size_t end = rest().find("#}", 2);
    if (end == std::string_view::npos) fail_here("a comment is not closed by \"#}}\"");
    const char sign = rest()[end - 1];
    skip(end + 2);
    trim_after(sign);
  }

  // "-" takes all white space after a tag; without a sign a block or comment takes one newline.
  void trim_after(char sign) {
    if (sign == '-') {
      skip_blanks();
    } else if (sign != '+' && rest().starts_with('\n')) {
      skip(1);
    }
  }

  // {% raw %} ... {% endraw %}
  bool read_raw() {
    const auto tag_length = [&](std::string_view text, std::string_view name) -> size_t {
      size_t at = 2;
      if (text.size() > 2 && (text[2] == '-' || text[2] == '+')) ++at;
      const auto pass_blanks = [&] { at = std::min(text.find_first_not_of(blanks, at), text.size()); };
      pass_blanks();
      if (text.substr(at, name.size()) != name) return 0;
      at += name.size();
      pass_blanks();
      if (at < text.size() && (text[at] == '-' || text[at] == '+')) ++at;
      return text.substr(at, 2) == "%}" ? at + 2 : 0;
    };
    const size_t open = tag_length(rest(), "raw");
    if (open == 0) return false;
    const char open_sign = rest()[open - 3];
    skip(open);
    trim_after(open_sign);
    for (size_t end = rest().find("{%"); end != std::string_view::npos; end = rest().find("{%", end + 2)) {
      const size_t close = tag_length(rest().substr(end), "endraw");
      if (close == 0) continue;
      std::string_view text = rest().substr(0, end);
      if (rest()[end + 2] == '-') {
        text = text.substr(0, text.find_last_not_of(blanks) + 1);
      } else if (rest()[end + 2] != '+') {
        const size_t line_begin = text.rfind('\n') + 1;
        if (line_begin > 0 && text.find_first_not_of(blanks, line_begin) == std::string_view::npos) {
          text = text.substr(0, line_begin);
        }
      }
      if (!text.empty()) push(Token::Kind::text, std::string(text));
      const char close_sign = rest()[end + close - 3];
      skip(end + close);
      trim_after(close_sign);
      return true;
    }
    fail_here("{{% raw %}} is not closed by {{% endraw %}}");
  }

  void read_tag(std::string_view close, Token::Kind end) {
    const int opened = line_;
    std::string nesting;  // open brackets: "}}" may close two dicts
    for (;;) {
      skip_blanks();
      if (rest().empty()) fail("{}, line {}: a tag is not closed by {}", what_, opened, in_quotes(close));
      const char sign = rest()[0] == '-' || rest()[0] == '+' ? rest()[0] : '\0';
      const bool may_close = nesting.empty();
      if (may_close && sign && rest().substr(1).starts_with(close) && !(sign == '+' && close == "}}")) {
        skip(1 + close.size());
        push(end, "");
        if (close == "}}" ? sign == '-' : true) trim_after(sign);
        return;
      }
      if (may_close && rest().starts_with(close)) {
        skip(close.size());
        push(end, "");
        if (close == "%}") trim_after('\0');
        return;
      }
      read_token(nesting);
    }
  }

  void read_token(std::string& nesting) {
    const char c = rest()[0];
    if (c == '"' || c == '\'') return read_string();
    if (is_digit(c)) return read_number();
    if (is_name_start(c)) {
      size_t length = 1;
      while (length < rest().size() && (is_name_start(rest()[length]) || is_digit(rest()[length]))) ++length;
      push(Token::Kind::name, std::string(rest().substr(0, length)));
      return skip(length);
    }
    constexpr std::string_view symbols[] = {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*",
                                            "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                            "]",  "{",  "}",  ",",  ".",  ":",  "|"};
    for (const std::string_view symbol : symbols) {
      if (!rest().starts_with(symbol)) continue;
      if (c == '(' || c == '[' || c == '{') nesting += c;
      if (c == ')' || c == ']' || c == '}') {
        if (nesting.empty()) fail_here("{} closes nothing", in_quotes(symbol));
        nesting.pop_back();
      }
      push(Token::Kind::symbol, std::string(symbol));
      return skip(symbol.size());
    }
    fail_here("the character {} is not expected here",
              in_quotes(rest().substr(0, first_code_point(rest()).length)));
  }

  void read_number() {
    size_t length = 0;
    const auto pass_digits = [&] {
      while (length < rest().size() && (is_digit(rest()[length]) || rest()[length] == '_')) ++length;
    };
    const auto digit_at = [&](size_t i) { return i < rest().size() && is_digit(rest()[i]); };
    pass_digits();
    bool real = false;
    if (rest().substr(length, 1) == "." && digit_at(length + 1)) {
      real = true;
      ++length;
      pass_digits();
    }
    if (length < rest().size() && (rest()[length] | 0x20) == 'e') {
      const size_t sign = rest().substr(length + 1, 1).find_first_of("+-") == 0 ? 1 : 0;
      if (digit_at(length + 1 + sign)) {
        real = true;
        length += 1 + sign;
        pass_digits();
      }
    }
    std::string digits(rest().substr(0, length));
    std::erase(digits, '_');
    push(real ? Token::Kind::real : Token::Kind::integer, std::move(digits));
    skip(length);
  }

  void read_string() {
    const char quote = rest()[0];
    size_t end = 1;
    while (end < rest().size() && rest()[end] != quote) end += rest()[end] == '\\' ? 2 : 1;
    if (end >= rest().size()) fail_here("a string is not closed by {}", quote);
    push(Token::Kind::string, unescape(rest().substr(1, end - 1)));
    skip(end + 1);
  }

  std::string unescape(std::string_view text) const {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 == text.size()) {
        out += text[i];
        continue;
      }
      const char c = text[++i];
      constexpr std::string_view letters = "abfnrtv\\'\"", meanings = "\a\b\f\n\r\t\v\\'\"";
      if (const size_t at = letters.find(c); at != std::string_view::npos) {
        out += meanings[at];
      } else if (c == '\n') {
        continue;  // an escaped newline is none
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        uint32_t code = 0;
        const std::string_view digits = text.substr(i + 1, count);
        const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
        if (digits.size() != count || error != std::errc() || stop != digits.data() + count ||
            code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
          fail_here("the escape {} is not a character", in_quotes(text.substr(i - 1, count + 2)));
        }
        out += utf8(code);
        i += count;
      } else if (c >= '0' && c <= '7') {
        uint32_t code = 0;
        size_t count = 0;
        for (; count < 3 && i + count < text.size() && text[i + count] >= '0' && text[i + count] <= '7';
             ++count) {
          code = code * 8 + static_cast<uint32_t>(text[i + count] - '0');
        }
        out += utf8(code);
        i += count - 1;
      } else {
        out += {'\\', c};
      }
    }
    return out;
  }

  std::string_view what_;
  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

// ---- trees

class Parser {
 public:
  Parser(std::vector<Token> tokens, std::string_view what) : what_(what), tokens_(std::move(tokens)) {}

  std::vector<Statement> run() { return parse_body({}); }

 private:
  using Kind = Expression::Kind;

  const Token& peek() const { return tokens_[at_]; }
  Token take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }

  template <class... Args>
  [[noreturn]] void fail_here(fmt::format_string<Args...> format, Args&&... args) const {
    fail("{}, line {}: {}", what_, peek().line, fmt::format(format, std::forward<Args>(args)...));
  }

  // Guards the recursion of the parser, and with it of every walk over the tree.
  struct Nested {
    explicit Nested(Parser& p) : parser(p) {
      if (++parser.depth_ > deepest) parser.fail_here("it nests deeper than {} levels", deepest);
    }
    ~Nested() { --parser.depth_; }
    Parser& parser;
  };

  std::string describe() const {
    switch (peek().kind) {
      case Token::Kind::end:
        return "the end of the template";
      case Token::Kind::block_end:
      case Token::Kind::output_end:
        return "the end of the tag";
      default:
        return in_quotes(peek().text);
    }
  }

  bool is_symbol(std::string_view symbol) const {
    return peek().kind == Token::Kind::symbol && peek().text == symbol;
  }
  bool is_name(std::string_view name) const {
    return peek().kind == Token::Kind::name && peek().text == name;
  }
  bool accept_symbol(std::string_view symbol) { return is_symbol(symbol) && (++at_, true); }
  bool accept_name(std::string_view name) { return is_name(name) && (++at_, true); }
  void expect_symbol(std::string_view symbol) {
    if (!accept_symbol(symbol)) fail_here("expected {}, found {}", in_quotes(symbol), describe());
  }
  std::string expect_name() {
    if (peek().kind != Token::Kind::name) fail_here("expected a name, found {}", describe());
    return take().text;
  }
  void expect(Token::Kind kind, std::string_view name) {
    if (peek().kind != kind) fail_here("expected {}, found {}", name, describe());
    take();
  }
  void expect_block_end() { expect(Token::Kind::block_end, "\"%}\""); }

  ExpressionPtr make(Kind kind, std::string text = {}) const {
    auto expression = std::make_unique<Expression>();
    expression->kind = kind;
    expression->line = peek().line;
    expression->text = std::move(text);
    return expression;
  }
  template <class... Operands>
  ExpressionPtr make_with(Kind kind, std::string text, Operands... operands) const {
    ExpressionPtr expression = make(kind, std::move(text));
    (adopt(*expression, std::move(operands)), ...);
    return expression;
  }
  void adopt(Expression& parent, ExpressionPtr child) const {
    if (child) parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > deepest_expression)
      fail_here("an expression nests deeper than {} levels", deepest_expression);
    parent.operands.push_back(std::move(child));
  }
  ExpressionPtr literal(Value value) const {
    ExpressionPtr expression = make(Kind::literal);
    expression->value = std::move(value);
    return expression;
  }

  // -- statements

  Statement statement(Statement::Kind kind) const {
    Statement result;
    result.kind = kind;
    result.line = peek().line;
    return result;
  }

  // Up to a tag whose name is in `ends`; the name is taken, the rest of the tag is not.
  std::vector<Statement> parse_body(const std::vector<std::string_view>& ends) {
    const Nested nested(*this);
    std::vector<Statement> body;
    for (;;) {
      switch (peek().kind) {
        case Token::Kind::text: {
          Statement text = statement(Statement::Kind::text);
          text.text = take().text;
          body.push_back(std::move(text));
          break;
        }
        case Token::Kind::output_begin: {
          Statement output = statement(Statement::Kind::output);
          take();
          output.expression = parse_tuple();
          expect(Token::Kind::output_end, "\"}}\"");
          body.push_back(std::move(output));
          break;
        }
        case Token::Kind::block_begin: {
          take();
          if (peek().kind != Token::Kind::name) fail_here("expected the name of a tag, found {}", describe());
          if (std::find(ends.begin(), ends.end(), peek().text) != ends.end()) return body;
          body.push_back(parse_statement());
          break;
        }
        default:
          if (ends.empty() && peek().kind == Token::Kind::end) return body;
          fail_here("expected {{% {} %}}, found {}", fmt::join(ends, " %} or {% "), describe());
      }
    }
  }

  std::vector<Statement> parse_body_until(std::string_view end) {
    expect_block_end();
    std::vector<Statement> body = parse_body({end});
    take();
    expect_block_end();
    return body;
  }

  Statement parse_statement() {
    const std::string tag = peek().text;
    struct Tag {
      std::string_view name;
      Statement (Parser::*parse)();
    };
    constexpr Tag tags[] = {
        {"if", &Parser::parse_if},
        {"for", &Parser::parse_for},
        {"set", &Parser::parse_set},
        {"macro", &Parser::parse_macro},
        {"call", &Parser::parse_call_block},
        {"filter", &Parser::parse_filter_block},
        {"with", &Parser::parse_with},
        {"break", &Parser::parse_loop_control},
        {"continue", &Parser::parse_loop_control},
        {"generation", &Parser::parse_generation},
    };
    for (const Tag& known : tags) {
      if (known.name == tag) return (this->*known.parse)();
    }
    fail_here("the tag {} is not supported", in_quotes(tag));
  }

  Statement parse_if() {
    const Nested nested(*this);  // each elif nests in the else of the one before
    Statement result = statement(Statement::Kind::condition);
    take();
    result.expression = parse_tuple();
    expect_block_end();
    result.body = parse_body({"elif", "else", "endif"});
    if (is_name("elif")) {
      result.otherwise.push_back(parse_if());
      return result;
    }
    if (accept_name("else")) {
      expect_block_end();
      result.otherwise = parse_body({"endif"});
    }
    take();
    expect_block_end();
    return result;
  }

  std::vector<std::string> parse_targets() {
    const bool bracketed = accept_symbol("(");
    std::vector<std::string> names = {expect_name()};
    while (accept_symbol(",")) {
      if (peek().kind != Token::Kind::name) break;
      names.push_back(expect_name());
    }
    if (bracketed) expect_symbol(")");
    return names;
  }

  Statement parse_for() {
    Statement result = statement(Statement::Kind::loop);
    take();
    result.targets = parse_targets();
    if (!accept_name("in")) fail_here("expected \"in\", found {}", describe());
    result.expression = parse_tuple_of([&] { return parse_or(); });
    if (accept_name("if")) result.filter = parse_expression();
    if (is_name("recursive")) fail_here("recursive loops are not supported");
    expect_block_end();
    ++loops_;
    result.body = parse_body({"else", "endfor"});
    --loops_;
    if (accept_name("else")) {
      expect_block_end();
      result.otherwise = parse_body({"endfor"});
    }
    take();
    expect_block_end();
    return result;
  }

  Statement parse_loop_control() {
    Statement result = statement(is_name("break") ? Statement::Kind::leave : Statement::Kind::next);
    if (loops_ == 0) fail_here("{} stands outside a loop", in_quotes(peek().text));
    take();
    expect_block_end();
    return result;
  }

  Statement parse_set() {
    Statement result = statement(Statement::Kind::set);
    take();
    result.targets = parse_targets();
    if (result.targets.size() == 1 && accept_symbol(".")) {
      result.kind = Statement::Kind::set_field;
      result.targets.push_back(expect_name());
    }
    if (accept_symbol("=")) {
      result.expression = parse_tuple();
      expect_block_end();
      return result;
    }
    if (result.targets.size() != 1) fail_here("expected \"=\", found {}", describe());
    // {% set name | filter %}body{% endset %}
    if (is_symbol("|")) result.filter = parse_filters(make(Kind::name, ""));
    result.body = parse_body_until("endset");
    return result;
  }

  std::vector<Statement::Parameter> parse_parameters() {
    std::vector<Statement::Parameter> parameters;
    expect_symbol("(");
    while (!accept_symbol(")")) {
      if (!parameters.empty()) expect_symbol(",");
      if (!parameters.empty() && accept_symbol(")")) break;
      Statement::Parameter parameter{expect_name(), nullptr};
      if (accept_symbol("=")) parameter.otherwise = parse_expression();
      parameters.push_back(std::move(parameter));
    }
    return parameters;
  }

  // A macro's body belongs to no loop around it.
  std::vector<Statement> parse_body_apart(std::string_view end) {
    const size_t loops = std::exchange(loops_, 0);
    std::vector<Statement> body = parse_body_until(end);
    loops_ = loops;
    return body;
  }

  Statement parse_macro() {
    Statement result = statement(Statement::Kind::macro);
    take();
    result.text = expect_name();
    result.parameters = parse_parameters();
    result.body = parse_body_apart("endmacro");
    return result;
  }

  Statement parse_call_block() {
    Statement result = statement(Statement::Kind::call);
    take();
    if (is_symbol("(")) result.parameters = parse_parameters();
    result.expression = parse_expression();
    if (result.expression->kind != Kind::call) fail_here("{{% call %}} needs the call of a macro");
    result.body = parse_body_apart("endcall");
    return result;
  }

  Statement parse_filter_block() {
    Statement result = statement(Statement::Kind::filter);
    take();
    result.filter = parse_filter(make(Kind::name, ""));
    if (is_symbol("|")) result.filter = parse_filters(std::move(result.filter));
    result.body = parse_body_until("endfilter");
    return result;
  }

  Statement parse_with() {
    Statement result = statement(Statement::Kind::with);
    take();
    while (peek().kind == Token::Kind::name) {
      result.targets.push_back(expect_name());
      expect_symbol("=");
      result.values.push_back(parse_expression());
      if (!accept_symbol(",")) break;
    }
    result.body = parse_body_until("endwith");
    return result;
  }

  // transformers marks the assistant's words so; for the text it is no more than its body.
  Statement parse_generation() {
    Statement result = statement(Statement::Kind::block);
    take();
    result.body = parse_body_until("endgeneration");
    return result;
  }

  // -- expressions, weakest binding first

  ExpressionPtr parse_tuple() {
    return parse_tuple_of([&] { return parse_expression(); });
  }

  template <class ParseItem>
  ExpressionPtr parse_tuple_of(const ParseItem& parse_item) {
    ExpressionPtr first = parse_item();
    if (!is_symbol(",")) return first;
    ExpressionPtr tuple = make_with(Kind::tuple, "", std::move(first));
    while (accept_symbol(",")) {
      const bool ended = peek().kind == Token::Kind::block_end || peek().kind == Token::Kind::output_end ||
                         is_symbol(")") || is_symbol("=");
      if (ended) break;
      adopt(*tuple, parse_item());
    }
    return tuple;
  }

  ExpressionPtr parse_expression() {
    const Nested nested(*this);
    ExpressionPtr result = parse_or();
    while (accept_name("if")) {
      ExpressionPtr condition = parse_or();
      ExpressionPtr otherwise = accept_name("else") ? parse_expression() : nullptr;
      result = make_with(Kind::condition, "", std::move(result), std::move(condition), std::move(otherwise));
    }
    return result;
  }

  template <class ParseOperand>
  ExpressionPtr parse_chain(const std::vector<std::string_view>& operators,
                            const ParseOperand& parse_operand) {
    ExpressionPtr left = parse_operand();
    for (;;) {
      const bool is_word = peek().kind == Token::Kind::name, is_sign = peek().kind == Token::Kind::symbol;
      if (!is_word && !is_sign) return left;
      if (std::find(operators.begin(), operators.end(), peek().text) == operators.end()) return left;
      std::string text = take().text;
      ExpressionPtr right = parse_operand();
      left = make_with(Kind::binary, std::move(text), std::move(left), std::move(right));
    }
  }

  ExpressionPtr parse_or() {
    return parse_chain({"or"}, [&] { return parse_and(); });
  }
  ExpressionPtr parse_and() {
    return parse_chain({"and"}, [&] { return parse_not(); });
  }
  ExpressionPtr parse_not() {
    const Nested nested(*this);
    if (!is_name("not")) return parse_comparison();
    take();
    return make_with(Kind::unary, "not", parse_not());
  }

  ExpressionPtr parse_comparison() {
    ExpressionPtr first = parse_sum();
    ExpressionPtr result;
    const auto add = [&](std::string name) {
      if (!result) result = make_with(Kind::comparison, "", std::move(first));
      result->names.push_back(std::move(name));
      adopt(*result, parse_sum());
    };
    constexpr std::string_view signs[] = {"==", "!=", "<", ">", "<=", ">="};
    for (;;) {
      if (peek().kind == Token::Kind::symbol &&
          std::find(std::begin(signs), std::end(signs), peek().text) != std::end(signs)) {
        add(take().text);
      } else if (accept_name("in")) {
        add("in");
      } else if (is_name("not") && tokens_[at_ + 1].kind == Token::Kind::name &&
                 tokens_[at_ + 1].text == "in") {
        at_ += 2;
        add("not in");
      } else {
        return result ? std::move(result) : std::move(first);
      }
    }
  }

  ExpressionPtr parse_sum() {
    return parse_chain({"+", "-"}, [&] { return parse_concatenation(); });
  }
  ExpressionPtr parse_concatenation() {
    return parse_chain({"~"}, [&] { return parse_product(); });
  }
  ExpressionPtr parse_product() {
    return parse_chain({"*", "/", "//", "%"}, [&] { return parse_power(); });
  }
  ExpressionPtr parse_power() {
    return parse_chain({"**"}, [&] { return parse_filters(parse_unary()); });
  }

  ExpressionPtr parse_unary() {
    const Nested nested(*this);
    if (is_symbol("-") || is_symbol("+")) {
      std::string sign = take().text;
      return make_with(Kind::unary, std::move(sign), parse_unary());
    }
    return parse_postfix(parse_primary());
  }

  ExpressionPtr parse_primary() {
    const Token token = peek();
    switch (token.kind) {
      case Token::Kind::name: {
        if (token.text == "true" || token.text == "True") return take(), literal(true);
        if (token.text == "false" || token.text == "False") return take(), literal(false);
        if (token.text == "none" || token.text == "None") return take(), literal(None{});
        return take(), make(Kind::name, token.text);
      }
      case Token::Kind::string: {
        std::string text;
        while (peek().kind == Token::Kind::string) text += take().text;
        return literal(std::move(text));
      }
      case Token::Kind::integer: {
        int64_t number = 0;
        const auto [end, error] =
            std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
        if (error != std::errc()) fail_here("the number {} is too large", token.text);
        return take(), literal(number);
      }
      case Token::Kind::real: {
        double number = 0;
        const auto [end, error] =
            std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
        if (error != std::errc()) fail_here("the number {} is out of range", token.text);
        return take(), literal(number);
      }
      default:
        break;
    }
    if (accept_symbol("(")) {
      if (accept_symbol(")")) return make(Kind::tuple);
      ExpressionPtr inner = parse_tuple();
      expect_symbol(")");
      return inner;
    }
    if (accept_symbol("[")) {
      ExpressionPtr list = make(Kind::list);
      while (!accept_symbol("]")) {
        if (!list->operands.empty()) expect_symbol(",");
        if (!list->operands.empty() && accept_symbol("]")) break;
        adopt(*list, parse_expression());
      }
      return list;
    }
    if (accept_symbol("{")) {
      ExpressionPtr dict = make(Kind::dict);
      while (!accept_symbol("}")) {
        if (!dict->operands.empty()) expect_symbol(",");
        if (!dict->operands.empty() && accept_symbol("}")) break;
        adopt(*dict, parse_expression());
        expect_symbol(":");
        adopt(*dict, parse_expression());
      }
      return dict;
    }
    fail_here("expected a value, found {}", describe());
  }

  ExpressionPtr parse_postfix(ExpressionPtr value) {
    for (;;) {
      if (accept_symbol(".")) {
        if (peek().kind == Token::Kind::integer) {
          value = make_with(Kind::item, "", std::move(value), parse_primary());
        } else {
          value = make_with(Kind::attribute, expect_name(), std::move(value));
        }
      } else if (accept_symbol("[")) {
        value = parse_subscript(std::move(value));
      } else if (is_symbol("(")) {
        ExpressionPtr call = make_with(Kind::call, "", std::move(value));
        parse_arguments(*call);
        value = std::move(call);
      } else {
        return value;
      }
    }
  }

  ExpressionPtr parse_subscript(ExpressionPtr value) {
    std::array<ExpressionPtr, 3> parts;
    size_t part = 0;
    bool is_slice = false;
    while (!accept_symbol("]")) {
      if (accept_symbol(":")) {
        is_slice = true;
        if (++part == parts.size()) fail_here("a slice has more than three parts");
      } else if (parts[part]) {
        fail_here("expected \"]\", found {}", describe());
      } else {
        parts[part] = parse_expression();
      }
    }
    if (!is_slice && !parts[0]) fail_here("expected an index between the brackets");
    if (!is_slice) return make_with(Kind::item, "", std::move(value), std::move(parts[0]));
    return make_with(Kind::slice, "", std::move(value), std::move(parts[0]), std::move(parts[1]),
                     std::move(parts[2]));
  }

  void parse_arguments(Expression& call) {
    expect_symbol("(");
    for (bool first = true; !accept_symbol(")"); first = false) {
      if (!first) expect_symbol(",");
      if (!first && accept_symbol(")")) break;
      if (is_symbol("*") || is_symbol("**")) fail_here("unpacked arguments are not supported");
      const bool is_named = peek().kind == Token::Kind::name &&
                            tokens_[at_ + 1].kind == Token::Kind::symbol && tokens_[at_ + 1].text == "=";
      if (is_named) {
        std::string name = expect_name();
        expect_symbol("=");
        ExpressionPtr value = parse_expression();
        call.depth = std::max(call.depth, value->depth + 1);
        call.named.emplace_back(std::move(name), std::move(value));
      } else {
        if (!call.named.empty()) fail_here("a positional argument stands after a named one");
        adopt(call, parse_expression());
      }
    }
  }

  // value | filter is test | ...
  ExpressionPtr parse_filters(ExpressionPtr value) {
    for (;;) {
      if (accept_symbol("|")) {
        value = parse_filter(std::move(value));
      } else if (accept_name("is")) {
        value = parse_test(std::move(value));
      } else if (is_symbol("(") || is_symbol(".") || is_symbol("[")) {
        value = parse_postfix(std::move(value));
      } else {
        return value;
      }
    }
  }

  ExpressionPtr parse_filter(ExpressionPtr value) {
    ExpressionPtr filter = make_with(Kind::filter, expect_name(), std::move(value));
    if (is_symbol("(")) parse_arguments(*filter);
    return filter;
  }

  ExpressionPtr parse_test(ExpressionPtr value) {
    const bool negated = accept_name("not");
    ExpressionPtr test = make_with(Kind::test, expect_name(), std::move(value));
    if (is_symbol("(")) {
      parse_arguments(*test);
    } else if (begins_test_argument()) {
      adopt(*test, parse_postfix(parse_primary()));
    }
    return negated ? make_with(Kind::unary, "not", std::move(test)) : std::move(test);
  }

  bool begins_test_argument() const {
    switch (peek().kind) {
      case Token::Kind::string:
      case Token::Kind::integer:
      case Token::Kind::real:
        return true;
      case Token::Kind::symbol:
        return peek().text == "[" || peek().text == "{";
      case Token::Kind::name: {
        constexpr std::string_view others[] = {"else", "or", "and", "is", "if", "in", "not"};
        return std::find(std::begin(others), std::end(others), peek().text) == std::end(others);
      }
      default:
        return false;
    }
  }

  std::string_view what_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  size_t depth_ = 0;
  size_t loops_ = 0;
};

}  // namespace

std::vector<Statement> parse_template(std::string_view source, std::string_view what) {
  constexpr size_t longest = size_t{1} << 20;
  if (source.size() > longest) fail("{}: a template of {} is too long", what, human_bytes(source.size()));
  if (!is_utf8(source)) fail("{}: it is not UTF-8", what);
  return Parser(Lexer(source, what).run(), what).run();
}

}  // namespace lamina::jinja
