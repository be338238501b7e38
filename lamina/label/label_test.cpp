#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <iterator>

#include "lamina/base/file.h"
#include "lamina/base/json.h"
#include "lamina/base/random.h"
#include "lamina/base/text.h"
#include "lamina/label/conll.h"
#include "lamina/label/scheme.h"
#include "lamina/label/score.h"
#include "tests/help.h"

namespace lamina::label {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using tests::refusal;

constexpr std::array kSchemes = {Scheme::iob1, Scheme::iob2, Scheme::iobes, Scheme::bilou};

Tags words_of(const std::string& text) {
  Tags words = split(text, ' ');
  std::erase(words, "");
  return words;
}

std::vector<Tags> sentences_of(const std::string& text) {
  std::vector<Tags> sentences;
  for (const std::string& sentence : split(text, '|')) sentences.push_back(words_of(sentence));
  return sentences;
}

// ---- against the seqeval package

struct Row {
  std::string name;
  std::vector<Tags> gold, predicted;
  Scheme scheme;
  Reading reading;
  Json expected;  // null where seqeval refuses
};

std::vector<Row> golden() {
  const Json json = parse_json(read_file("tests/golden/seqeval_cases.json"), "seqeval_cases.json");
  std::vector<Row> rows;
  for (const Json& one : json.at("cases")) {
    for (const auto& [name, expected] : one.at("readings").items()) {
      const bool lenient = name == "default";
      rows.push_back({one.at("name").get<std::string>() + ", " + name,
                      one.at("gold").get<std::vector<Tags>>(), one.at("predicted").get<std::vector<Tags>>(),
                      lenient ? Scheme::iob2 : scheme_from_name(name),
                      lenient ? Reading::lenient : Reading::strict, expected});
    }
  }
  return rows;
}

Json json_of(std::span<const Entity> entities) {
  Json list = Json::array();
  for (const Entity& entity : entities) list.push_back({entity.type, entity.begin, entity.end});
  return list;
}

TEST(Seqeval, FindsTheSameEntities) {
  const std::vector<Row> rows = golden();
  ASSERT_GE(rows.size(), 5 * 60u);
  int refused = 0;
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    if (row.expected.is_null()) {
      refusal([&] { score(row.gold, row.predicted, row.scheme, row.reading); });
      ++refused;
      continue;
    }
    for (size_t s = 0; s < row.gold.size(); ++s) {
      EXPECT_EQ(json_of(entities(row.gold[s], row.scheme, row.reading)), row.expected["entities"][0][s]);
      EXPECT_EQ(json_of(entities(row.predicted[s], row.scheme, row.reading)), row.expected["entities"][1][s]);
    }
  }
  EXPECT_GE(refused, 40);
}

TEST(Seqeval, GivesTheSameScoresToTheLastBit) {
  for (const Row& row : golden()) {
    if (row.expected.is_null()) continue;
    SCOPED_TRACE(row.name);
    const Score result = score(row.gold, row.predicted, row.scheme, row.reading);
    EXPECT_EQ(Json({result.all.precision(), result.all.recall(), result.all.f1()}), row.expected["micro"]);
    const double macro[] = {result.macro_precision(), result.macro_recall(), result.macro_f1()};
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(macro[i], row.expected["macro"][i].get<double>(), 1e-15);
    ASSERT_EQ(result.types.size(), row.expected["types"].size());
    for (const auto& [type, counts] : result.types) {
      EXPECT_EQ(Json({counts.precision(), counts.recall(), counts.f1(), counts.gold}),
                row.expected["types"].at(type))
          << type;
    }
  }
}

// ---- schemes

TEST(Scheme, Names) {
  for (const Scheme scheme : kSchemes) EXPECT_EQ(scheme_from_name(scheme_name(scheme)), scheme);
  EXPECT_EQ(scheme_from_name("bio"), Scheme::iob2);
  EXPECT_EQ(scheme_from_name("Iobes"), Scheme::iobes);
  for (const char* name : {"", "IOB", "IOB3", "iob 2"}) {
    EXPECT_THAT(refusal([&] { scheme_from_name(name); }),
                HasSubstr("there are IOB2 (or BIO), IOB1, IOBES and"));
  }
}

