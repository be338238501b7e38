#include "lamina/data/byte_tokenizer.h"

#include <gmock/gmock.h>

#include <map>
#include <numeric>

#include "lamina/data/byte_level_vocabulary.h"

namespace lamina {
namespace {

using testing::ElementsAre;

TEST(ByteTokenizer, ATokenAByte) {
  const Tokenizer tokenizer = byte_tokenizer();
  EXPECT_EQ(tokenizer.size(), 257);
  EXPECT_THAT(tokenizer.encode("a b\n"), ElementsAre('a', ' ', 'b', '\n'));
  EXPECT_THAT(tokenizer.encode("é"), ElementsAre(0xC3, 0xA9));
  EXPECT_THAT(tokenizer.encode("a<|endoftext|>b"), ElementsAre('a', 256, 'b'));
  EXPECT_EQ(tokenizer.eos(), 256);
  EXPECT_TRUE(tokenizer.is_special(256));
}

TEST(ByteTokenizer, EveryTextComesBack) {
  const Tokenizer tokenizer = byte_tokenizer();
  std::string text;
  for (int c = 1; c < 0x80; ++c) text += static_cast<char>(c);
  text += "  word  'll 123 \r\n\t Grüße 世界 \U0001F600";
  EXPECT_EQ(tokenizer.encode(text).size(), text.size());
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(ByteTokenizer, ItsFilesSayTheSame) {
  const Tokenizer tokenizer = byte_tokenizer();
  std::map<std::string, std::string> files;
  for (const auto& [name, text] : byte_tokenizer_files(128)) files[name] = text;
  const Json settings = Json::parse(files.at("tokenizer_config.json"));
  EXPECT_EQ(settings.at("model_max_length"), 128);
  const std::string text = "One, two.\nThree <|endoftext|> äöü 世界";
  EXPECT_EQ(Tokenizer::from_json(Json::parse(files.at("tokenizer.json")), settings, "files").encode(text),
            tokenizer.encode(text));
  EXPECT_EQ(gpt2_tokenizer({.vocabulary = Json::parse(files.at("vocab.json")),
                            .merges = files.at("merges.txt"),
                            .config = settings,
                            .special_tokens = Json::parse(files.at("special_tokens_map.json"))},
                           "files")
                .encode(text),
            tokenizer.encode(text));
}

}  // namespace
}  // namespace lamina
