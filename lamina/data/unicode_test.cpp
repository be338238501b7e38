#include "lamina/data/unicode.h"

#include <gtest/gtest.h>

namespace lamina {
namespace {

TEST(Unicode, KnowsHowMuchOfACharacterIsMissing) {
  EXPECT_EQ(incomplete_utf8_tail(""), 0u);
  EXPECT_EQ(incomplete_utf8_tail("abc"), 0u);
  EXPECT_EQ(incomplete_utf8_tail("a\xC3"), 1u);
  EXPECT_EQ(incomplete_utf8_tail("a\xE2\x82"), 2u);
  EXPECT_EQ(incomplete_utf8_tail("a\xF0\x9F\x92"), 3u);
  EXPECT_EQ(incomplete_utf8_tail("a\xE2\x82\xAC"), 0u);
  EXPECT_EQ(incomplete_utf8_tail("a\xFF"), 0u);
  EXPECT_EQ(incomplete_utf8_tail("a\xED\xA0"), 0u);  // a surrogate, which no byte completes
}

TEST(Unicode, ReadsAndWritesCodePoints) {
  for (const char32_t c :
       {U'\0', U'a', U'\x7F', U'\x80', U'\x7FF', U'\x800', U'\xFFFF', U'\x10000', U'\x10FFFF'}) {
    const std::string text = "x" + utf8(c);
    EXPECT_EQ(first_code_point(utf8(c)).value, c);
    EXPECT_EQ(last_code_point(text).value, c);
    EXPECT_EQ(last_code_point(text).length, utf8(c).size());
    EXPECT_EQ(count_code_points(text), 2u);
  }
}

TEST(Unicode, ComposesAndOrdersMarks) {
  EXPECT_EQ(normalize("e\xCC\x81", NormalForm::nfc), "\xC3\xA9");
  EXPECT_EQ(normalize("\xC3\xA9", NormalForm::nfd), "e\xCC\x81");
  EXPECT_EQ(normalize("\xEF\xAC\x81", NormalForm::nfkc), "fi");
  EXPECT_EQ(normalize("\xEF\xAC\x81", NormalForm::nfc), "\xEF\xAC\x81");
  EXPECT_EQ(normalize("q\xCC\x81\xCC\xA3", NormalForm::nfd), "q\xCC\xA3\xCC\x81");
  EXPECT_EQ(normalize("\xE1\x84\x80\xE1\x85\xA1", NormalForm::nfc), "\xEA\xB0\x80");
  EXPECT_EQ(normalize("plain", NormalForm::nfkd), "plain");
}

TEST(Unicode, ChangesCaseAndStrips) {
  EXPECT_EQ(lowercase("\xC4\xB0\xCE\xA3"), "i\xCC\x87\xCF\x83");
  EXPECT_EQ(uppercase("stra\xC3\x9F"
                      "e"),
            "STRASSE");
  EXPECT_EQ(strip_left("\xE3\x80\x80 a "), "a ");
  EXPECT_EQ(strip_right(" a\xC2\xA0\n"), " a");
  EXPECT_EQ(strip_right(" \n"), "");
}

}  // namespace
}  // namespace lamina