TEST(Scheme, TagsThatAreNone) {
  for (const char* tag : {"", "o", "PER", "b-PER", "X-PER", "BPER", "B_PER", "-PER", "O-PER", "OO", "\xff"}) {
    for (const Reading reading : {Reading::strict, Reading::lenient}) {
      const Tags tags = {"O", tag};
      EXPECT_THAT(refusal([&] { entities(tags, Scheme::iob2, reading); }), HasSubstr("is no tag")) << tag;
    }
  }
  const Tags tags = {"S-PER"};
  EXPECT_THAT(refusal([&] { entities(tags, Scheme::iob2, Reading::strict); }),
              HasSubstr("begins with S, which IOB2 does not have; its prefixes are B, I"));
  EXPECT_THAT(entities(tags, Scheme::iob2, Reading::lenient), ElementsAre(Entity{"PER", 0, 1}));
}

TEST(Scheme, EntitiesAsTags) {
  const std::vector<Entity> found = {{"LOC", 5, 6}, {"PER", 0, 1}, {"PER", 1, 4}};
  EXPECT_THAT(tags_of(found, 7, Scheme::iob2),
              ElementsAre("B-PER", "B-PER", "I-PER", "I-PER", "O", "B-LOC", "O"));
  EXPECT_THAT(tags_of(found, 7, Scheme::iob1),
              ElementsAre("I-PER", "B-PER", "I-PER", "I-PER", "O", "I-LOC", "O"));
  EXPECT_THAT(tags_of(found, 7, Scheme::iobes),
              ElementsAre("S-PER", "B-PER", "I-PER", "E-PER", "O", "S-LOC", "O"));
  EXPECT_THAT(tags_of(found, 7, Scheme::bilou),
              ElementsAre("U-PER", "B-PER", "I-PER", "L-PER", "O", "U-LOC", "O"));
  EXPECT_THAT(tags_of({}, 0, Scheme::iob2), IsEmpty());
}

TEST(Scheme, EntitiesThatAreNone) {
  const auto refused = [](std::vector<Entity> entities, int64_t words) {
    return refusal([&] { tags_of(entities, words, Scheme::iob2); });
  };
  EXPECT_THAT(refused({{"A", 0, 2}, {"B", 1, 3}}, 3), HasSubstr("\"A\" and \"B\" share word 1"));
  EXPECT_THAT(refused({{"A", 0, 1}, {"A", 0, 1}}, 3), HasSubstr("share word 0"));
  EXPECT_THAT(refused({{"A", 2, 4}}, 3), HasSubstr("a sentence of 3 words"));
  EXPECT_THAT(refused({{"A", -1, 1}}, 3), HasSubstr("words -1 to 1"));
  EXPECT_THAT(refused({{"A", 1, 1}}, 3), HasSubstr("words 1 to 1"));
  EXPECT_THAT(refused({{"A", 0, 1}}, -5), HasSubstr("-5 words"));
  EXPECT_THAT(refused({{"", 0, 1}}, 3), HasSubstr("no type"));
}

std::vector<Entity> random_entities(SplitMix& random, int64_t words) {
  std::vector<Entity> found;
  const std::string types[] = {"PER", "LOC", "creative-work", "_"};
  for (int64_t at = random.below(3); at < words; at += random.below(3)) {
    const int64_t end = std::min(words, at + 1 + random.below(3));
    found.push_back({types[random.below(4)], at, end});
    at = end;
  }
  return found;
}

TEST(Scheme, TagsGiveTheEntitiesBack) {
  SplitMix random(1);
  for (int round = 0; round < 2000; ++round) {
    const int64_t words = random.below(12);
    const std::vector<Entity> found = random_entities(random, words);
    for (const Scheme scheme : kSchemes) {
      const std::vector<Tags> tags = {tags_of(found, words, scheme)};
      ASSERT_EQ(entities(tags[0], scheme, Reading::strict), found) << fmt::format("{}", tags[0]);
      ASSERT_EQ(breaks(tags, scheme).count, 0) << fmt::format("{}", tags[0]);
      if (scheme != Scheme::bilou) {
        ASSERT_EQ(entities(tags[0], scheme, Reading::lenient), found);
      }
    }
  }
}

