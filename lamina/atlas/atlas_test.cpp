#include "lamina/atlas/atlas.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/text.h"

namespace lamina::atlas {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

template <class Work>
std::string refusal(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_TRUE(is_utf8(error.what()));
    EXPECT_EQ(std::string(error.what()).find_first_of("\n\r\x1b"), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "was accepted";
  return "";
}

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr Set kUp{Rows::up, Head::own}, kDown{Rows::down, Head::own}, kRandom{Rows::random, Head::own};

// A model of a few neurons whose scores over the whole vocabulary are known, so that every answer can be
// worked out here a second time.
struct Toy {
  Header header;
  std::vector<Token> tokens;
  std::vector<std::vector<std::vector<float>>> scores;  // [blocks][neurons][vocabulary]

  explicit Toy(unsigned seed = 1, int blocks = 3, int neurons = 5) {
    const char* texts[] = {"<s>",
                           " dog",
                           "Dog",
                           "DOG",
                           "cat",
                           " cats",
                           "catalogue",
                           "\n",
                           "\x1b[2J",
                           " \xC3\x89T\xC3\x89",
                           "\xC3\xA9t\xC3\xA9",
                           "x,\"y\"",
                           "tree",
                           "river",
                           "seven"};
    for (const char* text : texts) tokens.push_back({.text = text, .special = tokens.empty()});
    header.model = "toy";
    header.model_sha256 = "aa";
    header.lamina = "0.1.0";
    header.width = 4, header.neurons = neurons, header.blocks = blocks;
    header.vocabulary = static_cast<int64_t>(tokens.size());
    header.top = 3, header.random = 7, header.seed = 5;
    for (int block = 0; block < blocks; ++block) header.decoded_blocks.push_back(block);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    scores.resize(static_cast<size_t>(blocks));
    for (auto& block : scores) block = rows(neurons, normal, random);
    directions = rows(7, normal, random);
  }

  std::vector<std::vector<float>> rows(int count, auto& normal, auto& random) const {
    std::vector<std::vector<float>> made(static_cast<size_t>(count), std::vector<float>(tokens.size()));
    for (auto& row : made) {
      for (float& score : row) score = normal(random);
    }
    return made;
  }

  Decoded decode(const std::vector<float>& row) const {
    Decoded decoded{
        .norm = 2, .mean = 0.5, .deviation = 1.5, .kurtosis = row[0] * row[0], .top = {}, .bottom = {}};
    double sum = 0, negated = 0;
    std::vector<Label> labels;
    for (size_t token = 0; token < row.size(); ++token) {
      sum += std::exp(row[token]), negated += std::exp(-row[token]);
      labels.push_back({static_cast<int32_t>(token), row[token]});
    }
    decoded.log_sum = std::log(sum), decoded.log_sum_negated = std::log(negated);
    std::ranges::sort(labels, [](const Label& a, const Label& b) { return a.score > b.score; });
    decoded.top.assign(labels.begin(), labels.begin() + header.top);
    decoded.bottom.assign(labels.rbegin(), labels.rbegin() + header.top);
    return decoded;
  }

  std::vector<Decoded> decode_all(const std::vector<std::vector<float>>& rows) const {
    std::vector<Decoded> all;
    for (const auto& row : rows) all.push_back(decode(row));
    return all;
  }

  void improve(std::vector<Best>& best, const std::vector<std::vector<float>>& rows, int block,
               float sign) const {
    best.resize(tokens.size());
    for (size_t n = 0; n < rows.size(); ++n) {
      const Decoded decoded = decode(rows[n]);
      for (size_t token = 0; token < tokens.size(); ++token) {
        const float score = rows[n][token];
        const double log_p = sign * score - (sign > 0 ? decoded.log_sum : decoded.log_sum_negated);
        if (best[token].block < 0 || log_p > best[token].log_p)
          best[token] = {block, static_cast<int>(n), score, log_p};
      }
    }
  }

  void add(Writer& writer, Set set, int block, const std::vector<std::vector<float>>& rows) const {
    std::vector<Best> top = writer.best(set, false), bottom = writer.best(set, true);
    improve(top, rows, block, 1);
    improve(bottom, rows, block, -1);
    writer.add(set, block, decode_all(rows), top, bottom);
  }

  void add_block(Writer& writer, int block) const {
    std::vector<Angles> angles(static_cast<size_t>(header.neurons), Angles{0.25, -0.5, kNone});
    if (!writer.has_angles(block)) writer.add_angles(block, angles);
    if (!writer.has(kUp, block)) add(writer, kUp, block, scores[static_cast<size_t>(block)]);
  }

  void write(const fs::path& path, Writer::Options options = {}) const {
    Writer writer(path, header, tokens, options);
    for (int64_t block : header.decoded_blocks) add_block(writer, static_cast<int>(block));
    if (!writer.has(kRandom, 0)) add(writer, kRandom, 0, directions);
    writer.finish({{"seconds", 1}});
  }

  std::vector<std::vector<float>> directions;
};

class AtlasTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("lamina-atlas-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.push_back(entry.path().filename());
    std::ranges::sort(names);
    return names;
  }
  void sql(const fs::path& path, const std::string& statements) const {
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(database, statements.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
        << sqlite3_errmsg(database) << statements;
    sqlite3_close(database);
  }
  // Everything that a reader can ask.
  static void read_all(const Atlas& atlas, const fs::path& out) {
    for (const Set& set : atlas.sets()) {
      for (int block = 0; block < 3; ++block) {
        for (int neuron = 0; neuron < 5; ++neuron)
          atlas.show(set, {block, neuron}), atlas.angles({block, neuron});
      }
      atlas.by_kurtosis(set, -1, 100);
      atlas.by_kurtosis(set, 1, 100);
      atlas.summary(set);
    }
    for (int32_t token = 0; token < atlas.header().vocabulary; ++token) atlas.token_text(token);
    atlas.find("dog", {});
    compare(atlas, atlas);
    atlas.write_csv(out);
    atlas.write_json(out);
  }

  fs::path folder_;
};

TEST_F(AtlasTest, WhatIsWrittenIsRead) {
  const Toy toy;
  const fs::path path = folder_ / "odd ?#%41 name.sqlite";
  toy.write(path);
  EXPECT_THAT(files(), ElementsAre("odd ?#%41 name.sqlite"));
  const Atlas atlas(path);
  EXPECT_EQ(to_json(atlas.header())["decoded_blocks"], Json({0, 1, 2}));
  EXPECT_EQ(atlas.header().more, Json({{"seconds", 1}}));
  EXPECT_EQ(fingerprint(atlas.header()), fingerprint(toy.header));
  EXPECT_THAT(atlas.sets(), ElementsAre(kUp, kRandom));
  for (int block = 0; block < 3; ++block) {
    for (int neuron = 0; neuron < 5; ++neuron) {
      const Decoded expected =
          toy.decode(toy.scores[static_cast<size_t>(block)][static_cast<size_t>(neuron)]);
      const auto shown = atlas.show(kUp, {block, neuron});
      ASSERT_TRUE(shown);
      EXPECT_EQ(shown->decoded.norm, 2);
      EXPECT_EQ(shown->decoded.kurtosis, expected.kurtosis);
      EXPECT_EQ(shown->decoded.log_sum_negated, expected.log_sum_negated);
      ASSERT_EQ(shown->top.size(), 3U);
      ASSERT_EQ(shown->bottom.size(), 3U);
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(shown->top[i].token, expected.top[i].token);
        EXPECT_EQ(shown->top[i].text, toy.tokens[static_cast<size_t>(expected.top[i].token)].text);
        EXPECT_EQ(shown->top[i].score, expected.top[i].score);
        EXPECT_NEAR(shown->top[i].p, std::exp(expected.top[i].score - expected.log_sum), 1e-12);
        EXPECT_NEAR(shown->top[i].p_pole, shown->top[i].p, 1e-12);
        EXPECT_EQ(shown->bottom[i].token, expected.bottom[i].token);
        EXPECT_NEAR(shown->bottom[i].p, std::exp(expected.bottom[i].score - expected.log_sum), 1e-12);
        EXPECT_NEAR(shown->bottom[i].p_pole, std::exp(-expected.bottom[i].score - expected.log_sum_negated),
                    1e-12);
      }
    }
  }
  const auto angles = atlas.angles({2, 4});
  ASSERT_TRUE(angles);
  EXPECT_EQ(angles->up_down, -0.5);
  EXPECT_TRUE(std::isnan(angles->gate_down));
  EXPECT_TRUE(atlas.show(kRandom, {0, 6}));  // more directions than a block has neurons
  EXPECT_FALSE(atlas.show(kRandom, {0, 7}));
  EXPECT_FALSE(atlas.show(kUp, {0, 5}));
  EXPECT_FALSE(atlas.show(kUp, {3, 0}));
  EXPECT_FALSE(atlas.show(kUp, {-1, 0}));
  EXPECT_FALSE(atlas.show(kDown, {0, 0}));
}

TEST_F(AtlasTest, NeuronsRankByKurtosis) {
  const Toy toy;
  toy.write(folder_ / "a");
  const Atlas atlas(folder_ / "a");
  std::vector<double> all;
  for (const auto& block : toy.scores) {
    for (const auto& row : block) all.push_back(toy.decode(row).kurtosis);
  }
  std::ranges::sort(all, std::greater<>());
  const auto hits = atlas.by_kurtosis(kUp, -1, 100);
  ASSERT_EQ(hits.size(), 15U);
  for (size_t i = 0; i < hits.size(); ++i) {
    EXPECT_EQ(hits[i].kurtosis, all[i]);
    const auto shown = atlas.show(kUp, hits[i].id);
    EXPECT_EQ(shown->kurtosis_rank, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(shown->of, 15);
    EXPECT_EQ(hits[i].bottom, shown->bottom[0].p_pole > shown->top[0].p_pole);
  }
  const auto third = atlas.by_kurtosis(kUp, -1, 2, 3);
  ASSERT_EQ(third.size(), 2U);
  EXPECT_EQ(third[0].id, hits[3].id);
  const auto in_block = atlas.by_kurtosis(kUp, 1, 100);
  ASSERT_EQ(in_block.size(), 5U);
  for (const Hit& hit : in_block) EXPECT_EQ(hit.id.block, 1);
  EXPECT_TRUE(std::ranges::is_sorted(in_block, std::greater<>(), &Hit::kurtosis));
  const auto summary = atlas.summary(kUp, 1.0);
  ASSERT_EQ(summary.size(), 3U);
  EXPECT_EQ(summary[1].median_kurtosis, in_block[2].kurtosis);
  EXPECT_DOUBLE_EQ(
      summary[1].high_kurtosis,
      static_cast<double>(std::ranges::count_if(in_block, [](const Hit& h) { return h.kurtosis > 1; })) / 5);
}

TEST_F(AtlasTest, ConceptsAreFoundWithTheirControls) {
  const Toy toy;
  toy.write(folder_ / "a");
  const Atlas atlas(folder_ / "a");
  EXPECT_THAT(atlas.spellings("dOg "), ElementsAre(1, 2, 3));
  EXPECT_THAT(atlas.spellings("\xC3\x89t\xC3\xA9"), ElementsAre(9, 10));    // accents fold
  EXPECT_THAT(atlas.spellings("e\xCC\x81te\xCC\x81"), ElementsAre(9, 10));  // and compose
  EXPECT_THAT(atlas.spellings("<s>"), IsEmpty());                           // control tokens are no words
  EXPECT_THAT(atlas.spellings("\n"), IsEmpty());
  EXPECT_THAT(atlas.tokens_like("CAT", 10), ElementsAre(4, 5, 6));
  EXPECT_THAT(atlas.tokens_like("cat", 1), ElementsAre(4));
  EXPECT_THAT(refusal([&] { atlas.find("cathedral", {}); }), HasSubstr("begin like it: \"cat\", \" cats\""));
  EXPECT_THAT(refusal([&] { atlas.find("", {}); }), HasSubstr("no single token"));
  EXPECT_THAT(refusal([&] { atlas.find("dog", {.rows = {Rows::gate}}); }), HasSubstr("no gate rows"));

  // The same by hand.
  std::vector<std::tuple<double, int, int, bool, int32_t>> expected;
  for (int block = 0; block < 3; ++block) {
    for (int neuron = 0; neuron < 5; ++neuron) {
      const Decoded d = toy.decode(toy.scores[static_cast<size_t>(block)][static_cast<size_t>(neuron)]);
      for (const Label& label : d.top) {
        if (label.token >= 1 && label.token <= 3)
          expected.emplace_back(std::exp(label.score - d.log_sum), block, neuron, false, label.token);
      }
      for (const Label& label : d.bottom) {
        if (label.token >= 1 && label.token <= 3)
          expected.emplace_back(std::exp(-label.score - d.log_sum_negated), block, neuron, true, label.token);
      }
    }
  }
  std::ranges::sort(expected, std::greater<>());
  ASSERT_GT(expected.size(), 4U);
  const Found found = atlas.find("dog", {});
  ASSERT_EQ(found.hits.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto& [p, block, neuron, bottom, token] = expected[i];
    const Hit& hit = found.hits[i];
    EXPECT_NEAR(hit.reading.p_pole, p, 1e-12);
    EXPECT_EQ(hit.id, (NeuronId{block, neuron}));
    EXPECT_EQ(hit.bottom, bottom);
    EXPECT_EQ(hit.reading.token, token);
    EXPECT_EQ(hit.set, kUp);
    const auto shown = atlas.show(kUp, hit.id);
    EXPECT_EQ((bottom ? shown->bottom : shown->top)[static_cast<size_t>(hit.rank) - 1].token, token);
    EXPECT_EQ(hit.first, (bottom ? shown->bottom : shown->top)[0].text);
  }
  const Found few = atlas.find("dog", {.top = 2});
  ASSERT_EQ(few.hits.size(), 2U);
  EXPECT_EQ(few.hits[1].id, found.hits[1].id);
  for (const Hit& hit : atlas.find("dog", {.rows = {Rows::random}}).hits) EXPECT_EQ(hit.set, kRandom);

  ASSERT_EQ(found.controls.size(), 6U);  // three spellings, two poles
  for (const Control& control : found.controls) {
    const float sign = control.bottom ? -1.0F : 1.0F;
    std::vector<Best> best, random;
    for (int block = 0; block < 3; ++block)
      toy.improve(best, toy.scores[static_cast<size_t>(block)], block, sign);
    toy.improve(random, toy.directions, 0, sign);
    const Best& own = best[static_cast<size_t>(control.token)];
    EXPECT_EQ(control.best.block, own.block);
    EXPECT_EQ(control.best.neuron, own.neuron);
    EXPECT_DOUBLE_EQ(control.best.log_p, own.log_p);
    ASSERT_TRUE(control.random);
    EXPECT_EQ(control.random->neuron, random[static_cast<size_t>(control.token)].neuron);
    EXPECT_EQ(control.random_directions, 7);
    int below = 0;
    for (size_t token = 1; token < best.size(); ++token) below += best[token].log_p < own.log_p ? 1 : 0;
    EXPECT_DOUBLE_EQ(control.above_tokens, below / 13.0);
  }
}

TEST_F(AtlasTest, AKilledRunGoesOn) {
  const Toy toy;
  toy.write(folder_ / "whole");
  const std::string whole = [&] {
    Atlas(folder_ / "whole").write_json(folder_ / "whole.json");
    return read_file(folder_ / "whole.json");
  }();
  std::mt19937 random(3);
  int resumed = 0, finished = 0;
  for (int turn = 0; turn < 15; ++turn) {
    const fs::path path = folder_ / "killed";
    for (const auto& name : {"killed", "killed.partial", "killed.partial-journal"})
      fs::remove(folder_ / name);
    // Killed again and again until it is done.
    for (int attempt = 0; !fs::exists(path); ++attempt) {
      ASSERT_LT(attempt, 1000);
      const pid_t child = fork();
      if (child == 0) {
        try {
          toy.write(path, {.resume = true});
        } catch (const std::exception& error) {
          std::cerr << error.what() << "\n";
          _exit(3);
        }
        _exit(0);
      }
      usleep(static_cast<useconds_t>(random() % (1000 + 200 * static_cast<unsigned>(attempt))));
      kill(child, SIGKILL);
      int status = 0;
      waitpid(child, &status, 0);
      ASSERT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 3);
      finished += WIFEXITED(status) ? 1 : 0;
      resumed += fs::exists(folder_ / "killed.partial") ? 1 : 0;
    }
    EXPECT_FALSE(fs::exists(folder_ / "killed.partial"));
    EXPECT_FALSE(fs::exists(folder_ / "killed.partial-journal"));
    const Atlas atlas(path);
    atlas.write_json(folder_ / "killed.json");
    ASSERT_EQ(read_file(folder_ / "killed.json"), whole);
    const auto a = atlas.find("dog", {}).controls, b = Atlas(folder_ / "whole").find("dog", {}).controls;
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].best.log_p, b[i].best.log_p);
      EXPECT_EQ(a[i].above_tokens, b[i].above_tokens);
    }
  }
  EXPECT_GT(resumed, 15) << finished;  // else nothing was tested
}

