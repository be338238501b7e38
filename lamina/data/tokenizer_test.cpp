#include "lamina/data/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/text.h"

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::IsEmpty;
namespace fs = std::filesystem;

// ---- golden ids

const Json& golden() {
  static const Json json = parse_json(read_file("tests/golden/tokenizer_cases.json"), "tokenizer_cases.json");
  return json;
}

Json golden_document(const Json& entry) {
  Json document = entry.at("document");
  Json model = golden().at("models").at(entry.at("model").get<std::string>());
  model.update(entry.at("changes"));
  document["model"] = std::move(model);
  return document;
}

Json golden_document_named(std::string_view name) {
  for (const Json& entry : golden().at("tokenizers")) {
    if (entry.at("name") == name) return golden_document(entry);
  }
  ADD_FAILURE() << "no golden tokenizer is called " << name;
  return {};
}

Tokenizer golden_tokenizer(std::string_view name, const Json& config = nullptr) {
  return Tokenizer::from_json(golden_document_named(name), config, "tokenizer.json");
}

std::string stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  TokenStream stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    EXPECT_TRUE(is_utf8(part));
    text += part;
  }
  return text + stream.finish();
}

TEST(Tokenizer, GivesTheIdsAndTextsOfHfTokenizers) {
  for (const Json& entry : golden().at("tokenizers")) {
    const Tokenizer tokenizer = Tokenizer::from_json(golden_document(entry), nullptr, "tokenizer.json");
    for (size_t i = 0; i < entry.at("results").size(); ++i) {
      const Json& expected = entry.at("results")[i];
      const std::string text = golden().at("texts")[i];
      const std::string where = fmt::format("{}: {}", entry.at("name").dump(), in_quotes(text));
      const auto ids = tokenizer.encode(text);
      EXPECT_EQ(Json(ids), expected.at("ids")) << where;
      const Json plain = expected.contains("plain") ? expected.at("plain") : expected.at("ids");
      EXPECT_EQ(Json(tokenizer.encode(text, {.special_tokens = false, .parse_special = false})), plain)
          << where;
      if (!expected.contains("text")) continue;
      EXPECT_EQ(tokenizer.decode(ids), expected.at("text").get<std::string>()) << where;
      EXPECT_EQ(tokenizer.decode(ids, {.skip_special = true}), expected.at("short").get<std::string>())
          << where;
    }
  }
}

TEST(Tokenizer, StreamsTheTextThatDecodeGives) {
  for (const char* name : {"gpt2", "llama2", "metaspace always True"}) {
    const Tokenizer tokenizer = golden_tokenizer(name);
    for (const Json& text : golden().at("texts")) {
      const auto ids = tokenizer.encode(text.get<std::string>());
      EXPECT_EQ(stream(tokenizer, ids), tokenizer.decode(ids)) << name << ": " << text;
    }
  }
}

TEST(Tokenizer, HoldsBackHalfACharacter) {
  const Tokenizer tokenizer = golden_tokenizer("gpt2");
  const auto ids = tokenizer.encode("\xF0\xA0\x9C\x8Ex");  // four bytes, four tokens
  ASSERT_EQ(ids.size(), 5u);
  TokenStream stream(tokenizer);
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.push(ids[1]), "");
  EXPECT_EQ(stream.push(ids[2]), "");
  EXPECT_EQ(stream.push(ids[3]), "\xF0\xA0\x9C\x8E");
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

TEST(Tokenizer, StreamsNoiseWithoutHoldingItForever) {
  const Tokenizer tokenizer = golden_tokenizer("gpt2");
  const int32_t half = tokenizer.encode("\xF0\xA0\x9C\x8E")[1];
  TokenStream stream(tokenizer);
  std::string text;
  for (int i = 0; i < 1000; ++i) text += stream.push(half);
  EXPECT_GT(text.size(), 900u);
}

