#include "lamina/data/prompt_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/data/clip_vocabulary.h"
#include "tests/help.h"

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using tests::Folder;
using tests::refusal;

constexpr const char* kBegin = "<|startoftext|>";
constexpr const char* kEnd = "<|endoftext|>";

Json vocabulary() {
  return {{"!", 0},      {"a", 1},       {"b", 2},     {"a</w>", 3}, {"b</w>", 4},
          {"ab</w>", 5}, {"1</w>", 6},   {"!</w>", 7}, {"'", 8},     {"s", 9},
          {"s</w>", 10}, {"'s</w>", 11}, {"1", 12},    {kBegin, 13}, {kEnd, 14}};
}
constexpr std::string_view kMerges = "#version: 0.2\na b</w>\n' s</w>\n";

Tokenizer clip(const Json& config = {}, const Json& map = {}, const Json& added = {}) {
  return clip_tokenizer({.vocabulary = vocabulary(),
                         .merges = kMerges,
                         .config = config,
                         .special_tokens = map,
                         .added = added},
                        "model");
}

TEST(ClipTokenizer, WordsEndAndCaseAndSpacesDoNotMatter) {
  EXPECT_THAT(clip().encode("  AB\n\ta 11's"), ElementsAre(13, 5, 3, 6, 6, 11, 14));
  EXPECT_THAT(clip().encode(""), ElementsAre(13, 14));
  EXPECT_THAT(clip().encode("a<|endoftext|>b"), ElementsAre(13, 3, 14, 4, 14));
  EXPECT_THAT(clip().encode("z"), ElementsAre(13, 14, 14)) << "unknown is the end of text";
  EXPECT_EQ(clip().decode(std::vector<int32_t>{5, 3, 6}), "ab a 1");
}

// As in transformers, a token that the settings name is found anywhere in a text.
TEST(ClipTokenizer, ThePadOfTheLargerModelIsFoundInTexts) {
  EXPECT_THAT(clip().encode("a!"), ElementsAre(13, 3, 7, 14));
  const Tokenizer other = clip({{"pad_token", "!"}});
  EXPECT_THAT(other.encode("a!"), ElementsAre(13, 3, 0, 14));
  EXPECT_EQ(other.pad(), 0);
}

TEST(ClipTokenizer, WhichFileSaysIt) {
  EXPECT_EQ(clip({{"pad_token", "!"}}, {{"pad_token", "a"}}).pad(), 1) << "the map goes before";
  const Json listed = {{"13", {{"content", kBegin}, {"special", true}}},
                       {"14", {{"content", kEnd}, {"special", true}}}};
  EXPECT_EQ(clip({{"pad_token", "!"}, {"added_tokens_decoder", listed}}, {{"pad_token", "a"}}).pad(), 0)
      << "unless tokens are listed by id";
  EXPECT_THAT(clip({}, {}, {{"<cat>", 20}}).encode("a<cat>"), ElementsAre(13, 3, 20, 14));
  EXPECT_THAT(clip({{"unk_token", {{"content", kEnd}, {"normalized", true}}}}).encode("<|ENDOFTEXT|>"),
              ElementsAre(13, 14, 14))
      << "one that is normalized is found in any case";
}

TEST(ClipTokenizer, Refusals) {
  const auto refused = [](const VocabularyFiles& files) {
    return refusal([&] { clip_tokenizer(files, "model"); });
  };
  EXPECT_THAT(refused({.vocabulary = Json::array(), .merges = kMerges}), HasSubstr("vocab.json"));
  EXPECT_THAT(refused({.vocabulary = {{"a", -1}}, .merges = ""}), HasSubstr("the id -1"));
  EXPECT_THAT(refused({.vocabulary = {{"a", 1}}, .merges = ""}), HasSubstr("unk_token"));
  EXPECT_THAT(refused({.vocabulary = vocabulary(), .merges = "a b c"}), HasSubstr("line 1 of merges.txt"));
  EXPECT_THAT(refused({.vocabulary = vocabulary(), .merges = kMerges, .config = Json::array()}),
              HasSubstr("tokenizer_config.json"));
  EXPECT_THAT(refused({.vocabulary = vocabulary(), .merges = kMerges, .config = {{"bos_token", 3}}}),
              HasSubstr("content"));
}

TEST(PromptTokenizer, CutsAndFillsUp) {
  const PromptTokenizer prompts = prompt_tokenizer(clip({{"model_max_length", 6}}), "model");
  EXPECT_EQ(prompts.length, 6);
  EXPECT_THAT(prompts.ids("a"), ElementsAre(13, 3, 14, 14, 14, 14));
  EXPECT_THAT(prompts.ids("a b a b a b a b"), ElementsAre(13, 3, 4, 3, 4, 14));
  EXPECT_THAT(prompt_tokenizer(clip({{"model_max_length", 5}, {"pad_token", "!"}}), "model").ids("b"),
              ElementsAre(13, 4, 14, 0, 0));
}

TEST(PromptTokenizer, OpensFoldersOfEitherKind) {
  const Folder folder;
  const auto write = [&](const char* name, const std::string& text) {
    AtomicFile file(folder / name);
    file.write(text);
    file.commit();
  };
  EXPECT_THAT(refusal([&] { open_prompt_tokenizer(folder / "."); }), HasSubstr("neither a tokenizer.json"));
  write("vocab.json", vocabulary().dump());
  write("merges.txt", std::string(kMerges));
  EXPECT_THAT(refusal([&] { open_prompt_tokenizer(folder / "."); }), HasSubstr("model_max_length"));
  write("tokenizer_config.json", R"({"tokenizer_class": "CLIPTokenizer", "model_max_length": 7})");
  write("special_tokens_map.json", R"({"pad_token": "!"})");
  const PromptTokenizer once = open_prompt_tokenizer(folder / ".");
  EXPECT_THAT(once.ids("ab!"), ElementsAre(13, 5, 0, 14, 0, 0, 0));
  write("tokenizer.json", once.tokenizer.to_tokenizer_json().dump());
  EXPECT_EQ(open_prompt_tokenizer(folder / ".").ids("ab! AB"), once.ids("ab! AB"));
}

// As the project's own small models have it.
TEST(PromptTokenizer, WholeWords) {
  const Json document = {
      {"added_tokens", Json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "Whitespace"}}},
      {"padding",
       {{"strategy", {{"Fixed", 5}}}, {"direction", "Right"}, {"pad_id", 1}, {"pad_token", "<end>"}}},
      {"model",
       {{"type", "WordLevel"},
        {"vocab", {{"<unk>", 0}, {"<end>", 1}, {"red", 2}, {"ring", 3}}},
        {"unk_token", "<unk>"}}}};
  const PromptTokenizer prompts =
      prompt_tokenizer(Tokenizer::from_json(document, {{"model_max_length", 1e30}}, "model"), "model");
  EXPECT_THAT(prompts.ids("red blue ring"), ElementsAre(2, 0, 3, 1, 1));
  Json left = document;
  left["padding"]["direction"] = "Left";
  EXPECT_THAT(refusal([&] { prompt_tokenizer(Tokenizer::from_json(left, {}, "model"), "model"); }),
              HasSubstr("on the Left"));
  Json silent = document;
  silent.erase("padding");
  EXPECT_THAT(refusal([&] {
                prompt_tokenizer(Tokenizer::from_json(silent, {{"model_max_length", 4}}, "model"), "model");
              }),
              HasSubstr("pad_token"));
}

}  // namespace
}  // namespace lamina