TEST_F(AtlasTest, ResumeKnowsWhatIsThere) {
  const Toy toy;
  const fs::path path = folder_ / "a";
  {
    Writer writer(path, toy.header, toy.tokens, {});
    EXPECT_THAT(writer.best(kUp, false), IsEmpty());
    toy.add_block(writer, 1);
    EXPECT_THAT(refusal([&] { toy.add(writer, kUp, 1, toy.scores[1]); }), HasSubstr("already"));
    EXPECT_THAT(refusal([&] { toy.add(writer, kUp, 3, toy.scores[1]); }), HasSubstr("not among"));
    EXPECT_THAT(refusal([&] { writer.finish({}); }), HasSubstr("lacks block 0"));
    EXPECT_THAT(refusal([&] { Writer(path, toy.header, toy.tokens, {}); }), HasSubstr("another run"));
  }
  EXPECT_THAT(files(), ElementsAre("a.partial"));
  EXPECT_THAT(refusal([&] { Atlas(folder_ / "a.partial"); }), HasSubstr("not finished"));
  {
    Writer writer(path, toy.header, toy.tokens, {.resume = true});
    EXPECT_TRUE(writer.has(kUp, 1));
    EXPECT_TRUE(writer.has_angles(1));
    EXPECT_FALSE(writer.has(kUp, 0));
    EXPECT_FALSE(writer.has(kDown, 1));
    std::vector<Best> expected;
    toy.improve(expected, toy.scores[1], 1, -1);
    const auto best = writer.best(kUp, true);
    ASSERT_EQ(best.size(), expected.size());
    for (size_t i = 0; i < best.size(); ++i) {
      EXPECT_EQ(best[i].neuron, expected[i].neuron);
      EXPECT_EQ(best[i].log_p, expected[i].log_p);
      EXPECT_EQ(best[i].score, expected[i].score);
    }
  }
  Toy other = toy;
  other.header.norm = "fold";
  EXPECT_THAT(refusal([&] { Writer(path, other.header, other.tokens, {.resume = true}); }),
              HasSubstr("other options (norm)"));
  other = toy;
  other.tokens[5].text = "dogs";
  EXPECT_THAT(refusal([&] { Writer(path, other.header, other.tokens, {.resume = true}); }),
              HasSubstr("tokens"));
  EXPECT_THAT(files(), ElementsAre("a.partial"));  // a refusal takes nothing away
  {
    Writer writer(path, toy.header, toy.tokens, {});  // without --resume it starts anew
    EXPECT_FALSE(writer.has(kUp, 1));
  }
  toy.write(path, {.resume = true});
  EXPECT_THAT(files(), ElementsAre("a"));
}