// Python: bytes.decode("utf-8", errors="replace")
TEST(Tokenizer, RepairsInvalidUtf8AsPythonDoes) {
  const Tokenizer tokenizer = golden_tokenizer("gpt2");
  const std::string mark = "\xEF\xBF\xBD";
  const std::pair<std::string, std::string> cases[] = {
      {"a\xFFz", "a" + mark + "z"},
      {"\x80\x80", mark + mark},
      {"\xE2\x82", mark},  // cut off: one mark for its two bytes
      {"\xE2\x82z", mark + "z"},
      {"\xC0\xAF", mark + mark},             // overlong
      {"\xED\xA0\x80", mark + mark + mark},  // a surrogate
      {"\xF0\x9F\x92", mark},
      {"\xF0\x9F\x92\xF0\x9F\x92\xA9", mark + "\xF0\x9F\x92\xA9"},
      {"\xF4\x90\x80\x80", mark + mark + mark + mark},
      {"\xF5\x80", mark + mark},
      {std::string("a\0b", 3), std::string("a\0b", 3)},
  };
  for (const auto& [bytes, repaired] : cases) {
    EXPECT_EQ(tokenizer.encode(bytes), tokenizer.encode(repaired)) << in_quotes(bytes);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes)), repaired) << in_quotes(bytes);
  }
}

TEST(Tokenizer, KnowsItsTokens) {
  const Json config = {
      {"bos_token", "<|start|>"}, {"eos_token", {{"content", "<|end|>"}}}, {"chat_template", "{{ x }}"}};
  const Tokenizer tokenizer = golden_tokenizer("gpt2", config);
  ASSERT_TRUE(tokenizer.bos() && tokenizer.eos());
  EXPECT_EQ(tokenizer.token(*tokenizer.bos()), "<|start|>");
  EXPECT_EQ(tokenizer.token(*tokenizer.eos()), "<|end|>");
  EXPECT_EQ(tokenizer.pad(), std::nullopt);
  EXPECT_EQ(tokenizer.size(), *tokenizer.eos() + 1);
  EXPECT_EQ(tokenizer.id_of("<|end|>"), tokenizer.eos());
  EXPECT_TRUE(tokenizer.is_special(*tokenizer.eos()));
  EXPECT_EQ(tokenizer.id_of("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer.token(-1), std::nullopt);
  EXPECT_EQ(tokenizer.token(tokenizer.size()), std::nullopt);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{-1, 1 << 30}), "");
  EXPECT_EQ(tokenizer.chat_template(), "{{ x }}");
  EXPECT_EQ(tokenizer.to_tokenizer_json(), golden_document_named("gpt2"));
  EXPECT_EQ(tokenizer.to_tokenizer_config(), config);
  EXPECT_EQ(tokenizer.special_tokens_map().size(), 2u);
}

// ---- class 6 of the malformed inputs

std::string error_of(const Json& document, const Json& config = nullptr) {
  try {
    Tokenizer::from_json(document, config, "t.json").encode("some text");
    return "no error";
  } catch (const Error& error) {
    return error.what();
  }
}

Json small_document() {
  return {{"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"<u>", 3}}},
            {"merges", Json::array({"a b"})}}}};
}