// What breaks no rule is what `tags_of` would have written.
TEST(Scheme, BreaksAreWhatIsWrittenOtherwise) {
  SplitMix random(2);
  int right = 0;
  for (int round = 0; round < 20000; ++round) {
    const Scheme scheme = kSchemes[random.below(4)];
    std::vector<Tags> sentences = {{}};
    for (int64_t words = random.below(5); words > 0; --words) {
      const std::string_view known = prefixes(scheme);
      const int64_t at = random.below(static_cast<int64_t>(known.size()) + 1);
      sentences[0].push_back(at == 0 ? "O"
                                     : fmt::format("{}-{}", known[static_cast<size_t>(at) - 1],
                                                   random.below(2) == 0 ? "X" : "Y"));
    }
    const Tags& tags = sentences[0];
    const bool same = tags_of(entities(tags, scheme, Reading::strict), std::ssize(tags), scheme) == tags;
    ASSERT_EQ(breaks(sentences, scheme).count == 0, same) << scheme_name(scheme) << fmt::format(" {}", tags);
    right += same ? 1 : 0;
  }
  EXPECT_GT(right, 2000);
}

TEST(Scheme, FoundOut) {
  const auto found = [](const std::string& text) { return scheme_of(sentences_of(text)); };
  EXPECT_EQ(found("B-X I-X O|B-X B-X"), Scheme::iob2);
  EXPECT_EQ(found("O O|"), Scheme::iob2);
  EXPECT_EQ(found("I-X I-X O|I-X B-X"), Scheme::iob1);
  EXPECT_EQ(found("B-X E-X S-X|O"), Scheme::iobes);
  EXPECT_EQ(found("B-X L-X U-X|O"), Scheme::bilou);
  EXPECT_EQ(found("B-X O|I-X"), std::nullopt);  // IOB2 and IOB1 in turn
  EXPECT_EQ(found("B-X E-X U-X"), std::nullopt);
  EXPECT_EQ(found("B-X E-X|B-X I-X"), std::nullopt);
}

TEST(Scheme, CountsBreaks) {
  const Breaks broken = breaks(sentences_of("B-X I-X|O I-X I-Y|I-X"), Scheme::iob2);
  EXPECT_EQ(broken.count, 3);
  EXPECT_EQ(broken.sentence, 1);
  EXPECT_EQ(broken.word, 1);
  const Breaks open = breaks(sentences_of("S-X B-X"), Scheme::iobes);  // never ended
  EXPECT_EQ(open.count, 1);
  EXPECT_EQ(open.word, 1);
}

// ---- scores

TEST(Scores, AnExampleByHand) {
  const auto gold = sentences_of("B-PER I-PER O B-LOC|O B-ORG O"),
             predicted = sentences_of("B-PER I-PER O B-ORG|B-LOC B-ORG O");
  const Score result = score(gold, predicted, Scheme::iob2, Reading::strict);
  EXPECT_EQ(result.all, (Counts{3, 4, 2}));
  EXPECT_DOUBLE_EQ(result.all.precision(), 0.5);
  EXPECT_DOUBLE_EQ(result.all.recall(), 2.0 / 3);
  EXPECT_DOUBLE_EQ(result.all.f1(), 4.0 / 7);
  EXPECT_EQ(result.types.at("PER"), (Counts{1, 1, 1}));
  EXPECT_EQ(result.types.at("LOC"), (Counts{1, 1, 0}));
  EXPECT_EQ(result.types.at("ORG"), (Counts{1, 2, 1}));
  EXPECT_DOUBLE_EQ(result.macro_f1(), (1 + 0 + 2.0 / 3) / 3);
  EXPECT_EQ(result.sentences, 2);
  EXPECT_EQ(result.words, 7);
  EXPECT_EQ(result.words_right, 5);
  const Json json = to_json(result);
  EXPECT_EQ(json.at("f1"), result.all.f1());
  EXPECT_EQ(json.at("types").at("ORG").at("predicted"), 2);
  EXPECT_EQ(json.at("words_right"), 5);
  EXPECT_EQ(json.at("macro_precision"), result.macro_precision());
}

TEST(Scores, WordsCutOffAreMissed) {
  // A model that sees the first three words alone says O of the others.
  const auto gold = sentences_of("O B-PER O B-LOC I-LOC B-PER"), predicted = sentences_of("O B-PER O O O O");
  EXPECT_EQ(score(gold, predicted, Scheme::iob2, Reading::strict).all, (Counts{3, 1, 1}));
}

TEST(Scores, LengthsMustAgree) {
  const auto two = sentences_of("O O|O"), one = sentences_of("O O"), other = sentences_of("O O|O O");
  for (const auto& work : std::vector<std::function<void(std::span<const Tags>)>>{
           [&](auto given) { score(two, given, Scheme::iob2, Reading::strict); },
           [&](auto given) { mistakes(two, given, Scheme::iob2, Reading::strict); }}) {
    EXPECT_THAT(refusal([&] { work(one); }), HasSubstr("2 sentences of gold tags and 1 of predicted"));
    EXPECT_THAT(refusal([&] { work(other); }), HasSubstr("sentence 2 has 1 gold tags and 2 predicted"));
  }
  const auto bad = sentences_of("O O|X");
  EXPECT_THAT(refusal([&] { score(two, bad, Scheme::iob2, Reading::strict); }),
              HasSubstr("predicted tags of sentence 2: \"X\" is no tag"));
  EXPECT_EQ(score({}, {}, Scheme::iob2, Reading::strict).all.f1(), 0);
}