TEST_F(AtlasTest, AnAtlasIsReplacedOnlyWhenAskedAndWhole) {
  const Toy toy, next(2);
  const fs::path path = folder_ / "a";
  toy.write(path);
  const std::string before = read_file(path);
  EXPECT_THAT(refusal([&] { Writer(path, toy.header, toy.tokens, {}); }), HasSubstr("exists already"));
  EXPECT_THAT(files(), ElementsAre("a"));
  {
    Writer writer(path, next.header, next.tokens, {.replace = true});
    next.add_block(writer, 0);
  }
  EXPECT_EQ(read_file(path), before);
  next.write(path, {.resume = true, .replace = true});
  EXPECT_NE(read_file(path), before);
  EXPECT_THAT(files(), ElementsAre("a"));
  EXPECT_THAT(refusal([&] { Writer(folder_, toy.header, toy.tokens, {}); }), HasSubstr("is a folder"));
  EXPECT_THAT(refusal([&] { Writer(folder_ / "no" / "a", toy.header, toy.tokens, {}); }),
              HasSubstr("cannot be written: No such file"));
}

TEST_F(AtlasTest, NothingButAnAtlasIsReplaced) {
  const Toy toy;
  write_file(folder_ / "model.gguf", std::string(100, 'x'));
  write_file(folder_ / "other.sqlite", "SQLite format 3" + std::string(100, '\0'));
  fs::create_symlink(folder_ / "model.gguf", folder_ / "link");
  for (const char* name : {"model.gguf", "other.sqlite", "link"}) {
    const std::string before = read_file(folder_ / name);
    EXPECT_THAT(refusal([&] { toy.write(folder_ / name, {.replace = true}); }), HasSubstr("is no atlas"));
    EXPECT_EQ(read_file(folder_ / name), before);
  }
  EXPECT_THAT(files(), ElementsAre("link", "model.gguf", "other.sqlite"));
  write_file(folder_ / "empty", "");
  toy.write(folder_ / "empty", {.replace = true});
}

