#include "lamina/data/text_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "lamina/base/error.h"
#include "lamina/base/file.h"

namespace lamina {
namespace {

using testing::ElementsAre;

// One token a letter; "#" stands at the head.
Tokenizer letters() {
  Json vocab = Json::object();
  for (const char* token : {"#", "a", "b", "c", " "}) vocab[token] = vocab.size();
  return Tokenizer::from_json(
      {{"added_tokens", {{{"id", 0}, {"content", "#"}, {"special", true}}}},
       {"post_processor",
        {{"type", "TemplateProcessing"},
         {"single", {{{"SpecialToken", {{"id", "#"}}}}, {{"Sequence", {{"id", "A"}}}}}},
         {"special_tokens", {{"#", {{"id", "#"}, {"ids", {0}}}}}}}},
       {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}},
      nullptr, "letters");
}

std::string error_of(std::string_view text, const CalibrationOptions& options) {
  try {
    calibration_samples(text, letters(), options);
    return "no error";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(TextSet, JoinsLinesThatAreNotEmpty) {
  EXPECT_EQ(join_lines("  a b \n\n\t\n c\r\nd\re  "), "a b c d e");
  EXPECT_EQ(join_lines("\xE3\x80\x80x\xC2\xA0\n"), "x");
  EXPECT_EQ(join_lines(" \n \n"), "");
  EXPECT_EQ(join_lines("a\xFF"), "a\xEF\xBF\xBD");
}

TEST(TextSet, CutsSamplesWithSpecialTokensOnceAtTheHead) {
  const auto samples = calibration_samples("ab\n\ncab\nccc", letters(), {.samples = 2, .length = 3});
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_THAT(samples[0], ElementsAre(0, 1, 2));
  EXPECT_THAT(samples[1], ElementsAre(4, 3, 1));
}

TEST(TextSet, TakesATextThatIsJustLongEnough) {
  EXPECT_EQ(calibration_samples("abcab", letters(), {.samples = 2, .length = 3}).size(), 2u);
}

TEST(TextSet, SaysHowManyTokensThereAre) {
  EXPECT_EQ(error_of("abcab", {.samples = 3, .length = 3, .what = "calib.txt"}),
            "calib.txt has 6 tokens where 3 samples of 3 need 9; take a longer text, or at most 2 samples");
  EXPECT_EQ(error_of("a", {.samples = 1, .length = 30, .what = "calib.txt"}),
            "calib.txt has 2 tokens where 1 sample of 30 needs 30; take a longer text or a shorter length");
  EXPECT_EQ(error_of(" \n ", {.samples = 3, .length = 3}),
            "the calibration text is empty where 3 samples of 3 tokens were expected");
  EXPECT_EQ(error_of("a", {.samples = 0, .length = 3}),
            "the calibration text: 0 samples of 3 tokens cannot be taken; both numbers must be at least 1");
  EXPECT_EQ(error_of("a", {.samples = 1, .length = -3}),
            "the calibration text: 1 samples of -3 tokens cannot be taken; both numbers must be at least 1");
}

TEST(TextSet, ReadsFiles) {
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("lamina_text_set_{}", getpid());
  std::filesystem::create_directories(folder);
  write_file(folder / "a.txt", "\xEF\xBB\xBFh\xE9llo\n");
  EXPECT_EQ(read_text_file(folder / "a.txt"), "h\xEF\xBF\xBDllo\n");
  EXPECT_THROW(read_text_file(folder / "none.txt"), Error);
  EXPECT_THROW(read_text_file(folder), Error);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace lamina