TEST(Scores, SumsOfEntitiesAreThoseOfTypes) {
  SplitMix random(3);
  for (int round = 0; round < 500; ++round) {
    std::vector<Tags> gold, predicted;
    for (int s = 0; s < 4; ++s) {
      const int64_t words = random.below(9);
      gold.push_back(tags_of(random_entities(random, words), words, Scheme::iob2));
      predicted.push_back(tags_of(random_entities(random, words), words, Scheme::iob2));
    }
    const Score one = score(gold, predicted, Scheme::iob2, Reading::strict);
    const Score other = score(predicted, gold, Scheme::iob2, Reading::strict);
    EXPECT_EQ(one.all.precision(), other.all.recall());
    EXPECT_EQ(one.all.f1(), other.all.f1());
    Counts sum;
    for (const auto& [type, counts] : one.types) sum += counts;
    EXPECT_EQ(sum, one.all);
    EXPECT_EQ(score(gold, gold, Scheme::iob2, Reading::strict).all.correct, one.all.gold);

    // Every entity is right or in exactly one mistake.
    int64_t missing = 0, extra = 0;
    for (const Mistake& mistake : mistakes(gold, predicted, Scheme::iob2, Reading::strict)) {
      missing += mistake.gold ? 1 : 0;
      extra += mistake.predicted ? 1 : 0;
      EXPECT_EQ(mistake.gold.has_value(), mistake.fault != Fault::invented);
      EXPECT_EQ(mistake.predicted.has_value(), mistake.fault != Fault::missed);
      EXPECT_NE(mistake.gold, mistake.predicted);
    }
    EXPECT_EQ(missing, one.all.gold - one.all.correct);
    EXPECT_EQ(extra, one.all.predicted - one.all.correct);
  }
}

// ---- mistakes

// "type 0: PER 0-2, LOC 0-2" and the like.
std::vector<std::string> told(const std::string& gold, const std::string& predicted,
                              Reading reading = Reading::strict) {
  std::vector<std::string> out;
  const auto shown = [](const std::optional<Entity>& entity) {
    return entity ? fmt::format("{} {}-{}", entity->type, entity->begin, entity->end) : "none";
  };
  for (const Mistake& m : mistakes(sentences_of(gold), sentences_of(predicted), Scheme::iob2, reading))
    out.push_back(
        fmt::format("{} {}: {}, {}", fault_name(m.fault), m.sentence, shown(m.gold), shown(m.predicted)));
  return out;
}

TEST(Mistakes, OfEachKind) {
  EXPECT_THAT(told("B-X I-X O", "B-X I-X O"), IsEmpty());
  EXPECT_THAT(told("O|B-X I-X O", "O|O O O"), ElementsAre("missed 1: X 0-2, none"));
  EXPECT_THAT(told("O O", "O B-X"), ElementsAre("invented 0: none, X 1-2"));
  EXPECT_THAT(told("B-X I-X O", "B-Y I-Y O"), ElementsAre("type 0: X 0-2, Y 0-2"));
  EXPECT_THAT(told("B-X I-X O", "B-X I-X I-X"), ElementsAre("ends 0: X 0-2, X 0-3"));
  EXPECT_THAT(told("B-X I-X O", "O B-Y I-Y"), ElementsAre("type and ends 0: X 0-2, Y 1-3"));
  EXPECT_THAT(told("B-X O", "O B-X"), ElementsAre("missed 0: X 0-1, none", "invented 0: none, X 1-2"));
}