TEST_F(AtlasTest, AFullDiskIsOneSentenceAndTheOldAtlasStays) {
  const Toy toy;
  toy.write(folder_ / "a");
  const std::string before = read_file(folder_ / "a");
  int refused = 0;
  for (rlim_t limit = 20'000; limit < 100'000; limit += 10'000) {
    const pid_t child = fork();
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit files{limit, limit};
      setrlimit(RLIMIT_FSIZE, &files);
      try {
        toy.write(folder_ / "a", {.replace = true});
      } catch (const Error& error) {
        const std::string text = error.what();

        _exit(text.find("disk") != std::string::npos && text.find("--resume") != std::string::npos ? 7 : 8);
      } catch (...) {
        _exit(9);
      }
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 0) continue;
    ASSERT_EQ(WEXITSTATUS(status), 7) << limit;
    ++refused;
    ASSERT_EQ(read_file(folder_ / "a"), before);
    EXPECT_FALSE(fs::exists(folder_ / "a.partial-journal"));
    toy.write(folder_ / "b", {.replace = true});  // and what is left does not stand in the way
  }
  EXPECT_GT(refused, 2);
  toy.write(folder_ / "a", {.resume = true, .replace = true});
}

TEST_F(AtlasTest, WhatIsNotFiniteIsNotWritten) {
  Toy toy;
  Writer writer(folder_ / "a", toy.header, toy.tokens, {});
  auto decoded = toy.decode_all(toy.scores[0]);
  std::vector<Best> best(toy.tokens.size());
  decoded[3].kurtosis = kNone;  // a row of zeros: all scores equal
  decoded[4].top[1].score = std::numeric_limits<float>::infinity();
  EXPECT_THAT(refusal([&] { writer.add(kUp, 0, decoded, best, best); }), HasSubstr("neuron 0.4 (up)"));
  EXPECT_FALSE(writer.has(kUp, 0));
  decoded[4].top[1].score = 0;
  writer.add(kUp, 0, decoded, best, best);
  toy.add(writer, kUp, 1, toy.scores[1]);
  toy.add(writer, kUp, 2, toy.scores[2]);
  writer.finish({});
  const Atlas atlas(folder_ / "a");
  const auto shown = atlas.show(kUp, {0, 3});
  EXPECT_TRUE(std::isnan(shown->decoded.kurtosis));
  EXPECT_EQ(shown->kurtosis_rank, 15);
  EXPECT_EQ(atlas.by_kurtosis(kUp, -1, 100).back().id, (NeuronId{0, 3}));
}