TEST(Tokenizer, TakesMergesAsTextsAndAsPairs) {
  Json document = small_document();
  EXPECT_THAT(Tokenizer::from_json(document, nullptr, "t").encode("abba"), ElementsAre(2, 1, 0));
  document["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  EXPECT_THAT(Tokenizer::from_json(document, nullptr, "t").encode("abba"), ElementsAre(2, 1, 0));
  document["model"].erase("type");  // as old files are
  EXPECT_THAT(Tokenizer::from_json(document, nullptr, "t").encode("abba"), ElementsAre(2, 1, 0));
}

TEST(Tokenizer, RefusesDamagedDocuments) {
  struct Case {
    const char* pointer;
    Json value;
    const char* message;
  };
  const Case cases[] = {
      {"/model", nullptr, "it has no \"model\""},
      {"/model/type", "WordPiece", "the model \"WordPiece\" is not supported; the supported ones are BPE"},
      {"/model/type", 5, "\"type\" is 5 where a text was expected"},
      {"/model/vocab", Json::array(), "not an object"},
      {"/model/vocab", Json::object(), "the vocabulary is empty"},
      {"/model/vocab/a", 1, "the tokens \"a\" and \"b\" have the same id 1"},
      {"/model/vocab/a", -1, "outside 0 to"},
      {"/model/vocab/a", int64_t{1} << 40, "outside 0 to"},
      {"/model/vocab/a", 10000000, "only 4 tokens"},
      {"/model/vocab/a", 0.5, "is not an integer"},
      {"/model/merges", "a b", "no list \"merges\""},
      {"/model/merges/0", "a", "merge 0 is"},
      {"/model/merges/0", "a b c", "merge 0 is"},
      {"/model/merges/0", Json::array({"a"}), "merge 0 is"},
      {"/model/merges/0", Json::array({"a", 1}), "merge 0 is"},
      {"/model/merges/0", "a c", "merge 0 names \"c\", which is not in the vocabulary"},
      {"/model/merges/0", "b a", "merge 0 names \"ba\""},
      {"/model/unk_token", "x", "the unk_token \"x\" is not in the vocabulary"},
      {"/model/dropout", 0.1, "dropout"},
      {"/model/byte_fallback", "yes", "true or false"},
      {"/normalizer", {{"type", "Precompiled"}}, "the normalizer \"Precompiled\" is not supported"},
      {"/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Nmt"}}}}}, "the normalizer \"Nmt\""},
      {"/normalizer", {{"type", "Sequence"}}, "no list \"normalizers\""},
      {"/normalizer", Json::object(), "\"type\" is missing"},
      {"/normalizer", {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", ""}}, "empty text"},
      {"/pre_tokenizer",
       {{"type", "BertPreTokenizer"}},
       "the pre_tokenizer \"BertPreTokenizer\" is not supported"},
      {"/pre_tokenizer",
       {{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}},
       "is not valid"},
      {"/pre_tokenizer",
       {{"type", "Split"}, {"pattern", {{"Regex", "[a&&b]"}}}, {"behavior", "Isolated"}},
       "the intersection of classes"},
      {"/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Odd"}}, "\"Odd\""},
      {"/pre_tokenizer", {{"type", "Split"}, {"behavior", "Isolated"}}, "\"String\" is missing"},
      {"/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "ab"}}, "not one character"},
      {"/pre_tokenizer", {{"type", "Metaspace"}, {"prepend_scheme", "odd"}}, "prepend_scheme"},
      {"/post_processor", {{"type", "Odd"}}, "the post_processor \"Odd\""},
      {"/post_processor", {{"type", "TemplateProcessing"}}, "\"single\""},
      {"/post_processor",
       {{"type", "TemplateProcessing"}, {"single", Json::array()}},
       "no place for the text"},
      {"/post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", "<s>"}}}}}},
        {"special_tokens", {}}},
       "no ids for the token \"<s>\""},
      {"/decoder", {{"type", "Odd"}}, "the decoder \"Odd\""},
      {"/added_tokens", Json::object(), "not a list"},
      {"/added_tokens", {{{"id", 9}}}, "\"content\" is missing"},
      {"/added_tokens", {{{"id", -1}, {"content", "x"}}}, "outside 0 to"},
      {"/added_tokens", {{{"id", int64_t{1} << 40}, {"content", "x"}}}, "outside 0 to"},
      {"/added_tokens", {{{"id", 1}, {"content", "x"}}}, "the id 1, which is taken by \"b\""},
      {"/added_tokens", {{{"id", 9}, {"content", "x"}}, {{"id", 9}, {"content", "y"}}}, "taken by \"x\""},
      {"/added_tokens", {{{"id", 9}, {"content", std::string(5000, 'x')}}}, "longer than"},
  };
  EXPECT_EQ(error_of(small_document()), "no error");
  for (const Case& c : cases) {
    Json document = small_document();
    document[Json::json_pointer(c.pointer)] = c.value;
    const std::string message = error_of(document);
    EXPECT_THAT(message, HasSubstr(c.message)) << c.pointer << " " << c.value;
    EXPECT_THAT(message, testing::StartsWith("t.json: ")) << c.pointer;
  }
  EXPECT_THAT(error_of(5), HasSubstr("no tokenizer.json"));
  EXPECT_THAT(error_of(small_document(), Json::array()), HasSubstr("tokenizer_config"));
  EXPECT_THAT(error_of(small_document(), {{"bos_token", 5}}), HasSubstr("bos_token"));
}

TEST(Tokenizer, AllowsHolesAndOddByteTokens) {
  Json document = small_document();
  document["model"]["vocab"]["far"] = 1000;
  document["model"]["vocab"]["<0x-1>"] = 1001;
  document["model"]["byte_fallback"] = true;
  document["decoder"] = {{"type", "ByteFallback"}};
  const Tokenizer tokenizer = Tokenizer::from_json(document, nullptr, "t");
  EXPECT_EQ(tokenizer.size(), 1002);
  EXPECT_EQ(tokenizer.token(500), std::nullopt);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1000, 500, 1001}), "far<0x-1>");
}