TEST(Mistakes, BelongToTheEntityWithMostWordsInCommon) {
  EXPECT_THAT(told("B-X B-Y I-Y I-Y", "B-X I-X I-X I-X"),
              ElementsAre("missed 0: X 0-1, none", "type and ends 0: Y 1-4, X 0-4"));
  // As many words with both: the one of the same type, then the earlier one.
  EXPECT_THAT(told("B-X B-Y", "B-Y I-Y"), ElementsAre("missed 0: X 0-1, none", "ends 0: Y 1-2, Y 0-2"));
  EXPECT_THAT(told("B-X B-X", "B-Y I-Y"),
              ElementsAre("type and ends 0: X 0-1, Y 0-2", "missed 0: X 1-2, none"));
  // One that was cut in two is wrong once; what is left over was invented.
  EXPECT_THAT(told("B-X I-X I-X", "B-X B-X I-X"),
              ElementsAre("invented 0: none, X 0-1", "ends 0: X 0-3, X 1-3"));
  // A right one takes no part.
  EXPECT_THAT(told("B-X I-X B-X", "B-X I-X B-Y"), ElementsAre("type 0: X 2-3, Y 2-3"));
}

TEST(Mistakes, EntitiesThatOverlapTakeNoMoreThanTheirShare) {
  // conlleval's rules read E-X L-X E-X ... as entities that all begin at the same word.
  Tags gold = {"B-X"}, predicted = {"B-Y"};
  for (int i = 0; i < 20000; ++i) {
    gold.push_back(i % 2 == 0 ? "E-X" : "L-X");
    predicted.push_back(i % 2 == 0 ? "E-Y" : "L-Y");
  }
  const std::vector<Tags> a = {gold}, b = {predicted};
  const std::vector<Mistake> found = mistakes(a, b, Scheme::iob2, Reading::lenient);
  int64_t missing = 0, extra = 0;
  for (const Mistake& mistake : found) missing += mistake.gold ? 1 : 0, extra += mistake.predicted ? 1 : 0;
  const Counts counts = score(a, b, Scheme::iob2, Reading::lenient).all;
  EXPECT_EQ(counts.gold, 10001);
  EXPECT_EQ(missing, counts.gold);
  EXPECT_EQ(extra, counts.predicted);
}

// ---- files

TEST(Conll, ColumnsAndSentences) {
  const Document document = parse_conll("EU\tB-ORG\nrejects\tO\n\nPeter\tB-PER\nBlackburn\tI-PER\n", "f");
  ASSERT_EQ(document.sentences.size(), 2u);
  EXPECT_EQ(document.columns, 2);
  EXPECT_THAT(document.sentences[0].words, ElementsAre("EU", "rejects"));
  EXPECT_THAT(document.sentences[1].tags, ElementsAre("B-PER", "I-PER"));
  EXPECT_THAT(document.sentences[1].rows[0], ElementsAre("Peter", "B-PER"));
  EXPECT_EQ(document.sentences[0].line, 1);
  EXPECT_EQ(document.sentences[1].line, 4);
  EXPECT_THAT(document.notes, IsEmpty());
}

TEST(Conll, ColumnsOfChoice) {
  const std::string text = "1 EU NNP B-NP B-ORG\n2 rejects VBZ B-VP O\n";
  const Document document = parse_conll(text, "f", {.word_column = 1, .tag_column = -2});
  EXPECT_THAT(document.sentences[0].words, ElementsAre("EU", "rejects"));
  EXPECT_THAT(document.sentences[0].tags, ElementsAre("B-NP", "B-VP"));
  EXPECT_THAT(parse_conll(text, "f", {.word_column = -4, .tag_column = 3}).sentences[0].tags,
              ElementsAre("B-NP", "B-VP"));
  for (const ReadOptions& options :
       {ReadOptions{.word_column = 5}, ReadOptions{.word_column = -6}, ReadOptions{.tag_column = 5}}) {
    EXPECT_THAT(refusal([&] { parse_conll(text, "f", options); }), HasSubstr("the file has 5 columns"));
  }
  EXPECT_THAT(refusal([&] { parse_conll(text, "f", {.word_column = 4}); }),
              HasSubstr("both asked of column 5"));
}

TEST(Conll, EveryKindOfEmptyLine) {
  const Document document =
      parse_conll("\r\n\n \t \na\tO\n\t\nb\tO\n  \t\nc\tO\n\n\n\nd\tO", "f");  // no end of the last line
  ASSERT_EQ(document.sentences.size(), 4u);
  EXPECT_EQ(document.sentences[3].line, 12);
  EXPECT_THAT(document.notes,
              ElementsAre("f: 3 lines of white space alone were read as empty, the first in line 3"));
}

TEST(Conll, LinesThatEndInCrlf) {
  const Document document = parse_conll("a\tB-X\r\nb\tI-X\r\n\r\nc\tO\r\n", "f");
  ASSERT_EQ(document.sentences.size(), 2u);
  EXPECT_THAT(document.sentences[0].tags, ElementsAre("B-X", "I-X"));
  EXPECT_THAT(document.sentences[1].rows[0], ElementsAre("c", "O"));
  EXPECT_THAT(document.notes, IsEmpty());
}