TEST_F(AtlasTest, ComparingCountsSharedLabels) {
  Toy a, b;
  // Of the 15 neurons of b, 0.1 has its first two labels exchanged, and 2.x say the opposite.
  const Decoded one = a.decode(a.scores[0][1]);
  std::swap(b.scores[0][1][static_cast<size_t>(one.top[0].token)],
            b.scores[0][1][static_cast<size_t>(one.top[1].token)]);
  for (auto& row : b.scores[2]) {
    for (float& score : row) score = -score;
  }
  b.header.model_sha256 = "bb";
  b.header.head_sha256 = "aa";
  a.write(folder_ / "a");
  {
    Writer writer(folder_ / "b", b.header, b.tokens, {});
    for (int block = 0; block < 3; ++block) {
      b.add_block(writer, block);
      b.add(writer, {Rows::up, Head::other}, block, a.scores[static_cast<size_t>(block)]);
    }
    writer.finish({});
  }
  const Atlas first(folder_ / "a"), second(folder_ / "b");
  const auto found = compare(first, second);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].heads, "each its own");
  EXPECT_EQ(found[0].neurons, 15);
  EXPECT_EQ(found[0].same, 9);  // 5 + 5 - 1; a label never is both the top and the bottom of 15 tokens
  ASSERT_EQ(found[0].blocks.size(), 3U);
  EXPECT_EQ(found[0].blocks[0].same, 4);
  EXPECT_EQ(found[0].blocks[0].overlap, 1);  // the same three tokens in another order
  EXPECT_EQ(found[0].blocks[1].same, 5);
  EXPECT_EQ(found[0].blocks[2].same, 0);
  EXPECT_EQ(found[0].blocks[2].overlap, 0);
  EXPECT_NEAR(found[0].overlap, 2.0 / 3, 1e-12);
  EXPECT_EQ(found[1].heads, "the first one's for both");
  EXPECT_EQ(found[1].same, 15);
  EXPECT_EQ(compare(second, first)[1].heads, "the second one's for both");

  Toy(1, 3, 4).write(folder_ / "small");
  EXPECT_THAT(refusal([&] { compare(first, Atlas(folder_ / "small")); }), HasSubstr("other shapes"));
  Toy folded;
  folded.header.norm = "fold";
  folded.write(folder_ / "folded");
  EXPECT_THAT(refusal([&] { compare(first, Atlas(folder_ / "folded")); }), HasSubstr("--norm fold"));
  folded.header.norm = "rms";
  folded.write(folder_ / "folded", {.replace = true});
  EXPECT_EQ(compare(first, Atlas(folder_ / "folded"))[0].same, 15);
  for (Token& token : folded.tokens) token.text += "!";
  folded.header.norm = "none";
  folded.write(folder_ / "folded", {.replace = true});
  EXPECT_THAT(refusal([&] { compare(first, Atlas(folder_ / "folded")); }),
              HasSubstr("15 of 15 tokens differ"));
}

