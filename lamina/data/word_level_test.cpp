#include "lamina/data/word_level.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"
#include "lamina/data/tokenizer.h"
#include "tests/help.h"

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using tests::refusal;

Json words_document() {
  return Json::parse(R"({
      "added_tokens": [{"id": 1, "content": "<s>", "special": true}],
      "pre_tokenizer": {"type": "WhitespaceSplit"},
      "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "<s>": 1, "the": 2, "don't": 3, "été": 4, "th": 5},
                "unk_token": "<unk>"}})");
}

Tokenizer words_tokenizer() {
  return Tokenizer::from_json(words_document(), nullptr, "w.json");
}

TEST(WordLevel, GivesAWordItsIdOrTheUnknownToken) {
  const Tokenizer tokenizer = words_tokenizer();
  EXPECT_THAT(tokenizer.encode("the  don't\n été the"), ElementsAre(2, 3, 4, 2));
  // A word is known as a whole or not at all, in its own case, and each unknown one is a token of its own.
  EXPECT_THAT(tokenizer.encode("then The don't. xyz zyx th"), ElementsAre(0, 0, 0, 0, 0, 5));
  EXPECT_THAT(tokenizer.encode(""), IsEmpty());
  EXPECT_THAT(tokenizer.encode(" \n "), IsEmpty());
  EXPECT_EQ(tokenizer.size(), 6);
  EXPECT_EQ(tokenizer.id_of("été"), 4);
}

TEST(WordLevel, KnowsAddedTokensInTheText) {
  const Tokenizer tokenizer = words_tokenizer();
  EXPECT_THAT(tokenizer.encode("<s> the <s>th"), ElementsAre(1, 2, 1, 5));
  EXPECT_THAT(tokenizer.encode("<s> the", {.parse_special = false}), ElementsAre(1, 2));  // a word as well
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("<s> the été")), "<s> the été");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("<s> the été"), {.skip_special = true}), "the été");
}

TEST(WordLevel, TakesAPieceWholeWhereNothingCutsIt) {
  Json document = words_document();
  document.erase("pre_tokenizer");
  const Tokenizer tokenizer = Tokenizer::from_json(document, nullptr, "w.json");
  EXPECT_THAT(tokenizer.encode("the"), ElementsAre(2));
  EXPECT_THAT(tokenizer.encode("the th"), ElementsAre(0));
}

// HF tokenizers opens such a file too, and refuses a text only when it meets a word that it does not know.
TEST(WordLevel, RefusesAnUnknownWordWhereTheUnknownTokenIsMissing) {
  Json document = words_document();
  document["model"]["unk_token"] = "[UNK]";
  const Tokenizer tokenizer = Tokenizer::from_json(document, nullptr, "w.json");
  EXPECT_THAT(tokenizer.encode("the th"), ElementsAre(2, 5));
  EXPECT_THAT(
      refusal([&] { tokenizer.encode("the then"); }),
      HasSubstr("w.json: neither the word \"then\" nor the unk_token \"[UNK]\" is in the vocabulary"));
}

TEST(WordLevel, RefusesDamagedComponents) {
  struct Case {
    const char* pointer;
    Json value;  // null: the key goes
    const char* message;
  };
  const Case cases[] = {
      {"/model/vocab", nullptr, "the WordLevel model has no \"vocab\""},
      {"/model/vocab", Json::array({"the"}), "\"vocab\" is not an object"},
      {"/model/vocab", Json::object(), "the vocabulary is empty"},
      {"/model/vocab/the", 5, "the same id 5"},
      {"/model/vocab/the", -1, "the id -1 of the token \"the\""},
      {"/model/vocab/the", 3'000'000, "the largest token id is 3,000,000"},
      {"/model/vocab/the", "2", "is not an integer"},
      {"/model/unk_token", nullptr, "the WordLevel model has no \"unk_token\""},
      {"/model/unk_token", 0, "unk_token"},
      {"/model/type", "WordPiece", "supported ones are BPE, WordLevel"},
  };
  for (const Case& c : cases) {
    Json document = words_document();
    const Json::json_pointer pointer(c.pointer);
    if (c.value.is_null())
      document[pointer.parent_pointer()].erase(pointer.back());
    else
      document[pointer] = c.value;
    EXPECT_THAT(refusal([&] { Tokenizer::from_json(document, nullptr, "w.json"); }), HasSubstr(c.message))
        << c.pointer;
  }
}

}  // namespace
}  // namespace lamina