TEST(Conll, SpacesOrTabs) {
  EXPECT_THAT(parse_conll("a   B-X \n  b I-X\n", "f").sentences[0].rows,
              ElementsAre(ElementsAre("a", "B-X"), ElementsAre("b", "I-X")));
  const Document tabs = parse_conll("New York\tB-LOC \nx \tO\n \tO\n\tO\n", "f");
  EXPECT_THAT(tabs.sentences[0].words, ElementsAre("New York", "x", "\uFFFD", "\uFFFD"));
  EXPECT_THAT(tabs.sentences[0].tags, ElementsAre("B-LOC", "O", "O", "O"));
  EXPECT_THAT(tabs.sentences[0].rows[1], ElementsAre("x ", "O"));
  EXPECT_THAT(
      tabs.notes,
      ElementsAre("f: 2 words are empty or white space alone and were read as U+FFFD, the first in line 3"));
}

TEST(Conll, DocumentLinesAreDropped) {
  const Document document = parse_conll(
      "-DOCSTART- -X- -X- O\n\na NN I-NP O\n-DOCSTART- (1 EU)\nb NN I-NP I-X\n\n-DOCSTART-\n", "f");
  ASSERT_EQ(document.sentences.size(), 2u);
  EXPECT_THAT(document.sentences[1].words, ElementsAre("b"));
}

TEST(Conll, BytesThatAreNotText) {
  const Document document = parse_conll(
      "\xEF\xBB\xBF"
      "a\xff\xc3\tO\n\xe4\xba\xba\tO\n\n\xed\xa0\x80\tO\n",
      "f");
  EXPECT_THAT(document.sentences[0].words, ElementsAre("a\uFFFD\uFFFD", "人"));
  EXPECT_THAT(document.sentences[1].words, ElementsAre("\uFFFD\uFFFD\uFFFD"));
  EXPECT_THAT(document.notes, ElementsAre(HasSubstr("2 lines are not UTF-8")));
  EXPECT_THAT(document.notes, ElementsAre(HasSubstr("the first in line 1")));
  EXPECT_THAT(refusal([] {
                parse_conll(std::string_view("\xff\xfe"
                                             "a\0\t\0",
                                             6),
                            "f");
              }),
              HasSubstr("UTF-16"));
}

TEST(Conll, WordsAlone) {
  const Document document = parse_conll("a\nb\n\nc\n", "f", {.tags = false});
  ASSERT_EQ(document.sentences.size(), 2u);
  EXPECT_EQ(document.columns, 1);
  EXPECT_THAT(document.sentences[0].words, ElementsAre("a", "b"));
  EXPECT_THAT(document.sentences[0].tags, IsEmpty());
  EXPECT_THAT(parse_conll("a NN nonsense\n", "f", {.tags = false}).sentences[0].words, ElementsAre("a"));
  EXPECT_THAT(refusal([] { parse_conll("a\nb\n", "f"); }), HasSubstr("f: has one column"));
}

TEST(Conll, WhatIsRefused) {
  const auto refused = [](std::string_view text) { return refusal([&] { parse_conll(text, "f"); }); };
  EXPECT_THAT(refused(""), HasSubstr("f: holds no sentence"));
  EXPECT_THAT(refused("\n \n-DOCSTART- O\n"), HasSubstr("holds no sentence"));
  EXPECT_THAT(refused("a\tO\nb\n"),
              HasSubstr("line 2 has one column where line 1 has 2; tabs part columns, as in line 1"));
  EXPECT_THAT(refused("a O\n\nb c O\n"),
              HasSubstr("line 3 has 3 columns where line 1 has 2; runs of spaces"));
  EXPECT_THAT(refused("a O\nb\tO\n"),
              HasSubstr("line 2 has 2 columns where line 1 has 1; tabs part columns, as in line 2"));
  EXPECT_THAT(refused("a\tO\nb\t\n"), HasSubstr("line 2 has no tag in column 2"));
  EXPECT_THAT(refused("a\tO\nb\tB-\n"), HasSubstr("line 2: the tag \"B-\" has no type; write it as B-PER"));
  EXPECT_THAT(refused("a\tI\n"), HasSubstr("line 1: the tag \"I\" has no type"));
  EXPECT_THAT(refused("a\tB--\n"), HasSubstr("has no type"));
  for (const char* tag : {"PER", "X-PER", "b-PER", "o", "BPER", "O-PER", "-"}) {
    EXPECT_THAT(refused(fmt::format("a\tO\n\nb\t{}\n", tag)),
                HasSubstr(fmt::format("line 3: \"{}\" in column 2 is no tag", tag)));
  }
}