TEST_F(AtlasTest, ExportsHoldEveryLabel) {
  const Toy toy;
  toy.write(folder_ / "a");
  const Atlas atlas(folder_ / "a");
  atlas.write_csv(folder_ / "a.csv");
  const std::string csv = read_file(folder_ / "a.csv");
  EXPECT_THAT(csv, ::testing::StartsWith(
                       "rows,head,block,neuron,pole,rank,token,text,score,p,p_pole\nup,own,0,0,top,1,"));
  EXPECT_THAT(csv, HasSubstr("\"x,\"\"y\"\"\""));
  const std::string text = read_file((atlas.write_json(folder_ / "a.json"), folder_ / "a.json"));
  const Json json = parse_json(text, "a.json");
  EXPECT_EQ(json["neurons"].size(), 22U);
  EXPECT_EQ(json["neurons"][0]["top"].size(), 3U);
  EXPECT_EQ(json["neurons"][0]["top"][0]["id"], atlas.show(kUp, {0, 0})->top[0].token);
}

TEST_F(AtlasTest, DamagedFilesAreRefused) {
  const Toy toy;
  const fs::path path = folder_ / "a", out = folder_ / "out";
  toy.write(path);
  const std::string whole = read_file(path);
  EXPECT_NO_THROW(read_all(Atlas::over(as_bytes(whole), "memory"), out));

  EXPECT_THAT(refusal([&] { Atlas(folder_ / "nothing"); }), HasSubstr("No such file"));
  EXPECT_THAT(refusal([&] { Atlas{folder_}; }), HasSubstr("folder"));
  write_file(folder_ / "text",
             "this is no database, though it is long enough to look at, and it has many words");
  EXPECT_THAT(refusal([&] { Atlas(folder_ / "text"); }), HasSubstr("is no atlas"));
  write_file(folder_ / "empty", "");
  EXPECT_THAT(refusal([&] { Atlas(folder_ / "empty"); }), HasSubstr("is no atlas"));
  sql(folder_ / "foreign", "CREATE TABLE a(b)");
  EXPECT_THAT(refusal([&] { Atlas(folder_ / "foreign"); }), HasSubstr("is no atlas"));
  for (size_t size = 512; size < whole.size(); size += 4096) {
    write_file(folder_ / "cut", std::string_view(whole).substr(0, size));
    EXPECT_NE(refusal([&] { read_all(Atlas(folder_ / "cut"), out); }), "") << size;
  }

  const auto with = [&](const std::string& statements) {
    write_file(folder_ / "changed", whole);
    sql(folder_ / "changed", statements);
    return refusal([&] { read_all(Atlas(folder_ / "changed"), out); });
  };
  EXPECT_THAT(with("PRAGMA user_version = 9"), HasSubstr("version 9"));
  EXPECT_THAT(with("CREATE VIEW v AS SELECT 1"), HasSubstr("not an atlas's"));
  EXPECT_THAT(with("CREATE TRIGGER t AFTER INSERT ON best BEGIN SELECT 1; END"), HasSubstr("not an atlas's"));
  EXPECT_THAT(with("DROP INDEX labels_by_token"), HasSubstr("missing"));
  EXPECT_THAT(with("DELETE FROM header WHERE key = 'top'"), HasSubstr("no number top"));
  EXPECT_THAT(with("UPDATE header SET value = 1e3 WHERE key = 'neurons'"), HasSubstr("value is no text"));
  EXPECT_THAT(with("UPDATE header SET value = 1000000000000 WHERE key = 'neurons'"), HasSubstr("no sense"));
  EXPECT_THAT(with("UPDATE header SET value = '[0,1,7]' WHERE key = 'decoded_blocks'"), HasSubstr("blocks"));
  EXPECT_THAT(with("UPDATE header SET value = '[0' WHERE key = 'decoded_blocks'"), HasSubstr("JSON"));
  EXPECT_THAT(with("UPDATE sets SET rows = 'sideways' WHERE id = 0"), HasSubstr("sets"));
  EXPECT_THAT(with("UPDATE labels SET token = 15 WHERE neuron_id = 3 AND rank = 1"),
              HasSubstr("token is out of range"));
  EXPECT_THAT(with("UPDATE labels SET token = -1 WHERE neuron_id = 3 AND rank = 1"),
              HasSubstr("token is out of range"));
  EXPECT_THAT(with("UPDATE labels SET score = 9e999 WHERE neuron_id = 3"), HasSubstr("score is no number"));
  EXPECT_THAT(with("UPDATE labels SET p = 7 WHERE neuron_id = 3"), HasSubstr("probability"));
  EXPECT_THAT(with("DELETE FROM labels WHERE neuron_id = 3 AND rank = 1"), HasSubstr("rank is out of range"));
  EXPECT_THAT(with("UPDATE neurons SET log_sum = 'x' WHERE id = 3"), HasSubstr("log_sum is no number"));
  EXPECT_THAT(with("UPDATE neurons SET block = 2 WHERE id = 3"), HasSubstr("does not stand"));
  EXPECT_THAT(with("DELETE FROM neurons WHERE id = 3"), HasSubstr("missing"));
  EXPECT_THAT(with("UPDATE best SET block = 77"), HasSubstr("block is out of range"));
  EXPECT_THAT(with("UPDATE tokens SET text = CAST(x'ff' AS TEXT) WHERE id = 4"),
              HasSubstr("text is no text"));
  EXPECT_THAT(with("DELETE FROM tokens WHERE id = 4"), HasSubstr("token 4 is missing"));
  EXPECT_THAT(with("DELETE FROM tokens WHERE id = 14"), HasSubstr("tokens"));
}