TEST(Tokenizer, StopsARegularExpressionThatExplodes) {
  Json document = small_document();
  document["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "(a|aa)+$"}}}, {"behavior", "Isolated"}};
  const Tokenizer tokenizer = Tokenizer::from_json(document, nullptr, "t.json");
  try {
    tokenizer.encode(std::string(5000, 'a') + "c");
    FAIL() << "the search came to an end";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("t.json: the regular expression"));
  }
}

// A few bytes of JSON in which each part doubles the text: without a bound, 40 of them ask for a terabyte.
TEST(Tokenizer, StopsPartsThatMultiplyTheText) {
  const auto repeat = [](const Json& part, const char* key, int times) {
    Json list = Json::array();
    for (int i = 0; i < times; ++i) list.push_back(part);
    return Json{{"type", "Sequence"}, {key, list}};
  };
  const Json twice = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  const Json nested = {{"type", "Sequence"},
                       {"normalizers", {repeat(twice, "normalizers", 20), repeat(twice, "normalizers", 20)}}};
  const Json much = {
      {"type", "Replace"}, {"pattern", {{"Regex", ""}}}, {"content", std::string(100'000, 'a')}};
  const std::pair<const char*, Json> cases[] = {
      {"/normalizer", repeat(twice, "normalizers", 40)},
      {"/normalizer", nested},
      {"/normalizer", much},
      {"/normalizer", repeat({{"type", "ByteLevel"}}, "normalizers", 40)},
      {"/pre_tokenizer", repeat({{"type", "ByteLevel"}, {"use_regex", false}}, "pretokenizers", 40)},
      {"/decoder", repeat(twice, "decoders", 40)},
  };
  for (const auto& [pointer, value] : cases) {
    Json document = small_document();
    document[Json::json_pointer(pointer)] = value;
    const Tokenizer tokenizer = Tokenizer::from_json(document, nullptr, "t.json");
    try {
      tokenizer.decode(tokenizer.encode("\xC3\xA9" + std::string(100, 'a')));
      ADD_FAILURE() << pointer << " " << value.dump().substr(0, 100);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("sixteen times shorter"));
    }
  }
  for (const auto& [pointer, key, part] :
       {std::tuple<const char*, const char*, Json>{"/normalizer", "normalizers", twice},
        {"/pre_tokenizer", "pretokenizers", {{"type", "Digits"}}},
        {"/decoder", "decoders", {{"type", "Fuse"}}},
        {"/post_processor", "processors", {{"type", "ByteLevel"}}}}) {
    Json document = small_document();
    document[Json::json_pointer(pointer)] = repeat(part, key, 100'000);
    EXPECT_THAT(error_of(document), HasSubstr("a Sequence has more than 64")) << pointer;
  }
}

double seconds_of(const Tokenizer& tokenizer, const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(tokenizer.encode(text).empty());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// One piece, one line, one letter: a megabyte of each would take hours if any step were quadratic.
TEST(Tokenizer, TakesLongTextsInLinearTime) {
  const size_t megabyte = 1'000'000;
  std::string words, marks;
  while (words.size() < megabyte) words += "the layer that matters 12 ";
  while (marks.size() < megabyte) marks += "\xCC\x81\xCC\x96";  // combining marks out of order
  for (const char* name :
       {"gpt2", "llama3", "qwen2", "llama2", "metaspace first False", "NFKD", "odd added tokens"}) {
    const Tokenizer tokenizer = golden_tokenizer(name);
    for (const std::string& text :
         {std::string(megabyte, 'a'), std::string(megabyte, ' '), std::string(megabyte, '\n'),
          std::string(megabyte, '<'), std::string(megabyte, '\xFF'), words, marks}) {
      EXPECT_LT(seconds_of(tokenizer, text), 20) << name << " " << in_quotes(text.substr(0, 8));
    }
  }
}

TEST(Tokenizer, BuildsALargeVocabulary) {
  Json document = small_document();
  auto& vocab = document["model"]["vocab"].get_ref<Json::object_t&>();
  for (int i = 4; i < 1'000'000; ++i) vocab.emplace_back(fmt::format("t{}", i), i);
  EXPECT_EQ(Tokenizer::from_json(document, nullptr, "t").size(), 1'000'000);
}

// ---- GGUF

gguf::File small_gguf() {
  gguf::File file;
  const auto put = [&](const char* key, gguf::Value value) {
    file.metadata.emplace_back(key, std::move(value));
  };
  put("general.architecture", gguf::make_string("llama"));
  put("llama.context_length", gguf::make_u32(2048));
  put("tokenizer.ggml.model", gguf::make_string("llama"));
  put("tokenizer.ggml.tokens",
      gguf::make_strings({"<unk>", "<s>", "</s>", "<0x0A>", "\xE2\x96\x81", "a", "b", "ab",
                          "\xE2\x96\x81"
                          "ab",
                          "<mine>"}));
  put("tokenizer.ggml.scores", gguf::make_f32s({0, 0, 0, 0, -3, -4, -5, -1, -2, 0}));
  put("tokenizer.ggml.token_type", gguf::make_i32s({2, 3, 3, 6, 1, 1, 1, 1, 1, 4}));
  put("tokenizer.chat_template", gguf::make_string("{{ bos_token }}"));
  return file;
}

void replace_value(gguf::File& file, std::string_view key, gguf::Value value) {
  for (auto& [name, current] : file.metadata) {
    if (name == key) {
      current = std::move(value);
      return;
    }
  }
  file.metadata.emplace_back(key, std::move(value));
}

TEST(GgufTokenizer, MakesAWholeFolderFromScores) {
  const Tokenizer tokenizer = Tokenizer::from_gguf(small_gguf(), "m.gguf");
  EXPECT_THAT(tokenizer.encode("ab b\n"), ElementsAre(1, 8, 4, 6, 3));
  EXPECT_THAT(tokenizer.encode("ab<mine>", {.special_tokens = false}), ElementsAre(8, 9));
  EXPECT_THAT(tokenizer.encode("z", {.special_tokens = false}), ElementsAre(4, 0));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("ab b\n"), {.skip_special = true}), "ab b\n");
  const Json config = tokenizer.to_tokenizer_config();
  EXPECT_EQ(config.at("bos_token"), "<s>");
  EXPECT_EQ(config.at("add_bos_token"), true);
  EXPECT_EQ(config.at("model_max_length"), 2048);
  EXPECT_EQ(tokenizer.chat_template(), "{{ bos_token }}");
  EXPECT_EQ(tokenizer.special_tokens_map(),
            Json::parse(R"({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})"));

  // What is written says the same when it is read.
  const Json written = parse_json(tokenizer.to_tokenizer_json().dump(), "tokenizer.json");
  EXPECT_EQ(Tokenizer::from_json(written, config, "tokenizer.json").encode("ab b\n"),
            tokenizer.encode("ab b\n"));
}

TEST(GgufTokenizer, RefusesDamagedMetadata) {
  struct Case {
    const char* key;
    gguf::Value value;
    const char* message;
  };
  const Case cases[] = {
      {"tokenizer.ggml.model", gguf::make_string("bert"), "the tokenizer model \"bert\""},
      {"tokenizer.ggml.tokens", gguf::make_strings({}), "holds 0 tokens"},
      {"tokenizer.ggml.tokens", gguf::make_u32s({1, 2}), "tokenizer.ggml.tokens"},
      {"tokenizer.ggml.tokens", gguf::make_strings({"a", "a"}),
       "the tokens 0 and 1 have the same text \"a\""},
      {"tokenizer.ggml.tokens", gguf::make_strings({"a\xFF"}), "is not UTF-8"},
      {"tokenizer.ggml.scores", gguf::make_f32s({0}), "1 entries for 10 tokens"},
      {"tokenizer.ggml.scores", gguf::make_u32(1), "not a list"},
      {"tokenizer.ggml.token_type", gguf::make_i32s({1}), "1 entries for 10 tokens"},
      {"tokenizer.chat_template", gguf::make_string("\xFF"), "tokenizer.chat_template is not UTF-8"},
  };
  for (const Case& c : cases) {
    gguf::File file = small_gguf();
    replace_value(file, c.key, c.value);
    try {
      Tokenizer::from_gguf(file, "m.gguf");
      ADD_FAILURE() << c.message;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(c.message));
    }
  }
}

TEST(GgufTokenizer, NamesAnUnknownPreTokenizer) {
  gguf::File file = small_gguf();
  replace_value(file, "tokenizer.ggml.model", gguf::make_string("gpt2"));
  replace_value(file, "tokenizer.ggml.merges", gguf::make_strings({}));
  replace_value(file, "tokenizer.ggml.pre", gguf::make_string("odd"));
  try {
    Tokenizer::from_gguf(file, "m.gguf");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("m.gguf: the pre-tokenizer \"odd\" (tokenizer.ggml.pre) is not supported"));
  }
  replace_value(file, "tokenizer.ggml.pre", gguf::make_string("smollm"));
  EXPECT_THAT(Tokenizer::from_gguf(file, "m.gguf").encode("ab"), ElementsAre(5, 6));
}