TEST(Conll, LongLinesAndLongSentences) {
  const std::string word(3 << 20, 'x');
  const Document long_word = parse_conll(word + "\tB-X\n", "f");
  EXPECT_EQ(long_word.sentences[0].words[0].size(), word.size());
  std::string text;
  for (int i = 0; i < 200000; ++i) text += i % 3 == 0 ? "a\tB-X\n" : "a\tI-X\n";
  Document document = parse_conll(text, "f");
  ASSERT_EQ(document.sentences.size(), 1u);
  to_iob2(document, {}, "f");
  EXPECT_THAT(document.notes, IsEmpty());
  EXPECT_EQ(entities(document.sentences[0].tags, Scheme::iob2, Reading::strict).size(), 66667u);
}

TEST(Conll, ReadsFiles) {
  const tests::Folder folder;
  write_file(folder / "a.conll", "a\tO\nb\tX\n");
  EXPECT_THAT(refusal([&] { read_conll(folder / "a.conll"); }),
              HasSubstr((folder / "a.conll").string() + ": line 2"));
  EXPECT_THAT(refusal([&] { read_conll(folder / "b.conll"); }), HasSubstr("b.conll"));
  write_file(folder / "a.conll", "a\tO\nb\tB-X\n");
  EXPECT_EQ(read_conll(folder / "a.conll").sentences[0].words.size(), 2u);
}

// ---- into IOB2

std::vector<std::string> in_iob2(const std::string& tags, std::optional<Scheme> scheme = {},
                                 std::vector<std::string>* notes = nullptr) {
  std::string text;
  for (const std::string& tag : words_of(tags)) text += tag == "|" ? "\n" : "w\t" + tag + "\n";
  Document document = parse_conll(text, "f");
  to_iob2(document, scheme, "f");
  if (notes) *notes = document.notes;
  std::vector<std::string> out;
  for (const Sentence& sentence : document.sentences)
    std::ranges::copy(sentence.tags, std::back_inserter(out));
  return out;
}

TEST(Iob2, FromEveryScheme) {
  SplitMix random(4);
  for (int round = 0; round < 300; ++round) {
    const int64_t words = 1 + random.below(12);
    const std::vector<Entity> found = random_entities(random, words);
    const Tags expected = tags_of(found, words, Scheme::iob2);
    for (const Scheme scheme : kSchemes) {
      const std::string tags = fmt::format("{}", fmt::join(tags_of(found, words, scheme), " "));
      std::vector<std::string> notes;
      EXPECT_EQ(in_iob2(tags, scheme, &notes), expected) << tags;
      EXPECT_THAT(notes, IsEmpty()) << tags;
      EXPECT_EQ(in_iob2(tags, {}, &notes), expected) << tags;
    }
  }
}

TEST(Iob2, WhatBreaksTheSchemeIsReadLeniently) {
  std::vector<std::string> notes;
  EXPECT_THAT(in_iob2("O I-X I-X | B-X I-Y", Scheme::iob2, &notes),
              ElementsAre("O", "B-X", "I-X", "B-X", "B-Y"));
  EXPECT_THAT(notes,
              ElementsAre("f: 2 tags break IOB2 and were read as conlleval would, the first in line 2"));
  EXPECT_THAT(in_iob2("B-X O | B-X I-X O I-X", {}, &notes),
              ElementsAre("B-X", "O", "B-X", "I-X", "O", "B-X"));
  EXPECT_THAT(notes, ElementsAre("f: one tag breaks IOB2 and was read as conlleval would, line 7"));
  // A prefix of another scheme.
  EXPECT_THAT(in_iob2("B-X L-X U-X S-X", Scheme::bilou, &notes), ElementsAre("B-X", "I-X", "B-X", "B-X"));
  EXPECT_THAT(notes, ElementsAre(HasSubstr("one tag breaks BILOU")));
  EXPECT_THAT(in_iob2("U-X U-X", Scheme::iob2), ElementsAre("B-X", "B-X"));
}

// ---- gold and predictions

