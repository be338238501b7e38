#include "lamina/cli/words.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <string>

#include "lamina/base/file.h"
#include "lamina/base/random.h"
#include "lamina/base/text.h"
#include "lamina/data/unicode.h"

namespace lamina::cli {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

std::vector<std::string> cut(std::string_view text) {
  std::vector<std::string> words;
  for (const WordPiece& word : words_of(text))
    words.emplace_back(text.substr(word.begin, word.end - word.begin));
  return words;
}

TEST(Words, Punctuation) {
  EXPECT_THAT(cut("Hello, world!"), ElementsAre("Hello", ",", "world", "!"));
  EXPECT_THAT(cut("\"So,\" (she) said..."),
              ElementsAre("\"", "So", ",", "\"", "(", "she", ")", "said", "..."));
  EXPECT_THAT(cut("What?! No!!!"), ElementsAre("What", "?!", "No", "!!!"));
  EXPECT_THAT(cut("end.Next one--two"), ElementsAre("end", ".", "Next", "one", "--", "two"));
  EXPECT_THAT(cut(" \t "), ElementsAre());
  EXPECT_THAT(cut(""), ElementsAre());
  EXPECT_THAT(cut("."), ElementsAre("."));
}

TEST(Words, WhatSocialTextHas) {
  EXPECT_THAT(cut("@user: see #tag, https://t.co/a?b=c."),
              ElementsAre("@user", ":", "see", "#tag", ",", "https://t.co/a?b=c", "."));
  EXPECT_THAT(cut("(www.example.org)"), ElementsAre("(", "www.example.org", ")"));
  EXPECT_THAT(cut("go :-) now :( <3 =D"), ElementsAre("go", ":-)", "now", ":(", "<3", "=D"));
  EXPECT_THAT(cut("R&amp;B &lt;3"), ElementsAre("R", "&amp;", "B", "&lt;", "3"));
  EXPECT_THAT(cut("@ # &"), ElementsAre("@", "#", "&"));
  EXPECT_THAT(cut("me@example.org"), ElementsAre("me", "@example", ".", "org"));
}

TEST(Words, NumbersAbbreviationsContractions) {
  EXPECT_THAT(cut("at 7:30 p.m., 30,000 or 3.5% of $100"),
              ElementsAre("at", "7:30", "p.m.", ",", "30,000", "or", "3.5%", "of", "$100"));
  EXPECT_THAT(cut("the U.S. and AT&T"), ElementsAre("the", "U.S.", "and", "AT&T"));
  EXPECT_THAT(cut("It's Ann’s dog; don't, I'm so-so"),
              ElementsAre("It", "'s", "Ann", "’s", "dog", ";", "don't", ",", "I'm", "so-so"));
  EXPECT_THAT(cut("'s 's' 80's"), ElementsAre("'", "s", "'", "s", "'", "80", "'s"));
}

TEST(Words, OtherScripts) {
  EXPECT_THAT(cut("Grüße, 世界! Привет-мир"), ElementsAre("Grüße", ",", "世", "界", "!", "Привет-мир"));
  EXPECT_THAT(cut("no\xCC\x88l e\xCC\x81t\xC3\xA9"), ElementsAre("no\xCC\x88l", "e\xCC\x81t\xC3\xA9"));
  // A heart with its variation, a family joined, a flag of two letters, a thumb of a colour.
  EXPECT_THAT(cut("❤️👩‍👧🇩🇪🇫🇷👍🏽x"),
              ElementsAre("❤️", "👩‍👧", "🇩🇪", "🇫🇷", "👍🏽", "x"));
}

// Whatever the text, words stand in its order and only white space and controls between them.
TEST(Words, NothingIsLost) {
  SplitMix random(7);
  const std::u32string letters = U"aB3 \t.,'’s:-)/&;@#!?…世é\u0301❤\uFE0F\u200D👩🇩🏽$%+<_\u0007";
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (int64_t n = random.below(24); n > 0; --n)
      text += utf8(letters[static_cast<size_t>(random.below(static_cast<int64_t>(letters.size())))]);
    size_t end = 0;
    for (const WordPiece& word : words_of(text)) {
      ASSERT_LE(end, word.begin) << in_quotes(text);
      ASSERT_LT(word.begin, word.end) << in_quotes(text);
      ASSERT_TRUE(is_utf8(text.substr(word.begin, word.end - word.begin))) << in_quotes(text);
      for (std::string_view gap = std::string_view(text).substr(end, word.begin - end); !gap.empty();) {
        const CodePoint point = first_code_point(gap);
        ASSERT_TRUE(is_whitespace(point.value) || point.value == 7) << in_quotes(text);
        gap.remove_prefix(point.length);
      }
      end = word.end;
    }
    for (char c : text.substr(end)) ASSERT_TRUE(c == ' ' || c == '\t' || c == 7) << in_quotes(text);
  }
}

// The words of a corpus, each alone, are words here too.
TEST(Words, OfACorpus) {
  const fs::path corpus = "../shared/data/wnut17/wnut17train.conll";
  if (!fs::exists(corpus)) GTEST_SKIP() << corpus << " is not there";
  int64_t words = 0, whole = 0;
  for (const std::string& line : split(read_file(corpus), '\n')) {
    const std::string word(trim(line.substr(0, line.find('\t'))));
    if (word.empty()) continue;
    ++words;
    whole += cut(word) == std::vector{word} ? 1 : 0;
  }
  EXPECT_GT(words, 60000);
  EXPECT_GT(static_cast<double>(whole) / static_cast<double>(words), 0.98);
}

}  // namespace
}  // namespace lamina::cli
