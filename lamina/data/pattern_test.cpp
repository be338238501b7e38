#include "lamina/data/pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"

namespace lamina {
namespace {

std::string first(const char* expression, std::string_view text) {
  const auto match = Pattern(expression, "test").find(text, 0);
  return match ? std::string(text.substr(match->begin, match->end - match->begin)) : "no match";
}

TEST(Pattern, ReadsClassesAsOnigurumaDoes) {
  EXPECT_EQ(first("\\s+", "a\xC2\x85\xE2\x80\x83z"), "\xC2\x85\xE2\x80\x83");
  EXPECT_EQ(first("\\s", "\xE1\xA0\x8E"), "no match");  // U+180E is white space to PCRE2 alone
  EXPECT_EQ(first("[\\s]", "\xE1\xA0\x8E"), "no match");
  EXPECT_EQ(first("\\w+", "a\xCC\x81_\xE2\x80\xBF-"), "a\xCC\x81_\xE2\x80\xBF");
  EXPECT_EQ(first("[^\\w]+", "a--b"), "--");
  EXPECT_EQ(first("\\h+", "xyzBEEF"), "BEEF");
  EXPECT_EQ(first("[]a]+", "b]a"), "]a");
  EXPECT_EQ(first("[[:alpha:]]+", "1ab"), "ab");
  EXPECT_EQ(first("^b", "a\nb"), "b");
  EXPECT_EQ(first("(?i:'S)", "it's"), "'s");
}

TEST(Pattern, LooksAheadAndBehind) {
  EXPECT_EQ(first("\\s+(?!\\S)", "  x"), " ");
  const auto match = Pattern("(?<=a)b", "test").find("ab", 1);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->begin, 1u);
}

TEST(Pattern, RefusesWhatItWouldReadDifferently) {
  for (const char* expression :
       {"(", "[a", "[a[b]]", "[a&&b]", "\\C", "\\Ka", "[\\W]", "\\H", "(?<n>a)\\g<n>"}) {
    EXPECT_THROW(Pattern(expression, "test"), Error) << expression;
  }
  EXPECT_THROW(Pattern(std::string(100000, 'a'), "test"), Error);
  EXPECT_THROW(Pattern(std::string(5000, '(') + std::string(5000, ')'), "test"), Error);
  EXPECT_THROW(Pattern::literal("", "test"), Error);
}

}  // namespace
}  // namespace lamina