Tokenizer open_gguf(const fs::path& path) {
  const auto file = MappedFile::open(path);
  return Tokenizer::from_gguf(gguf::parse(file->bytes(), path.string()), path.string());
}

// llama.cpp's own pairs of texts and ids, for vocabularies that cannot be part of this repository.
TEST(GgufTokenizer, GivesTheIdsOfLlamaCpp) {
  const fs::path data = "../shared/data";
  if (!fs::exists(data)) GTEST_SKIP() << "../shared/data, which holds the vocabularies, is not there";
  const std::pair<const char*, const char*> pairs[] = {
      {"gpt-2", "gpt2/ggml-vocab-gpt-2.gguf"},
      {"llama-spm", "llama-spm/ggml-vocab-llama-spm.gguf"},
      {"deepseek-coder", "gguf/ggml-vocab-deepseek-coder.gguf"},
      {"refact", "gguf/ggml-vocab-refact.gguf"},
  };
  std::vector<std::string> texts;
  std::string all = read_file(data / "tokenizer_pairs/all.inp");
  const std::string gap = "\n__ggml_vocab_test__\n";
  for (size_t at; (at = all.find(gap)) != std::string::npos; all.erase(0, at + gap.size())) {
    texts.push_back(all.substr(0, at));
  }
  for (const auto& [name, file] : pairs) {
    const Tokenizer tokenizer = open_gguf(data / "tokenizers" / file);
    std::istringstream lines(read_file(data / "tokenizer_pairs" / (std::string(name) + ".out")));
    std::string line;
    for (const std::string& text : texts) {
      ASSERT_TRUE(std::getline(lines, line));
      std::istringstream numbers(line);
      const std::vector<int32_t> expected{std::istream_iterator<int32_t>(numbers), {}};
      EXPECT_EQ(tokenizer.encode(text, {.special_tokens = false}), expected)
          << name << ": " << in_quotes(text);
    }
  }
}

