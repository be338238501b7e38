#include "lamina/heal/pictures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/image/captions.h"
#include "tests/help.h"

namespace lamina {
namespace {

using testing::HasSubstr;

std::string message_of_error(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Pictures, OfAFolderComeWithTheirCaptionsCroppedAndResized) {
  const tests::Folder folder;
  Picture wide = blank(8, 4);
  for (int64_t y = 0; y < 4; ++y) *wide.at(7, y) = 255;  // cropped away
  write_png(folder / "b.png", wide);
  write_png(folder / "a.png", blank(2, 2, 1, 100));
  write_file(folder / "a.txt", " a grey square \n");
  write_file(folder / "metadata.jsonl", "{\"file_name\": \"b.png\", \"text\": \"black\"}\n\n");
  const auto pictures = folder_pictures(folder.path(), {.width = 4, .height = 4});
  ASSERT_EQ(pictures->size(), 2);
  const Captioned first = pictures->at(0), second = pictures->at(1);
  EXPECT_EQ(first.caption, "a grey square");
  EXPECT_EQ(second.caption, "black");
  EXPECT_EQ(first.picture.width, 4);
  EXPECT_EQ(first.picture.channels, 3);
  EXPECT_EQ(*first.picture.at(3, 3), 100);
  EXPECT_EQ(second.picture.pixels, blank(4, 4).pixels);
  const auto some = some_of(*pictures, 1, 1);
  EXPECT_EQ(some->at(0).caption, "black");
  EXPECT_NE(some->digest(), pictures->digest());
  EXPECT_THAT(message_of_error([&] { some_of(*pictures, 1, 2); }), HasSubstr("there are 2"));
}

TEST(Pictures, WithoutACaptionAreRefused) {
  const tests::Folder folder;
  EXPECT_THAT(message_of_error([&] { folder_pictures(folder.path(), {}); }), HasSubstr("no PNG files"));
  write_png(folder / "a.png", blank(2, 2));
  EXPECT_THAT(message_of_error([&] { folder_pictures(folder.path(), {}); }), HasSubstr("a.txt"));
}

TEST(Pictures, CaptionsAreReadStrictly) {
  EXPECT_EQ(parse_captions("{\"file_name\": \"a.png\", \"text\": \"x\", \"more\": 1}\n", "test").at("a.png"),
            "x");
  for (const auto& [lines, said] :
       {std::pair("{\"file_name\": \"a.png\"}", "text"), std::pair("[]", "not an object"),
        std::pair("{\"file_name\": \"../a.png\", \"text\": \"x\"}", "another folder"),
        std::pair("{\"file_name\": \"a\", \"text\": \"\"}\n{\"file_name\": \"a\", \"text\": \"\"}", "twice"),
        std::pair("{", "line 1")})
    EXPECT_THAT(message_of_error([&] { parse_captions(lines, "test"); }), HasSubstr(said)) << lines;
}

TEST(Pictures, OfScenesAreThoseOfTheirSplit) {
  const scene::Options options{.seed = 3, .split = scene::Split::validation, .side = 16};
  const auto pictures = scene_pictures(options, 5);
  EXPECT_EQ(pictures->size(), 5);
  EXPECT_EQ(pictures->at(2).caption, scene::caption(scene::scene_at(2, options)));
  EXPECT_EQ(pictures->at(2).picture.pixels, scene::painted(scene::scene_at(2, options)).pixels);
}

}  // namespace
}  // namespace lamina