TEST_F(AtlasTest, FlippedBytesNeverCrash) {
  const Toy toy;
  toy.write(folder_ / "a");
  const std::string whole = read_file(folder_ / "a");
  std::mt19937 random(9);
  int refused = 0;
  for (int turn = 0; turn < 150; ++turn) {
    std::string changed = whole;
    for (int i = 0; i < 8; ++i) changed[random() % changed.size()] = static_cast<char>(random());
    try {
      const Atlas atlas = Atlas::over(as_bytes(changed), "changed");
      read_all(atlas, folder_ / "out");
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find_first_of("\n\x1b"), std::string::npos);
      ++refused;
    }
  }
  EXPECT_GT(refused, 10);
}

TEST(NeuronIdTest, IsBlockPointNeuron) {
  EXPECT_EQ(neuron_id("12.345"), (NeuronId{12, 345}));
  EXPECT_EQ(neuron_id("0.0"), (NeuronId{0, 0}));
  for (const char* wrong :
       {"", ".", "12", "12.", ".3", "-1.2", "1.-2", "1.2.3", "1.2 ", "+1.2", "a.b", "1.99999999999", "1e2.3"})
    EXPECT_THAT(refusal([&] { neuron_id(wrong); }), HasSubstr("BLOCK.NEURON")) << wrong;
}