std::optional<fs::path> real_model() {
  if (const char* path = std::getenv("LAMINA_MODEL"); path && fs::exists(path)) return path;
  const fs::path cache = ".cache/smollm2";
  if (!fs::exists(cache)) return std::nullopt;
  for (const auto& entry : fs::directory_iterator(cache)) {
    if (entry.path().extension() == ".gguf") return entry.path();
  }
  return std::nullopt;
}

TEST(GgufTokenizer, ReadsSmolLm2) {
  const auto path = real_model();
  if (!path)
    GTEST_SKIP() << "no model: set LAMINA_MODEL to the SmolLM2 GGUF, or build it into .cache/smollm2";
  const Tokenizer tokenizer = open_gguf(*path);
  EXPECT_EQ(tokenizer.size(), 49152);
  EXPECT_EQ(tokenizer.token(*tokenizer.bos()), "<|im_start|>");
  EXPECT_EQ(tokenizer.token(*tokenizer.eos()), "<|im_end|>");
  const Json expected = parse_json(read_file("tests/golden/smollm2_ids.json"), "smollm2_ids.json");
  for (const Json& entry : expected) {
    const std::string text = entry.at("text");
    EXPECT_EQ(Json(tokenizer.encode(text)), entry.at("ids")) << in_quotes(text);
    // Some control characters are in none of its tokens and get lost.
    const std::string decoded = entry.value("decoded", text);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), decoded) << in_quotes(text);
  }
}

}  // namespace
}  // namespace lamina
