#include "lamina/image/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/random.h"
#include "tests/help.h"

namespace lamina {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using tests::refusal;

Picture noise(int64_t width, int64_t height, int channels, uint64_t seed = 1) {
  Picture picture = blank(width, height, channels);
  SplitMix random(seed);
  for (uint8_t& value : picture.pixels) value = static_cast<uint8_t>(random.next());
  return picture;
}

ReadPicture seed(const std::string& name) {
  return read_png(std::filesystem::path("fuzz/corpus/png") / name);
}

std::string refused(const std::string& bytes) {
  return refusal([&] { read_png(as_bytes(bytes), "x.png"); });
}

TEST(Png, ComesBackAsItWasWritten) {
  for (const int channels : {1, 3, 4}) {
    const Picture picture = noise(17, 9, channels);
    const ImageTexts texts = {{"parameters", "a red ring, Steps: 5"},
                              {"lamina", "{\"prompt\": \"ein Käse 猫\"}"}};
    const std::string bytes = png_bytes(picture, texts);
    EXPECT_EQ(bytes, png_bytes(picture, texts));
    const ReadPicture back = read_png(as_bytes(bytes), "x.png");
    EXPECT_EQ(back.picture.channels, channels);
    EXPECT_EQ(back.picture.width, 17);
    EXPECT_EQ(back.picture.pixels, picture.pixels);
    EXPECT_EQ(back.texts, texts);
    EXPECT_EQ(bytes.find("tEXtparameters") != std::string::npos, true);
    EXPECT_EQ(bytes.find("iTXtlamina") != std::string::npos, true);
  }
}

TEST(Png, EveryKindBecomesEightBits) {
  const ReadPicture rgb = seed("rgb_texts");
  EXPECT_THAT(rgb.texts,
              ElementsAre(Pair("Title", "café"), Pair("Long", std::string(50, 'a')), Pair("Late", "Käse")));
  EXPECT_EQ(rgb.picture.at(4, 2)[0], 160);
  EXPECT_EQ(rgb.picture.at(4, 2)[1], 100);
  EXPECT_EQ(seed("interlaced").picture.pixels, rgb.picture.pixels);
  EXPECT_EQ(seed("apng").picture.pixels, rgb.picture.pixels);
  EXPECT_THAT(seed("grey16").picture.pixels, ElementsAre(128, 255));
  EXPECT_THAT(seed("grey_alpha").picture.pixels, ElementsAre(16, 16, 16, 255, 32, 32, 32, 0));
  const Picture palette = seed("palette_trns").picture;
  EXPECT_EQ(palette.channels, 4);
  EXPECT_THAT(std::vector(palette.at(0, 0), palette.at(0, 0) + 8),
              ElementsAre(0, 10, 20, 0, 30, 40, 50, 128));
  EXPECT_THAT(std::vector(palette.at(0, 1), palette.at(0, 1) + 4), ElementsAre(90, 100, 110, 255));
}

TEST(Png, DamageIsASentence) {
  const std::string whole = png_bytes(noise(40, 30, 3));
  EXPECT_THAT(refused("GIF89a"), HasSubstr("x.png: is not a PNG file"));
  for (size_t length = 8; length < whole.size(); length += 7)
    EXPECT_THAT(refused(whole.substr(0, length)), HasSubstr("x.png: is"));
  std::string flipped = whole;
  flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 1);
  EXPECT_THAT(refused(flipped), HasSubstr("x.png: is damaged"));
}

std::string with_header(const std::string& sizes_and_crc) {
  return png_bytes(noise(2, 2, 3))
      .replace(16, 8, sizes_and_crc.substr(0, 8))
      .replace(29, 4, sizes_and_crc.substr(8));
}

TEST(Png, SizesThatCannotBeAreRefused) {
  using namespace std::string_literals;
  EXPECT_THAT(refused(with_header("\0\0\0\0\0\0\0\0\xb7\x65\x44\x9f"s)), HasSubstr("x.png: is damaged"));
  EXPECT_THAT(refused(with_header("\0\0\x40\0\0\0\x40\0@@@@"s)), HasSubstr("x.png: is damaged"));  // its CRC
  EXPECT_THAT(refusal([] { blank(0, 5); }), HasSubstr("0 x 5"));
  EXPECT_THAT(refusal([] { blank(100'000, 100'000); }), HasSubstr("million"));
}

TEST(Png, OddTextsAreRefused) {
  const Picture picture = blank(1, 1);
  EXPECT_THAT(refusal([&] { png_bytes(picture, {{"", "a"}}); }), HasSubstr("no keyword"));
  EXPECT_THAT(refusal([&] { png_bytes(picture, {{"a", "\xff"}}); }), HasSubstr("not UTF-8"));
  EXPECT_THAT(refusal([&] { png_bytes({.width = 2, .height = 2}); }), HasSubstr("cannot be written"));
}

TEST(Picture, AlphaGoesOntoWhite) {
  Picture picture = blank(2, 1, 4);
  picture.pixels = {200, 0, 0, 255, 200, 0, 0, 0};
  EXPECT_THAT(flat(picture).pixels, ElementsAre(200, 0, 0, 255, 255, 255));
}

TEST(Picture, IsResized) {
  const Picture picture = noise(12, 8, 3);
  EXPECT_EQ(resized(picture, 12, 8).pixels, picture.pixels);
  const Picture half = resized(picture, 6, 4);
  const int sum = picture.at(2, 2)[1] + picture.at(3, 2)[1] + picture.at(2, 3)[1] + picture.at(3, 3)[1];
  EXPECT_NEAR(half.at(1, 1)[1], sum / 4.0, 0.51);
  Picture two = blank(2, 1, 1);
  two.pixels = {0, 100};
  EXPECT_THAT(resized(two, 4, 1).pixels, ElementsAre(0, 25, 75, 100));
  EXPECT_EQ(resized(blank(7, 5, 3, 9), 3, 11).pixels, blank(3, 11, 3, 9).pixels);
}

TEST(Picture, UnseenColoursDoNotBleed) {
  Picture picture = blank(2, 1, 4);
  picture.pixels = {10, 20, 30, 255, 250, 250, 250, 0};
  EXPECT_THAT(resized(picture, 1, 1).pixels, ElementsAre(10, 20, 30, 128));
}

TEST(Picture, GridHasAGapOfWhite) {
  const Picture all = grid({blank(2, 2, 3, 1), blank(2, 2, 3, 2), blank(2, 2, 3, 3)}, 2, 1);
  EXPECT_EQ(all.width, 5);
  EXPECT_EQ(all.height, 5);
  EXPECT_EQ(*all.at(0, 0), 1);
  EXPECT_EQ(*all.at(2, 0), 255);
  EXPECT_EQ(*all.at(3, 1), 2);
  EXPECT_EQ(*all.at(0, 3), 3);
  EXPECT_EQ(*all.at(4, 4), 255);
  EXPECT_THAT(refusal([] { grid({blank(2, 2), blank(2, 3)}, 2); }), HasSubstr("one size"));
}

}  // namespace
}  // namespace lamina
