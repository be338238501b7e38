#include "lamina/data/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "lamina/base/error.h"
#include "lamina/base/file.h"

namespace lamina {
namespace {

using testing::HasSubstr;

const Json& golden() {
  static const Json json = parse_json(read_file("tests/golden/chat_templates.json"), "chat_templates.json");
  return json;
}

ChatMessage message_of(const Json& json) {
  ChatMessage message{.role = json.at("role"), .content = json.at("content"), .more = json};
  message.more.erase("role");
  message.more.erase("content");
  return message;
}

std::vector<ChatMessage> messages_of(const Json& list) {
  std::vector<ChatMessage> messages;
  for (const Json& message : list) messages.push_back(message_of(message));
  return messages;
}

std::string error_of(const std::string& source, const ChatOptions& options = {}) {
  try {
    return "rendered: " + render_chat(source, {{.role = "user", .content = "hi"}}, options).substr(0, 200);
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(ChatTemplate, RendersWholeTemplatesAsTransformersDoes) {
  for (const Json& expected : golden().at("cases")) {
    const std::string source = golden().at("templates").at(expected.at("name").get<std::string>());
    const ChatOptions options{.add_generation_prompt = expected.at("add_generation_prompt"),
                              .bos_token = "<s>",
                              .eos_token = "</s>",
                              .variables = expected.at("variables")};
    const auto messages = messages_of(expected.at("messages"));
    if (expected.contains("error")) {
      EXPECT_THROW(render_chat(source, messages, options), Error) << expected.dump();
    } else {
      std::string rendered;
      ASSERT_NO_THROW(rendered = render_chat(source, messages, options)) << expected.dump();
      EXPECT_EQ(rendered, expected.at("output").get<std::string>()) << expected.dump();
    }
  }
}

TEST(ChatTemplate, RendersSnippetsAsTransformersDoes) {
  for (const Json& snippet : golden().at("snippets")) {
    const std::string source = snippet.at("template");
    std::string rendered;
    EXPECT_NO_THROW(rendered = render_chat(source, {{.role = "user", .content = "hi"}}))
        << source << error_of(source);
    EXPECT_EQ(rendered, snippet.at("output").get<std::string>()) << source;
  }
}

TEST(ChatTemplate, RefusesWhatTransformersRefuses) {
  for (const Json& source : golden().at("failing")) {
    EXPECT_THAT(error_of(source), HasSubstr("chat template, line 1: ")) << source;
  }
}

TEST(ChatTemplate, NamesTheLineAndTheReason) {
  EXPECT_EQ(error_of("a\n{{ x.y }}"), "chat template, line 2: \"x\" is undefined");
  EXPECT_EQ(error_of("\n\n{{ raise_exception('roles must alternate') }}"),
            "chat template, line 3: the template refuses these messages: roles must alternate");
  EXPECT_EQ(error_of("{% import 'x' as y %}"), "chat template, line 1: the tag \"import\" is not supported");
  EXPECT_EQ(error_of("{% if a %}x"),
            "chat template, line 1: expected {% elif %} or {% else %} or {% endif %}, found the end of the "
            "template");
  EXPECT_EQ(error_of("{{ x | pprint }}", {.what = "my.jinja"}),
            "my.jinja, line 1: the filter \"pprint\" is not supported");
}

TEST(ChatTemplate, TakesTheTimeFromTheClock) {
  const ChatOptions options{
      .clock = [] { return std::chrono::system_clock::time_point(std::chrono::seconds(86400)); }};
  EXPECT_EQ(render_chat("{{ strftime_now('%d %b %Y') }}", {}, options), "02 Jan 1970");
}

TEST(ChatTemplate, RepairsMessagesThatAreNotUtf8) {
  EXPECT_EQ(render_chat("{{ messages[0].content }}", {{.role = "user", .content = "a\xFF"}}),
            "a\xEF\xBF\xBD");
}

// Class 7 of the malformed inputs: time, memory and stack stay bounded, whatever the template.
TEST(ChatTemplate, BoundsItsWork) {
  const std::string loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
  EXPECT_THAT(error_of(loops), HasSubstr("of values"));
  const std::string doubling =
      "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}";
  EXPECT_THAT(error_of(doubling + "{{ m(60) }}"), HasSubstr("5,000,000 steps"));
  EXPECT_THAT(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("nest deeper"));
  EXPECT_THAT(error_of("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("nest deeper"));
  EXPECT_THAT(error_of("{{ 'a' * 99999999999 }}"), HasSubstr("grows beyond"));
  EXPECT_THAT(error_of("{{ [1] * 99999999999 }}"), HasSubstr("grows beyond"));
  EXPECT_THAT(error_of("{{ range(99999999999) }}"), HasSubstr("more than 100,000 numbers"));
  EXPECT_THAT(
      error_of("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}"
               "{% endfor %}"),
      HasSubstr("of values"));
  EXPECT_THAT(error_of("{% set s = 'x' * 1000000 %}{% for i in range(999) %}{{ s }}{% endfor %}"),
              HasSubstr("writes more"));
  EXPECT_THAT(
      error_of("{{ s | replace('', 'x' * 1000000) }}{{ ('y' * 10000) | replace('', 'x' * 1000000) }}"),
      HasSubstr("of values"));
  EXPECT_THAT(
      error_of("{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}"),
      HasSubstr("nest deeper"));
  EXPECT_THAT(error_of("{% set ns = namespace() %}{% set ns.me = ns %}"), HasSubstr("cannot be a field"));
  EXPECT_THAT(error_of("{{ 9223372036854775807 + 1 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ -9223372036854775807 - 1 }}{{ (-9223372036854775807 - 1) // -1 }}"),
              HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ 99999999999999999999 }}"), HasSubstr("too large"));
}

TEST(ChatTemplate, BoundsItsNesting) {
  const auto repeat = [](std::string_view text, size_t times) {
    std::string out;
    for (size_t i = 0; i < times; ++i) out += text;
    return out;
  };
  for (const std::string& source : {
           "{{ " + repeat("(", 100000) + "1" + repeat(")", 100000) + " }}",
           "{{ " + repeat("[", 100000) + repeat("]", 100000) + " }}",
           "{{ " + repeat("{'a': ", 100000) + "1" + repeat("}", 100000) + " }}",
           "{{ " + repeat("not ", 100000) + "1 }}",
           "{{ " + repeat("-", 100000) + "1 }}",
           "{{ " + repeat("1 if ", 100000) + "1 }}",
           "{{ 1" + repeat(" + 1", 100000) + " }}",
           "{{ 1" + repeat(" ** 1", 100000) + " }}",
           "{{ 'a'" + repeat(" | trim", 100000) + " }}",
           "{{ a" + repeat(".b", 100000) + " }}",
           "{{ a" + repeat("[0]", 100000) + " }}",
           "{{ a" + repeat("()", 100000) + " }}",
           repeat("{% if 1 %}", 40000) + repeat("{% endif %}", 40000),
           "{% if 1 %}" + repeat("{% elif 1 %}", 50000) + "{% endif %}",
           repeat("{% for a in [1] %}", 50000),
           repeat("{% macro m() %}", 50000),
       }) {
    EXPECT_THAT(error_of(source), HasSubstr("nests deeper than")) << source.substr(0, 40);
  }
}

TEST(ChatTemplate, SurvivesEveryTruncationAndEveryDroppedByte) {
  for (const auto& [name, source] : golden().at("templates").items()) {
    const std::string text = source;
    for (size_t i = 0; i < text.size(); i += 3) {
      error_of(text.substr(0, i));
      error_of(text.substr(0, i) + text.substr(i + 1));
    }
  }
  EXPECT_THAT(error_of("\xFF"), HasSubstr("not UTF-8"));
  EXPECT_EQ(error_of(""), "rendered: ");
}

}  // namespace
}  // namespace lamina