// Speed on an atlas as large as Llama 3.1 8B's: --gtest_also_run_disabled_tests. LAMINA_ATLAS_BLOCKS makes it
// smaller.
double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void write_large(const fs::path& path, int blocks, int neurons, int vocabulary) {
  Header header;
  header.model = "large", header.width = 1, header.neurons = neurons, header.blocks = blocks;
  header.vocabulary = vocabulary, header.random = 1024;
  std::vector<Token> tokens(static_cast<size_t>(vocabulary));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i].text = " word" + std::to_string(i);
  tokens[1].text = " dog", tokens[2].text = "Dog", tokens[3].text = "DOG", tokens[4].text = " often";
  for (int block = 0; block < blocks; ++block) header.decoded_blocks.push_back(block);
  std::mt19937 random(1);
  double adding = 0;
  Writer writer(path, header, tokens, {});
  std::vector<Best> best(tokens.size());
  std::vector<Decoded> decoded(static_cast<size_t>(neurons));
  const auto fill = [&](Decoded& neuron) {
    neuron = {.norm = 1,
              .deviation = 1,
              .kurtosis = 3 + static_cast<double>(random() % 100000) / 1e5,
              .log_sum = 12,
              .log_sum_negated = 12,
              .top = {},
              .bottom = {}};
    for (int i = 0; i < 8; ++i) {
      neuron.top.push_back({static_cast<int32_t>(random() % static_cast<unsigned>(vocabulary)),
                            8.0F - static_cast<float>(i) - static_cast<float>(random() % 1000) / 1e3F});
      neuron.bottom.push_back({static_cast<int32_t>(random() % static_cast<unsigned>(vocabulary)),
                               -8.0F + static_cast<float>(i)});
    }
    if (random() % 9 < 2) neuron.top[3].token = 4;  // a token that labels 100,000 neurons of 458,752
  };
  for (int block = 0; block < blocks; ++block) {
    header.seed = block;
    for (Decoded& neuron : decoded) fill(neuron);
    for (Best& it : best) {
      if (random() % static_cast<unsigned>(block + 1) == 0)
        it = {block, static_cast<int>(random() % static_cast<unsigned>(neurons)), 5,
              -5 - static_cast<double>(random() % 100000) / 1e5};
    }
    adding += seconds_of([&] { writer.add({Rows::up, Head::own}, block, decoded, best, best); });
  }
  decoded.resize(1024);
  for (Decoded& neuron : decoded) fill(neuron);
  for (Best& it : best) it.block = 0;
  writer.add({Rows::random, Head::own}, 0, decoded, best, best);
  const double finishing = seconds_of([&] { writer.finish({}); });
  std::cout << blocks * neurons << " neurons x 16 labels: written in " << adding << " s, finished in "
            << finishing << " s, " << fs::file_size(path) / 1000000 << " MB\n";
}

TEST_F(AtlasTest, DISABLED_Speed) {
  write_large(folder_ / "small", 30, 1536, 49152);
  const char* blocks = std::getenv("LAMINA_ATLAS_BLOCKS");
  write_large(folder_ / "large", blocks ? std::atoi(blocks) : 32, 14336, 128256);
  for (const char* word : {"dog", "often", "word77777"}) {
    Found found;
    const double first = seconds_of([&] { found = Atlas(folder_ / "large").find(word, {}); });
    const Atlas atlas(folder_ / "large");
    const double again = seconds_of([&] { atlas.find(word, {}); });
    std::cout << word << ": " << found.hits.size() << " hits, opened and found in " << first * 1e3
              << " ms, again in " << again * 1e3 << " ms\n";
    EXPECT_LT(first, 0.05);
  }
  const Atlas atlas(folder_ / "large");
  std::cout << "show " << seconds_of([&] { atlas.show({Rows::up, Head::own}, {3, 77}); }) * 1e3
            << " ms, by kurtosis "
            << seconds_of([&] { atlas.by_kurtosis({Rows::up, Head::own}, -1, 100); }) * 1e3
            << " ms, of a block "
            << seconds_of([&] { atlas.by_kurtosis({Rows::up, Head::own}, 3, 100); }) * 1e3
            << " ms, tokens like " << seconds_of([&] { atlas.tokens_like("word1", 20); }) * 1e3
            << " ms, summary " << seconds_of([&] { atlas.summary({Rows::up, Head::own}); }) * 1e3 << " ms\n";
}

}  // namespace
}  // namespace lamina::atlas
