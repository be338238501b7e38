#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "lamina/base/random.h"
#include "lamina/data/byte_tokenizer.h"
#include "lamina/methods/unmask/run.h"
#include "tests/laws/tiny.h"

namespace lamina::unmask {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using tests::refusal;

label::Sentence sentence(std::vector<std::string> words, std::vector<std::string> tags = {}) {
  return {.words = std::move(words), .tags = std::move(tags)};
}

// A byte is a token: a word of n letters has n + 1 of them, the space first.
TEST(Windows, ShortSentencesAreOneWindow) {
  const std::vector<label::Sentence> sentences = {sentence({"ab", "c"}), sentence({}), sentence({"d"})};
  const Tokenizer bytes = byte_tokenizer();
  const auto all = windows(sentences, bytes, {.length = 16, .overlap = 4});
  ASSERT_EQ(all.size(), 2);
  EXPECT_EQ(all[0].ids.size(), 5);
  EXPECT_EQ(all[0].words[0].at, 0);
  EXPECT_EQ(all[0].words[1].at, 3);
  EXPECT_EQ(all[1].sentence, 2);
  const auto last = windows(sentences, bytes, {.length = 16, .overlap = 4, .answer = Answer::last});
  EXPECT_EQ(last[0].words[0].at, 2);
  EXPECT_EQ(last[0].words[1].at, 4);
}

// Long sentences: every word once, in order, never longer than asked, with shared tokens, and answered where
// it has most of them on both sides.
TEST(Windows, LongSentencesAreSplitWithOverlap) {
  tiny::Random random(3);
  for (int round = 0; round < 40; ++round) {
    std::vector<std::string> words;
    for (int64_t w = random.below(60) + 1; w > 0; --w)
      words.emplace_back(static_cast<size_t>(random.below(6) + 1), 'x');
    const EncodeOptions options{.length = 12 + random.below(30), .overlap = random.below(8)};
    const std::vector<label::Sentence> one = {sentence(words)};
    const auto all = windows(one, byte_tokenizer(), options);
    std::vector<int64_t> answered;
    for (const Window& window : all) {
      EXPECT_LE(std::ssize(window.ids), options.length);
      for (const Window::Word& word : window.words) {
        answered.push_back(word.word);
        EXPECT_EQ(window.ids[static_cast<size_t>(word.at)], byte_tokenizer().encode(" ")[0]);
      }
    }
    std::ranges::sort(answered);
    ASSERT_EQ(answered.size(), words.size());
    for (size_t i = 0; i < answered.size(); ++i) EXPECT_EQ(answered[i], static_cast<int64_t>(i));
  }
}

TEST(Windows, AWordLongerThanAWindowKeepsItsBeginning) {
  const std::vector<label::Sentence> one = {sentence({"a", std::string(500, 'x'), "b"})};
  const auto all = windows(one, byte_tokenizer(), {.length = 10, .overlap = 3});
  std::set<int64_t> answered;
  for (const Window& window : all) {
    EXPECT_LE(window.ids.size(), 10);
    for (const auto& word : window.words) answered.insert(word.word);
  }
  EXPECT_THAT(answered, ElementsAre(0, 1, 2));
  EXPECT_THAT(refusal([&] { windows(one, byte_tokenizer(), {.length = 4, .overlap = 4}); }),
              HasSubstr("they share less"));
}

TEST(Padded, CopiesStandInARowAndTheLastAnswers) {
  const Window a{.ids = {1, 2, 3}, .words = {{0, 0}, {1, 2}}}, b{.ids = {4}, .words = {{0, 0}}};
  const Window* both[] = {&a, &b};
  const Padded rows = padded(both, 1, 9);
  EXPECT_TRUE(
      at::equal(rows.inputs.ids, at::tensor({1, 2, 3, 1, 2, 3, 4, 4, 9, 9, 9, 9}, at::kLong).view({2, 6})));
  EXPECT_EQ(rows.inputs.padding->sum().item<int64_t>(), 8);
  EXPECT_THAT(rows.at[0], ElementsAre(3, 5));
  EXPECT_THAT(rows.at[1], ElementsAre(1));
  const Window* alone[] = {&a};
  EXPECT_FALSE(padded(alone, 0, 9).inputs.padding.has_value());
}

std::vector<Window> many(int64_t count) {
  tiny::Random random(5);
  std::vector<Window> all;
  for (int64_t i = 0; i < count; ++i) {
    Window window{.sentence = i};
    window.ids = tiny::tokens(random.below(20) + 2, 50, static_cast<uint64_t>(i));
    window.words = {{0, 0}};
    all.push_back(std::move(window));
  }
  return all;
}

// Each epoch has every sentence once, in another order, whatever pieces it is asked for in; and what stands
// together has like lengths.
TEST(Batches, EveryEpochHasEverySentenceOnce) {
  const auto all = many(331);
  std::vector<std::vector<int32_t>> classes;
  for (int32_t i = 0; i < 331; ++i) classes.push_back({i});
  const auto batches = labelled_batches(all, classes, {.batch = 8, .seed = 7});
  std::vector<std::vector<int64_t>> epochs(3);
  double padded = 0, read = 0;
  for (int64_t at = 0; at < 3 * 331; at += 8) {
    const int64_t count = std::min<int64_t>(8, 3 * 331 - at);
    const Batch batch = batches->at(at, count);
    EXPECT_EQ(batch.first, at);
    padded += static_cast<double>(batch.inputs.ids.numel());
    read += static_cast<double>(batch.inputs.padding ? batch.inputs.padding->sum().item<int64_t>()
                                                     : batch.inputs.ids.numel());
    for (int64_t row = 0; row < count; ++row) {
      const int64_t who = batch.targets[row].max().item<int64_t>();
      epochs[static_cast<size_t>((at + row) / 331)].push_back(who);
      const Batch one = batches->at(at + row, 1);
      EXPECT_EQ(one.targets.max().item<int64_t>(), who);
    }
  }
  EXPECT_NE(epochs[0], epochs[1]);
  for (auto epoch : epochs) {
    std::ranges::sort(epoch);
    for (int64_t i = 0; i < 331; ++i) EXPECT_EQ(epoch[static_cast<size_t>(i)], i);
  }
  EXPECT_LT(padded / read, 1.15);
  EXPECT_NE(batches->digest(), labelled_batches(all, classes, {.batch = 8, .seed = 8})->digest());
}

// Masked next tokens: what is hidden is asked for at the position before, and nothing else is.
TEST(Batches, HiddenTokensAreAskedForOnePositionEarlier) {
  const auto all = many(200);
  const auto batches =
      adaptation_batches(all, {.masked = true, .mask = 49, .vocabulary = 50, .batch = 4, .seed = 2});
  int64_t asked = 0, tokens = 0, masked = 0, kept = 0;
  for (int64_t at = 0; at < 200; at += 4) {
    const Batch batch = batches->at(at, 4);
    const Batch causal =
        adaptation_batches(all, {.masked = false, .vocabulary = 50, .batch = 4, .seed = 2})->at(at, 4);
    const Tensor plain = causal.inputs.ids;
    const int64_t width = plain.size(1);
    for (int64_t row = 0; row < 4; ++row) {
      for (int64_t t = 0; t + 1 < width; ++t) {
        const int64_t want = batch.targets[row][t].item<int64_t>(), next = plain[row][t + 1].item<int64_t>(),
                      read = batch.inputs.ids[row][t + 1].item<int64_t>();
        const bool stands = !causal.inputs.padding || (*causal.inputs.padding)[row][t + 1].item<bool>();
        tokens += stands ? 1 : 0;
        if (want == kNotLearnt) {
          EXPECT_EQ(read, next);
          continue;
        }
        EXPECT_TRUE(stands);
        EXPECT_EQ(want, next);
        ++asked;
        masked += read == 49 ? 1 : 0;
        kept += read == next ? 1 : 0;
        EXPECT_EQ(causal.targets[row][t].item<int64_t>(), next);
      }
    }
  }
  EXPECT_NEAR(static_cast<double>(asked) / static_cast<double>(tokens), 0.2, 0.03);
  EXPECT_NEAR(static_cast<double>(masked) / static_cast<double>(asked), 0.8, 0.06);
  EXPECT_NEAR(static_cast<double>(kept) / static_cast<double>(asked), 0.1, 0.06);
}

TEST(Feedings, AreReadAsTheyWereWritten) {
  Json config;
  write_feeding(config, {.encode = {.length = 64, .overlap = 8, .answer = Answer::last}, .repeat = 2});
  const Feeding feeding = feeding_of(config, "c");
  EXPECT_EQ(feeding.encode.length, 64);
  EXPECT_EQ(feeding.encode.overlap, 8);
  EXPECT_EQ(feeding.encode.answer, Answer::last);
  EXPECT_EQ(feeding.repeat, 2);
  EXPECT_EQ(feeding_of(Json::object(), "c").repeat, 0);
  const auto said = [](const Json& json) {
    return refusal([&] { feeding_of({{"lamina_tagger", json}}, "c"); });
  };
  EXPECT_THAT(said("x"), HasSubstr("object"));
  EXPECT_THAT(said({{"length", 1}}), HasSubstr("length"));
  EXPECT_THAT(said({{"length", 8}, {"overlap", 8}}), HasSubstr("overlap"));
  EXPECT_THAT(said({{"answer", "middle"}}), HasSubstr("first and last"));
  EXPECT_THAT(said({{"lenght", 8}}), HasSubstr("lenght"));
}

// ---- runs of a tiny model

// A word is tagged when an "!" stands two words to its right: only one who looks right can know.
std::vector<label::Sentence> exclaimed(int64_t count, uint64_t seed) {
  tiny::Random random(seed);
  std::vector<label::Sentence> sentences;
  for (int64_t i = 0; i < count; ++i) {
    std::vector<std::string> words, tags;
    const int64_t length = random.below(6) + 4;
    for (int64_t w = 0; w < length; ++w)
      words.emplace_back(random.below(3) == 0 ? "!"
                                              : std::string(1, static_cast<char>('a' + random.below(4))));
    for (int64_t w = 0; w < length; ++w)
      tags.emplace_back(w + 2 < length && words[static_cast<size_t>(w + 2)] == "!" ? "B-loud" : "O");
    sentences.push_back(sentence(words, tags));
  }
  return sentences;
}

struct Learning {
  Learning() {
    const Architecture& llama = *tiny::listed().front();
    Json config = llama.tiny();
    config["vocab_size"] = tokenizer.size();
    model = std::make_unique<tiny::Tiny>(llama, tiny::Options{.config = config});
    std::vector<std::string> notes;
    data = tag_data({.sentences = exclaimed(160, 1)}, {.sentences = exclaimed(40, 2)},
                    {.sentences = exclaimed(40, 3)}, notes);
  }
  RunOptions options(const std::string& mask) const {
    RunOptions options{.mask = mask_plan(mask, model->opened.blueprint),
                       .feeding = {.encode = {.length = 48, .overlap = 8}},
                       .learns = Learns::everything,
                       .dropout = 0};
    options.training.batch = 16;
    options.training.learning_rate = 3e-3;
    options.training.seed = 1;
    options.epochs = 8;
    return options;
  }
  RunOutcome go(const RunOptions& options) const {
    const auto group = alone();
    return run(model->opened, tokenizer, data, options, *group);
  }
  Tokenizer tokenizer = byte_tokenizer();
  std::unique_ptr<tiny::Tiny> model;
  TagData data;
};

TEST(Run, UnmaskingTeachesWhatCausalCannotKnow) {
  const Learning learning;
  const double causal = learning.go(learning.options("0000")).result.test->all.f1();
  const RunOutcome unmasked = learning.go(learning.options("1111"));
  EXPECT_LT(causal, 0.6);
  EXPECT_GT(unmasked.result.test->all.f1(), causal + 0.2);
  EXPECT_EQ(unmasked.result.epochs.size(), 8);
  // What is written says what was measured.
  const Tagger tagger(unmasked.student->now(), learning.tokenizer, {});
  EXPECT_EQ(mask_plan_of(tagger.opened().blueprint).name, "1111");
  std::vector<label::Tags> said;
  for (auto& tagged : tagger.tag(learning.data.test)) said.push_back(tagged.tags);
  EXPECT_EQ(said, unmasked.result.test_tags);
}

TEST(Run, SeedsDecideAndTheSameSeedIsTheSameRun) {
  const Learning learning;
  RunOptions options = learning.options("0011");
  options.epochs = 1;
  options.dropout = 0.1;
  const auto losses = [&] {
    std::vector<double> list;
    for (const StepRecord& record : learning.go(options).result.trained.curve) list.push_back(record.loss);
    return list;
  };
  const auto first = losses();
  EXPECT_EQ(losses(), first);
  options.training.seed = 2;
  EXPECT_NE(losses(), first);
}

// A run that is killed goes on bit for bit, dropout and best epoch included.
TEST(Run, ResumesBitForBit) {
  const Learning learning;
  const tests::Folder folder;
  RunOptions options = learning.options("0110");
  options.learns = Learns::adapters;
  options.lora = {.rank = 4, .alpha = 8};
  options.dropout = options.lora_dropout = 0.1;
  options.best_epoch = true;
  options.epochs = 2;
  options.training.checkpoint_every = 7;
  const RunOutcome whole = learning.go(options);
  options.training.state = folder / "state";
  {
    std::stop_source stop;
    const auto group = alone();
    EXPECT_THROW(run(learning.model->opened, learning.tokenizer, learning.data, options, *group,
                     {.tick = {}, .stop = stop.get_token()},
                     [&](const StepRecord& record) {
                       if (record.step == 9) stop.request_stop();
                     }),
                 Stopped);
  }
  options.training.resume = true;
  const RunOutcome resumed = learning.go(options);
  EXPECT_GT(resumed.result.trained.resumed_from, 0);
  ASSERT_EQ(resumed.result.trained.curve.size(), whole.result.trained.curve.size());
  for (size_t i = 0; i < whole.result.trained.curve.size(); ++i)
    EXPECT_EQ(resumed.result.trained.curve[i].loss, whole.result.trained.curve[i].loss);
  EXPECT_EQ(resumed.result.test_tags, whole.result.test_tags);
  for (const Parameter& parameter : whole.student->parameters())
    EXPECT_TRUE(at::equal(parameter.value, resumed.student->find(parameter.name)->value));
}

TEST(Run, AProbeLeavesTheModelAlone) {
  const Learning learning;
  RunOptions options = learning.options("0000");
  options.learns = Learns::head;
  options.epochs = 1;
  const RunOutcome probe = learning.go(options);
  EXPECT_EQ(probe.student->parameters().size(), 2);
  const Opened now = probe.student->now();
  for (const Stored& stored : learning.model->opened.checkpoint.tensors) {
    if (const Stored* same = now.checkpoint.find(stored.name); same) {
      EXPECT_TRUE(std::ranges::equal(same->bytes, stored.bytes)) << stored.name;
    }
  }
}

TEST(Run, AdaptationAndFirstNumbers) {
  const Learning learning;
  RunOptions options = learning.options("1111");
  options.epochs = 1;
  options.adaptation = {.steps = 5, .learning_rate = 1e-3, .mask_token = 0};
  const RunOutcome adapted = learning.go(options);
  ASSERT_TRUE(adapted.result.adapted.has_value());
  EXPECT_EQ(adapted.result.adapted->curve.size(), 5);
  EXPECT_EQ(mask_plan_of(adapted.student->opened().blueprint).name, "1111");
  options.adaptation = {};
  options.from_scratch = true;
  EXPECT_NE(learning.go(options).result.trained.curve[0].loss, adapted.result.trained.curve[0].loss);
}

TEST(Spans, ACausalModelLooksNeverRight) {
  const Learning learning;
  const auto sentences = windows(learning.data.dev, learning.tokenizer, {.length = 48, .overlap = 8});
  for (const Span& span : attention_spans(*learning.model->model, sentences, 0, 0)) {
    EXPECT_EQ(span.right, 0);
    EXPECT_GT(span.distance, 0);
  }
  const auto& blueprint = learning.model->opened.blueprint;
  const Opened masked = declare(
      apply(learning.model->opened.checkpoint, blueprint, edits_of(mask_plan("0100", blueprint), blueprint)));
  const auto spans = attention_spans(*build_model(masked, {.dtype = at::kDouble}), sentences, 0, 0);
  EXPECT_GT(spans[1].right, 0.1);
  EXPECT_EQ(spans[2].right, 0);
}

TEST(Data, TypesThatTrainingLacksAreNoted) {
  std::vector<std::string> notes;
  const TagData data = tag_data({.sentences = {sentence({"a"}, {"B-x"})}},
                                {.sentences = {sentence({"a", "b"}, {"B-y", "B-x"})}}, {}, notes);
  EXPECT_THAT(data.labels, ElementsAre("O", "B-x", "I-x"));
  ASSERT_EQ(notes.size(), 1);
  EXPECT_THAT(notes[0], HasSubstr("type y"));
  EXPECT_THAT(refusal([&] { tag_data({.sentences = {sentence({"a"}, {"O"})}}, {}, {}, notes); }),
              HasSubstr("no entity"));
}

TEST(Tagging, BatchesCostTheLeast) {
  SplitMix random(3);
  constexpr int64_t kLimit = 40, kPass = 9;
  for (int round = 0; round < 30; ++round) {
    std::vector<int64_t> lengths(static_cast<size_t>(1 + random.below(9)));
    for (int64_t& length : lengths) length = 1 + random.below(50);
    std::ranges::sort(lengths);
    // Nothing where a batch is too large.
    const auto cost = [&](const std::vector<size_t>& ends) -> std::optional<int64_t> {
      int64_t sum = 0;
      size_t begin = 0;
      for (const size_t end : ends) {
        const int64_t tokens = lengths[end - 1] * static_cast<int64_t>(end - begin);
        if (tokens > kLimit && end - begin > 1) return std::nullopt;
        sum += tokens + kPass;
        begin = end;
      }
      return sum;
    };
    // Every way to part them.
    std::optional<int64_t> least;
    for (size_t bits = 0; bits < size_t{1} << (lengths.size() - 1); ++bits) {
      std::vector<size_t> ends;
      for (size_t i = 1; i < lengths.size(); ++i) {
        if (bits >> (i - 1) & 1) ends.push_back(i);
      }
      ends.push_back(lengths.size());
      const auto sum = cost(ends);
      if (sum && (!least || *sum < *least)) least = sum;
    }
    const std::vector<size_t> ends = batch_ends(lengths, kLimit, kPass);
    ASSERT_EQ(ends.back(), lengths.size());
    EXPECT_EQ(cost(ends), least);
  }
  EXPECT_TRUE(batch_ends({}, kLimit, kPass).empty());
}

}  // namespace
}  // namespace lamina::unmask
