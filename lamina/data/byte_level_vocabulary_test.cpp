#include "lamina/data/byte_level_vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// "Ġ" is a space.
Json vocabulary() {
  return {{"a", 0}, {"b", 1}, {"ab", 2}, {"Ġ", 3}, {"Ġab", 4}, {"<|endoftext|>", 5}, {"<", 6}};
}
constexpr std::string_view kMerges = "#version: 0.2\na b\r\nĠ ab\n\n";

Tokenizer made(const Json& config, const Json& special_tokens = {}) {
  return gpt2_tokenizer(
      {.vocabulary = vocabulary(), .merges = kMerges, .config = config, .special_tokens = special_tokens},
      "model");
}

std::string refusal(const VocabularyFiles& files) {
  try {
    gpt2_tokenizer(files, "model");
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "was accepted";
  return "";
}

TEST(Gpt2Tokenizer, MergesAndTheEndOfText) {
  const Tokenizer tokenizer = made({});
  EXPECT_THAT(tokenizer.encode("ab ab<|endoftext|>a"), ElementsAre(2, 4, 5, 0));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{2, 4, 5}), "ab ab<|endoftext|>");
  EXPECT_EQ(tokenizer.bos(), 5);
  EXPECT_EQ(tokenizer.eos(), 5);
  EXPECT_EQ(tokenizer.pad(), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(5));
}

TEST(Gpt2Tokenizer, Settings) {
  EXPECT_THAT(made({{"add_prefix_space", true}}).encode("ab"), ElementsAre(4));
  EXPECT_THAT(made({{"add_bos_token", true}}).encode("ab"), ElementsAre(5, 2));
  const Tokenizer padded = made({{"pad_token", "<pad>"}});
  EXPECT_EQ(padded.pad(), 6 + 1) << "the next free id";
  EXPECT_THAT(padded.encode("a<pad>"), ElementsAre(0, 7));
  EXPECT_EQ(made({}, {{"eos_token", {{"content", "b"}}}}).eos(), 1) << "special_tokens_map.json";
  EXPECT_EQ(made({{"eos_token", "a"}}, {{"eos_token", "b"}}).eos(), 0) << "tokenizer_config.json goes before";
  const Tokenizer added = made({{"added_tokens_decoder", {{"9", {{"content", "<x>"}, {"rstrip", true}}}}}});
  EXPECT_THAT(added.encode("a<x> a"), ElementsAre(0, 9, 0));
  EXPECT_FALSE(added.is_special(9));
}

TEST(Gpt2Tokenizer, TheDocumentGivesTheSameIds) {
  const Tokenizer once = made({{"add_bos_token", true}});
  const Tokenizer again =
      Tokenizer::from_json(once.to_tokenizer_json(), once.to_tokenizer_config(), "tokenizer.json");
  EXPECT_EQ(again.encode("ab a<|endoftext|>"), once.encode("ab a<|endoftext|>"));
  EXPECT_EQ(again.eos(), once.eos());
}

TEST(Gpt2Tokenizer, SaysWhatIsWrong) {
  EXPECT_THAT(refusal({.vocabulary = Json::array(), .merges = ""}), HasSubstr("model: vocab.json"));
  EXPECT_THAT(refusal({.vocabulary = {{"a", "0"}}, .merges = ""}), HasSubstr("\"a\""));
  EXPECT_THAT(refusal({.vocabulary = vocabulary(), .merges = "a b\nab\n"}),
              HasSubstr("line 2 of merges.txt"));
  EXPECT_THAT(
      refusal({.vocabulary = vocabulary(), .merges = "", .config = {{"added_tokens_decoder", {{"x", 1}}}}}),
      HasSubstr("added_tokens_decoder has the key \"x\""));
  EXPECT_THAT(refusal({.vocabulary = vocabulary(), .merges = "", .config = {{"bos_token", 3}}}),
              HasSubstr("model"));
}

}  // namespace
}  // namespace lamina
