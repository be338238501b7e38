#include "lamina/data/pattern.h"

#include <pcre2.h>

#include <array>
#include <new>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace {

// PCRE2's \s counts U+180E, and its \w leaves out marks and connectors; Oniguruma's do as Unicode says.
constexpr std::string_view word_class = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";

// Rewrites the few escapes that mean something else in PCRE2, and refuses what cannot be rewritten.
std::string translate(std::string_view expression, std::string_view what) {
  const auto refuse = [&](std::string_view part) {
    fail("{}: the regular expression {} uses {}, which is not supported", what, in_quotes(expression), part);
  };
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\' && i + 1 < expression.size()) {
      const char escaped = expression[++i];
      switch (escaped) {
        case 's':
          out += "\\p{WSpace}";
          break;
        case 'S':
          out += "\\P{WSpace}";
          break;
        case 'w':
          out += in_class ? std::string(word_class) : fmt::format("[{}]", word_class);
          break;
        case 'W':
          if (in_class) refuse("\\W inside a class");
          out += fmt::format("[^{}]", word_class);
          break;
        case 'h':
          out += in_class ? "0-9a-fA-F" : "[0-9a-fA-F]";
          break;
        case 'H':
        case 'C':
        case 'K':
        case 'g':
          refuse(fmt::format("\\{}", escaped));
          break;
        default:
          out += {'\\', escaped};
      }
      continue;
    }
    if (!in_class && c == '[') {
      in_class = true;
      out += c;
      if (expression.substr(i + 1, 1) == "^") out += expression[++i];
      if (expression.substr(i + 1, 1) == "]") out += "\\]", ++i;
      continue;
    }
    if (in_class && c == '[') {
      const size_t end =
          expression.substr(i + 1, 1) == ":" ? expression.find(":]", i + 2) : std::string_view::npos;
      if (end == std::string_view::npos) refuse("a class inside a class");
      out += expression.substr(i, end + 2 - i);
      i = end + 1;
      continue;
    }
    if (in_class && c == ']') in_class = false;
    if (in_class && expression.substr(i, 2) == "&&") refuse("the intersection of classes");
    out += c;
  }
  return out;
}

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};

using Code = std::unique_ptr<pcre2_code, Freed<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Freed<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Freed<pcre2_jit_stack_free>>;

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 160> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

// What a match writes to: one for each thread, since a pattern is shared.
struct Workspace {
  Workspace()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(size_t{32} << 10, size_t{4} << 20, nullptr)) {
    if (!data || !context) throw std::bad_alloc();
    pcre2_set_match_limit(context.get(), 2'000'000);
    pcre2_set_depth_limit(context.get(), 100'000);
    pcre2_set_heap_limit(context.get(), 64 << 10);  // kibibytes
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
  MatchData data;
  MatchContext context;
  JitStack stack;
};

}  // namespace

struct Pattern::Compiled {
  std::string expression, what;
  std::string text;  // of a literal
  Code code;         // null for a literal
};

Pattern::Pattern(std::string_view expression, std::string_view what) {
  constexpr size_t longest = size_t{64} << 10;
  if (expression.size() > longest) {
    fail("{}: a regular expression of {} is longer than the {} allowed", what, human_bytes(expression.size()),
         human_bytes(longest));
  }
  const std::string source = translate(expression, what);
  const CompileContext context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  size_t offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                          context.get()));
  if (!code)
    fail("{}: the regular expression {} is not valid: {}", what, in_quotes(expression), message_of(error));
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, the interpreter runs
  compiled_ = std::make_shared<const Compiled>(
      Compiled{std::string(expression), std::string(what), {}, std::move(code)});
}

Pattern Pattern::literal(std::string_view text, std::string_view what) {
  if (text.empty()) fail("{}: a pattern is an empty text", what);
  Pattern pattern;
  pattern.compiled_ = std::make_shared<const Compiled>(
      Compiled{std::string(text), std::string(what), std::string(text), nullptr});
  return pattern;
}

std::optional<Pattern::Match> Pattern::find(std::string_view text, size_t from) const {
  if (!compiled_->code) {
    const size_t at = text.find(compiled_->text, from);
    if (at == std::string_view::npos) return std::nullopt;
    return Match{at, at + compiled_->text.size()};
  }
  thread_local const Workspace workspace;
  // The text is known to be valid; checking it again for every match would be quadratic.
  const int result =
      pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                  PCRE2_NO_UTF_CHECK, workspace.data.get(), workspace.context.get());
  if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (result < 0) {
    fail("{}: the regular expression {} cannot be matched: {}", compiled_->what,
         in_quotes(compiled_->expression), message_of(result));
  }
  const size_t* span = pcre2_get_ovector_pointer(workspace.data.get());
  return Match{span[0], span[1]};
}

}  // namespace lamina