TEST(Scored, TheLastTwoColumns) {
  const Scored scored = parse_scored("EU NNP B-ORG B-PER\nrejects VBZ O O\n\nx y O I-X\n", "f");
  EXPECT_THAT(scored.gold, ElementsAre(ElementsAre("B-ORG", "O"), ElementsAre("O")));
  EXPECT_THAT(scored.predicted, ElementsAre(ElementsAre("B-PER", "O"), ElementsAre("I-X")));
  EXPECT_THAT(scored.words, ElementsAre(ElementsAre("EU", "rejects"), ElementsAre("x")));
  EXPECT_THAT(scored.lines, ElementsAre(1, 4));
  EXPECT_THAT(parse_scored("B-X\tO\nO\tO\n", "f").words, ElementsAre(IsEmpty()));
  EXPECT_THAT(refusal([] { parse_scored("O\n", "f"); }), HasSubstr("f: has one column"));
  EXPECT_THAT(refusal([] { parse_scored("a\tO\nb\tO\n", "f"); }),
              HasSubstr("line 1: \"a\" in column 1 is no gold tag"));
  EXPECT_THAT(refusal([] { parse_scored("a O O\nb O B-\n", "f"); }),
              HasSubstr("line 2: the predicted tag \"B-\""));
}

TEST(Written, ReadsBackTheSame) {
  const std::string text = "a b\tNN\tB-X\nc\t\tI-X\n\nX\t\tO\n";
  const Document document = parse_conll(text, "f", {.tags = false});
  EXPECT_EQ(conll_text(document.sentences[0], {"P", "Q"}), "a b\tNN\tB-X\tP\nc\t\tI-X\tQ\n\n");
  const Sentence bare = {.words = {"a", "b"}, .tags = {"O", "B-X"}};
  EXPECT_EQ(conll_text(bare, {}), "a\tO\nb\tB-X\n\n");
  EXPECT_EQ(conll_text({.words = {"a"}}, {"O"}), "a\tO\n\n");
  EXPECT_THAT(refusal([&] { conll_text(bare, {"O"}); }), HasSubstr("a column of 1 cells"));
  EXPECT_THAT(refusal([&] { conll_text({.words = {"a"}, .tags = {"O", "O"}}, {}); }),
              HasSubstr("1 words and 2 tags"));
}

// ---- published files

struct Published {
  const char* file;
  size_t sentences, entities, words;
};

void check_published(const fs::path& folder, std::span<const Published> files) {
  if (!fs::exists(folder)) {
    GTEST_SKIP() << folder << " is not there";
  }
  for (const Published& expected : files) {
    SCOPED_TRACE(expected.file);
    Document document = read_conll(folder / expected.file);
    EXPECT_EQ(document.sentences.size(), expected.sentences);
    std::vector<Tags> tags;
    size_t words = 0, found = 0;
    for (const Sentence& sentence : document.sentences) {
      tags.push_back(sentence.tags);
      words += sentence.words.size();
      found += entities(sentence.tags, Scheme::iob2, Reading::strict).size();
    }
    EXPECT_EQ(found, expected.entities);
    EXPECT_EQ(words, expected.words);
    EXPECT_EQ(scheme_of(tags), Scheme::iob2);
    // Written and read again, tags as a column more.
    std::string text;
    for (const Sentence& sentence : document.sentences) text += conll_text(sentence, sentence.tags);
    const Scored again = parse_scored(text, "again");
    EXPECT_EQ(again.gold, tags);
    EXPECT_EQ(score(again.gold, again.predicted, Scheme::iob2, Reading::strict).all.f1(), 1);
    to_iob2(document, {}, "f");
    for (size_t s = 0; s < tags.size(); ++s) EXPECT_EQ(document.sentences[s].tags, tags[s]);
  }
}

TEST(Files, Wnut17) {
  constexpr Published files[] = {{"wnut17train.conll", 3394, 1975, 62730},
                                 {"emerging.dev.conll", 1009, 836, 15733},
                                 {"emerging.test.annotated", 1287, 1079, 23394}};
  check_published("../shared/data/wnut17", files);
}

TEST(Files, BroadTwitterCorpus) {
  constexpr Published files[] = {{"a.conll", 1000, 521, 16612},  {"b.conll", 2000, 1610, 30825},
                                 {"e.conll", 200, 325, 3981},    {"f.conll", 2000, 4376, 35427},
                                 {"g.conll", 2138, 4685, 34062}, {"h.conll", 2001, 3368, 29480}};
  check_published("../shared/data/btc", files);
}

}  // namespace
}  // namespace lamina::label
