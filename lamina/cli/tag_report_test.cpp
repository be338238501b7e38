// The page and the JSON of made-up searches. LAMINA_PAGES=FOLDER writes them there, to be looked at.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "lamina/base/file.h"
#include "lamina/cli/tag_numbers.h"
#include "lamina/report/terminal.h"

namespace lamina::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Numbers that look measured and are the same everywhere.
class Noise {
 public:
  explicit Noise(uint64_t seed = 42) : state_(seed) {}
  double uniform() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state_ >> 40) / static_cast<double>(1 << 24);
  }
  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }

 private:
  uint64_t state_;
};

// Counts whose F1 is `f1` as nearly as 2,000 entities allow.
label::Score score_with(double f1, const std::vector<std::string>& types = {"LOC", "MISC", "ORG", "PER"}) {
  label::Score score;
  const int64_t each = 2000 / std::ssize(types);
  for (size_t i = 0; i < types.size(); ++i) {
    // Of a skewed size, the later types rarer.
    const int64_t gold = std::max<int64_t>(
        1, each * 2 * (std::ssize(types) - static_cast<int64_t>(i)) / (std::ssize(types) + 1));
    label::Counts counts{
        .gold = gold, .predicted = gold, .correct = std::llround(f1 * static_cast<double>(gold))};
    score.all += counts;
    score.types[types[i]] = counts;
  }
  score.sentences = 3453, score.words = 46435;
  score.words_right = std::llround(46435 * (0.8 + 0.2 * f1));
  return score;
}

unmask::RunResult run_with(const MaskPlan& mask, int64_t repeat, uint64_t seed, double f1, bool dev = true,
                           bool test = true) {
  unmask::RunResult run{.mask = mask.name, .repeat = repeat, .seed = seed};
  Noise noise(seed * 1000 + std::hash<std::string>()(mask.name) % 1000);
  for (int64_t step = 1; step <= 660; ++step) {
    const double at = static_cast<double>(step) / 660;
    run.trained.curve.push_back(
        {.step = step,
         .loss = (1 - f1) * (1 + 9 * std::exp(-9 * at)) * (0.8 + 0.4 * noise.uniform()),
         .learning_rate = 2e-4 * (1 - at),
         .gradient_norm = 0.2 + noise.uniform(),
         .tokens = 500,
         .seconds = 0.1});
  }
  for (int64_t epoch = 1; epoch <= 5; ++epoch)
    run.epochs.push_back(
        {.epoch = epoch, .step = 132 * epoch, .dev_f1 = f1 * (1 - 0.3 * std::exp(-1.0 * epoch)) + 0.01});
  if (dev) run.dev = score_with(f1 + 0.01);
  if (test) run.test = score_with(f1);
  run.seconds = (60 + 3 * noise.uniform()) * static_cast<double>(repeat + 1);
  run.tokens = 330'000 * (repeat + 1), run.padded_tokens = 361'000 * (repeat + 1);
  return run;
}

MaskPlan plan_of(const std::string& bits, int blocks) {
  MaskPlan plan{.name = bits};
  const int each = blocks / static_cast<int>(bits.size());
  for (int block = 0; block < blocks; ++block) {
    if (bits[static_cast<size_t>(block / each)] == '1') plan.blocks.push_back(block);
  }
  return plan;
}

// F1 of a plan: the groups near the output help most.
double f1_of_bits(const std::string& bits) {
  double f1 = 0.781;
  for (size_t i = 0; i < bits.size(); ++i) f1 += bits[i] == '1' ? 0.012 + 0.016 * static_cast<double>(i) : 0;
  return std::min(f1, 0.868) - (bits.front() == '1' ? 0.004 : 0);
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text) {
    if (c == ' ')
      words.push_back(std::move(word)), word.clear();
    else
      word += c;
  }
  words.push_back(word);
  return words;
}

TagExample example_with(std::vector<std::string> words, label::Tags gold, label::Tags said, int64_t line) {
  TagExample example{.sentence = {.words = std::move(words), .tags = gold, .line = line}, .said = said};
  const std::vector<label::Tags> golds{gold}, saids{said};
  example.mistakes = label::mistakes(golds, saids, label::Scheme::iob2, label::Reading::strict);
  return example;
}

struct Made {
  int groups = 4, seeds = 5;
  bool dev = true, test = true, searched = true, repetition = true, probe = true;
  double noise = 0.004;
};

TagOutcome made(const Made& how) {
  TagOutcome outcome{
      .model = "SmolLM2-135M",
      .title = "A tagger from SmolLM2-135M: plan 0011 of 16",
      .command =
          "lamina tag train SmolLM2-135M --train train.conll --dev dev.conll --test "
          "test.conll --groups 4 --search --seeds 5 -o tagger",
      .labels = {"O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER"},
      .blocks = 32,
      .searched = how.searched};
  Noise noise;
  const auto add = [&](std::string name, const MaskPlan& mask, int64_t repeat, bool probe, double f1) {
    TagArm arm{.name = std::move(name), .mask = mask, .repeat = repeat, .probe = probe};
    arm.compute = static_cast<double>(repeat + 1);
    for (int seed = 1; seed <= how.seeds; ++seed)
      arm.runs.push_back(run_with(mask, repeat, static_cast<uint64_t>(seed), f1 + how.noise * noise.normal(),
                                  how.dev, how.test));
    for (int block = 0; block < outcome.blocks && !probe; ++block) {
      const bool open = std::ranges::find(mask.blocks, block) != mask.blocks.end();
      arm.spans.push_back({.block = block,
                           .distance = 6 + 3 * noise.uniform(),
                           .right = open ? 0.2 + 0.3 * noise.uniform() : 0});
    }
    outcome.arms.push_back(std::move(arm));
  };
  const int plans = how.searched ? 1 << how.groups : 0;
  for (int i = 0; i < plans; ++i) {
    std::string bits;
    for (int g = how.groups - 1; g >= 0; --g) bits += (i >> g) & 1 ? '1' : '0';
    add(bits, plan_of(bits, outcome.blocks), 0, false, f1_of_bits(bits));
    if (bits == "0011") outcome.chosen = outcome.arms.size() - 1;
  }
  if (!how.searched) add("0011", plan_of("0011", outcome.blocks), 0, false, f1_of_bits("0011"));
  if (how.repetition) {
    for (const int repeat : {1, 2, 4})
      add(fmt::format("0000 r={}", repeat), plan_of("0000", outcome.blocks), repeat, false,
          f1_of_bits("0000") + 0.07 * (1 - std::exp(-0.8 * repeat)));
  }
  if (how.probe) add("probe", {.name = "none"}, 0, true, 0.61);
  outcome.score = score_with(f1_of_bits("0011"));
  const std::pair<label::Fault, int> faults[] = {{label::Fault::missed, 61},
                                                 {label::Fault::invented, 43},
                                                 {label::Fault::wrong_type, 71},
                                                 {label::Fault::wrong_ends, 38},
                                                 {label::Fault::wrong_both, 12}};
  const std::vector<std::string> types = {"LOC", "MISC", "ORG", "PER"};
  for (const auto& [fault, count] : faults) {
    for (int i = 0; i < count; ++i) {
      label::Mistake mistake{.fault = fault, .sentence = i};
      const size_t one = static_cast<size_t>(noise.uniform() * 4),
                   other = (one + 1 + static_cast<size_t>(noise.uniform() * 3)) % 4;
      if (fault != label::Fault::invented) mistake.gold = label::Entity{types[one], 0, 1};
      if (fault != label::Fault::missed)
        mistake.predicted = label::Entity{types[fault == label::Fault::wrong_ends ? one : other], 0, 1};
      outcome.mistakes.push_back(std::move(mistake));
    }
  }
  outcome.examples = {
      example_with(words_of("EU rejects German call to boycott British lamb ."),
                   words_of("B-ORG O B-MISC O O O B-MISC O O"), words_of("B-ORG O B-MISC O O O B-MISC O O"),
                   3),
      example_with(words_of("Ada Lovelace met Charles Babbage at the Royal Society in London in 1833 ."),
                   words_of("B-PER I-PER O B-PER I-PER O O B-ORG I-ORG O B-LOC O O O"),
                   words_of("B-PER I-PER O B-PER O O B-ORG I-ORG I-ORG O B-ORG O O O"), 4120),
      example_with(words_of("<script>alert(1)</script> & \"Co\" wrote <b>to</b> Paris"),
                   words_of("B-ORG I-ORG I-ORG O O B-LOC"), words_of("B-ORG I-ORG I-ORG O B-LOC I-LOC"), 77)};
  for (int block = 0; block < outcome.blocks; ++block) {
    const double depth = block / 31.0;
    const bool open = block >= 16;
    outcome.before.push_back({.block = block,
                              .distance = 9 - 4 * depth + noise.uniform(),
                              .right = open ? 0.31 + 0.1 * noise.uniform() : 0});
    outcome.after.push_back({.block = block,
                             .distance = 8 - 3 * depth + noise.uniform(),
                             .right = open ? 0.42 + 0.1 * noise.uniform() : 0});
  }
  outcome.mask_test = {.looks_right = true, .first_block = 16, .reacting = 16};
  outcome.train_sentences = 14041;
  outcome.dev_sentences = how.dev ? 3250 : 0, outcome.test_sentences = how.test ? 3453 : 0;
  outcome.split_sentences = 7;
  outcome.feeding = unmask::Feeding{};
  outcome.settings = {
      {"learning rate", "0.0002"}, {"epochs", "5"}, {"adapters", "rank 16, alpha 16, all linear"}};
  return outcome;
}

// What stands on the page, without its style, its script and the data of its charts.
std::string page(const TagOutcome& outcome, const std::string& name) {
  const report::Report report = tag_report(outcome);
  const std::string html = report::to_html(report);
  const std::string json = tag_json(outcome).dump(1) + "\n";
  if (const char* folder = std::getenv("LAMINA_PAGES")) {
    const std::filesystem::path at(folder);
    write_file(at / (name + ".html"), html);
    write_file(at / (name + ".json"), report::to_json(report).dump(1) + "\n");
    write_file(at / (name + "-results.json"), json);
  }
  EXPECT_NO_THROW(parse_json(json, "the results"));
  std::string body = html.substr(html.find("<main>"));
  for (size_t at = 0; (at = body.find("<script", at)) != std::string::npos;)
    body.erase(at, body.find("</script>", at) - at);
  return body;
}

void expect_said(const std::string& html, const std::vector<std::string>& said,
                 const std::vector<std::string>& not_said = {}) {
  for (const std::string& text : said)
    EXPECT_TRUE(html.find(text) != std::string::npos) << "missing: " << text;
  for (const std::string& text : not_said)
    EXPECT_TRUE(html.find(text) == std::string::npos) << "there: " << text;
}

std::string sentence(const TagOutcome& outcome) {
  return tagging::headline(outcome);
}

// ---- the sentence on top

TEST(TagReport, ASearchSaysWhatWasChosenAndByHowMuch) {
  const TagOutcome outcome = made({.repetition = false, .probe = false});
  EXPECT_THAT(sentence(outcome), AllOf(HasSubstr("Of 16 plans the development set chose plan `0011`: "),
                                       HasSubstr(" % F1 on the test set, +"),
                                       HasSubstr(" points over the causal mask `0000` (95 % interval +"),
                                       HasSubstr(" over 5 seeds), at the same compute a sentence."),
                                       HasSubstr("The search took 80 runs, 1 h"),
                                       Not(HasSubstr("contains 0")), Not(HasSubstr("seed alone"))));
  const std::string html = page(outcome, "search");
  expect_said(html, {"Were all 16 plans equal", "more than choice alone gives", "Repetition was not tried",
                     "The two agree."});
}

TEST(TagReport, SaysThatOneSeedIsOne) {
  TagOutcome outcome = made({.seeds = 1, .repetition = false, .probe = false});
  EXPECT_THAT(sentence(outcome),
              AllOf(HasSubstr("with one seed alone: whether another seed would agree is not known"),
                    Not(HasSubstr("interval"))));
  const std::string html = page(outcome, "one_seed");
  expect_said(html, {"With one seed a plan the noise of a run is not known", "One seed says little",
                     "one seed: not shown"});
  // The one in the legend.
  const size_t first = html.find("<path class=\"interval first\"");
  EXPECT_EQ(html.find("<path class=\"interval first\"", first + 1), std::string::npos);
}

TEST(TagReport, SaysThatAnIntervalContainsZero) {
  TagOutcome outcome = made({.repetition = false, .probe = false});
  for (TagArm& arm : outcome.arms) {
    for (size_t i = 0; i < arm.runs.size(); ++i)
      arm.runs[i].test = score_with(0.80 + 0.01 * static_cast<double>((i + (arm.name == "0011")) % 5));
  }
  EXPECT_THAT(sentence(outcome), HasSubstr("the interval contains 0, so no difference was shown"));
  expect_said(page(outcome, "nothing_gained"), {">not shown<"});
}

TEST(TagReport, SaysThatItIsWorse) {
  TagOutcome outcome = made({.repetition = false, .probe = false});
  for (TagArm& arm : outcome.arms) {
    for (size_t i = 0; i < arm.runs.size(); ++i)
      arm.runs[i].test = score_with((arm.name == "0011" ? 0.7 : 0.8) +
                                    0.005 * static_cast<double>((arm.name == "0011" ? 2 : 3) * i % 5));
  }
  EXPECT_THAT(sentence(outcome),
              AllOf(HasSubstr("-10.0 points against the causal mask"), HasSubstr("it is worse")));
}

TEST(TagReport, ComparesWithRepetitionWhereItWasTried) {
  TagOutcome outcome = made({});
  EXPECT_THAT(sentence(outcome), AllOf(HasSubstr("Of 20 arms"),
                                       HasSubstr("The causal mask with each sentence fed 5 times "
                                                 "(`0000 r=4`) reaches "),
                                       HasSubstr(" at 5.0 times the compute a sentence: ")));
  const std::string html = page(outcome, "everything");
  EXPECT_THAT(
      html, AllOf(HasSubstr("F1 against compute"), HasSubstr("5.0 x the tokens"),
                  HasSubstr("repetition is better than a change of the mask"),
                  HasSubstr("A classifier on the frozen model"), Not(HasSubstr("Repetition was not tried"))));
  // Of other plans repetition is in the table alone.
  TagOutcome more = outcome;
  for (const size_t which : {size_t{1}, size_t{3}}) {
    TagArm arm = outcome.arms[which];
    arm.name += " r=1", arm.repeat = 1, arm.compute = 2;
    more.arms.push_back(std::move(arm));
  }
  expect_said(page(more, "repeated_plans"), {"0000 repeated", "0011 repeated", "0001 r=1"},
              {"0001 repeated"});
  // Equal to the choice run by run but for noise that goes both ways.
  for (TagArm& arm : outcome.arms) {
    for (size_t i = 0; i < arm.runs.size(); ++i)
      if (arm.name == "0000 r=4" || arm.name == "0011")
        arm.runs[i].test = score_with(0.85 + (arm.repeat ? 0.003 : -0.003) * (i % 2 ? 1 : -1));
  }
  EXPECT_THAT(sentence(outcome), HasSubstr("the two cannot be told apart"));
}

TEST(TagReport, TheCausalMaskMayBeTheChoice) {
  TagOutcome outcome = made({.repetition = false, .probe = false});
  outcome.chosen = 0;
  for (TagArm& arm : outcome.arms) {
    for (unmask::RunResult& run : arm.runs)
      run.dev = score_with(tagging::is_causal(arm) ? 0.9 : 0.8), run.test = run.dev;
  }
  outcome.mask_test = {};
  EXPECT_THAT(
      sentence(outcome),
      AllOf(HasSubstr("chose the causal mask `0000`"), HasSubstr("No plan without some masks was better"),
            HasSubstr("The next best, plan `0001`,"), Not(HasSubstr("over the causal mask"))));
  expect_said(page(outcome, "causal"), {"no block looks right", "The two agree."},
              {"cannot write text any more"});
}

TEST(TagReport, APlanAloneHasNothingToBeComparedWith) {
  const TagOutcome outcome = made({.seeds = 1, .searched = false, .repetition = false, .probe = false});
  EXPECT_THAT(sentence(outcome),
              AllOf(HasSubstr("Plan `0011` has "), HasSubstr(" with one seed alone"),
                    HasSubstr("The causal mask was not trained beside it"), Not(HasSubstr("search"))));
  expect_said(page(outcome, "alone"), {"The plan<"}, {"Every run", "F1 of every arm"});
}

TEST(TagReport, WithoutATestSetTheNumberIsTooGood) {
  EXPECT_THAT(sentence(made({.test = false})),
              AllOf(HasSubstr("F1 on the development set"),
                    HasSubstr("there is no test set: the number is too good")));
  page(made({.test = false}), "no_test");
}

TEST(TagReport, WithoutADevelopmentSetNothingWasChosen) {
  const TagOutcome outcome = made({.dev = false});
  EXPECT_THAT(sentence(outcome), Not(HasSubstr("chose")));
  expect_said(page(outcome, "no_dev"), {"no plan was chosen by held-out data"});
}

TEST(TagReport, WithoutAnyHeldOutSetThereIsNoF1) {
  TagOutcome outcome = made({.dev = false, .test = false, .searched = false, .repetition = false});
  outcome.score = {}, outcome.mistakes = {}, outcome.examples = {};
  EXPECT_THAT(sentence(outcome), HasSubstr("without a development set or a test set, so there is no F1"));
  expect_said(page(outcome, "no_sets"), {"Nothing was held out"}, {"F1 of every arm"});
  EXPECT_TRUE(tag_json(outcome)["score"].is_null());
}

TEST(TagReport, NothingIsAPageToo) {
  EXPECT_EQ(sentence({}), "Nothing was trained.");
  expect_said(page({}, "nothing"), {"Nothing was trained."});
}

// ---- numbers

TEST(TagReport, RunsThatBrokeAreInNoMean) {
  TagOutcome outcome = made({.repetition = false, .probe = false});
  TagArm& chosen = outcome.arms[outcome.chosen];
  const double nan = std::numeric_limits<double>::quiet_NaN();
  unmask::RunResult& run = chosen.runs[2];
  run.trained.broke_at = 661, run.trained.broke_on = "the gradient of model.layers.3.mlp.up_proj.weight";
  run.trained.curve.push_back({.step = 661, .loss = nan, .objective = nan, .gradient_norm = nan});
  run.dev = score_with(0.01), run.test = score_with(0.01);
  run.epochs.back().dev_f1 = nan;
  for (unmask::RunResult& other : outcome.arms[5].runs)
    other.trained.broke_at = 1, other.dev = {}, other.test = {};
  EXPECT_EQ(f1_by_seed(chosen, HeldOut::test).size(), 4u);
  EXPECT_GT(tagging::f1_of(chosen, HeldOut::test).low, 80);
  EXPECT_THAT(sentence(outcome),
              AllOf(HasSubstr("over 4 seeds"), HasSubstr("1 of its 5 runs broke and is in no mean.")));
  EXPECT_THAT(
      page(outcome, "broken"),
      AllOf(HasSubstr("4 of 5"), HasSubstr("0 of 5"), HasSubstr("broke at step 661"),
            HasSubstr(
                "0011, seed 3: the gradient of model.layers.3.mlp.up_proj.weight was no number any more")));
  const Json json = tag_json(outcome);
  EXPECT_EQ(json["arms"][3]["runs"][2]["broke_at"], 661);
  EXPECT_TRUE(json["arms"][3]["runs"][2]["curve"].back()[1].is_null());
  EXPECT_EQ(json["arms"][3]["test"]["runs"], 4);
  EXPECT_TRUE(json["arms"][5]["test"].is_null());
}

TEST(TagReport, DifferencesArePairedBySeed) {
  TagOutcome outcome = made({.repetition = false, .probe = false});
  const TagArm &causal = outcome.arms[0], &chosen = outcome.arms[3];
  const auto all = tagging::difference(&chosen, &causal, HeldOut::test);
  ASSERT_TRUE(all);
  EXPECT_EQ(all->pairs, 5);
  double sum = 0;
  for (size_t i = 0; i < 5; ++i) sum += chosen.runs[i].test->all.f1() - causal.runs[i].test->all.f1();
  EXPECT_NEAR(all->mean, 100 * sum / 5, 1e-9);
  // Other seeds are no pair; the order does not matter.
  std::swap(outcome.arms[0].runs[0], outcome.arms[0].runs[4]);
  outcome.arms[0].runs[1].seed = 99;
  const auto fewer = tagging::difference(&outcome.arms[3], &outcome.arms[0], HeldOut::test);
  EXPECT_EQ(fewer->pairs, 4);
  EXPECT_FALSE(tagging::difference(&chosen, &chosen, HeldOut::test));
  EXPECT_FALSE(tagging::difference(&chosen, nullptr, HeldOut::test));
}

TEST(TagReport, TheCorrectionIsThatOfTheSetThatChose) {
  TagOutcome outcome = made({.repetition = false, .probe = false});
  const auto found = tagging::correction_of(outcome, HeldOut::development, 1);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->plans, 16);
  EXPECT_EQ(found->runs, 5);
  EXPECT_NEAR(found->factor, 1.766, 0.001);
  EXPECT_NEAR(found->run_deviation, 0.004, 0.001);
  EXPECT_NEAR(found->expected, found->factor * found->run_deviation / std::sqrt(5), 1e-12);
  const Json json = tag_json(outcome)["correction"];
  EXPECT_EQ(json["set"], "dev");
  EXPECT_DOUBLE_EQ(json["expected_gain"], found->expected);
  outcome.searched = false;
  EXPECT_FALSE(tagging::correction_of(outcome, HeldOut::development));
}

TEST(TagReport, BestOfEqualPlansIsNoMoreThanChance) {
  TagOutcome outcome = made({.repetition = false, .probe = false});
  Noise noise(7);
  for (TagArm& arm : outcome.arms) {
    for (unmask::RunResult& run : arm.runs)
      run.dev = score_with(0.8 + 0.02 * noise.normal()), run.test = score_with(0.8 + 0.02 * noise.normal());
  }
  expect_said(page(outcome, "equal_plans"), {"no more than choice alone gives"});
}

// ---- the rest of the page

TEST(TagReport, JsonHoldsWhatItSays) {
  const TagOutcome outcome = made({});
  const Json json = parse_json(tag_json(outcome).dump(), "the results");
  EXPECT_EQ(json["arms"].size(), 20u);
  EXPECT_EQ(json["arms"][3]["mask"], "0011");
  EXPECT_EQ(json["arms"][3]["blocks"].size(), 16u);
  EXPECT_EQ(json["arms"][17]["repeat"], 2);
  EXPECT_EQ(json["arms"][0]["runs"].size(), 5u);
  EXPECT_EQ(json["arms"][0]["runs"][0]["curve"].size(), 200u);
  EXPECT_EQ(json["arms"][0]["runs"][0]["curve"].back()[0], 660);
  EXPECT_EQ(json["arms"][0]["runs"][0]["epochs"].size(), 5u);
  EXPECT_NEAR(json["arms"][3]["test"]["mean"], tagging::f1_of(outcome.arms[3], HeldOut::test, 1).mean, 1e-12);
  EXPECT_EQ(json["chosen"]["arm"], "0011");
  EXPECT_EQ(json["chosen"]["rival"], "0000 r=4");
  EXPECT_EQ(json["chosen"]["verdict"], sentence(outcome));
  EXPECT_EQ(json["faults"]["missed"], 61);
  EXPECT_EQ(json["spans"]["after"].size(), 32u);
  EXPECT_EQ(json["data"]["split_sentences"], 7);
  EXPECT_LT(std::abs(json["chosen"]["less_causal"]["mean"].get<double>()), 1);
}

TEST(TagReport, ManyTypesLongSentencesAndForeignWordsFit) {
  TagOutcome outcome = made({});
  std::vector<std::string> types, words;
  for (int i = 0; i < 39; ++i) types.push_back(fmt::format("transport_information.slot_{}", i));
  outcome.score = score_with(0.8, types);
  for (TagArm& arm : outcome.arms) {
    for (unmask::RunResult& run : arm.runs) run.test = score_with(run.test->all.f1(), types);
  }
  for (int i = 0; i < 400; ++i)
    words.push_back(i % 50 == 49 ? std::string(3000, 'x') : fmt::format("word{}", i));
  label::Tags gold(400, "O"), said(400, "O");
  gold[200] = "B-" + types[0], gold[201] = "I-" + types[0], said[200] = "B-" + types[1];
  gold[399] = "B-" + types[2];
  outcome.examples.push_back(example_with(words, gold, said, 9));
  outcome.examples.push_back(example_with(words, label::Tags(400, "O"), label::Tags(400, "O"), 10));
  outcome.examples.push_back(example_with({"\xff\xfe", "\u4e16\u754c", "\u0645\u0631\u062d\u0628\u0627"},
                                          {"O", "B-LOC", "B-PER"}, {"B-LOC", "I-LOC", "O"}, 11));
  const std::string html = page(outcome, "many_types");
  expect_said(html, {"… word1", "transport_information.slot_38", "\uFFFD"}, {std::string(100, 'x')});
  EXPECT_LT(html.size(), 1'000'000u);
}

TEST(TagReport, DoesNotRunWhatASentenceHolds) {
  const std::string html = page(made({}), "everything");
  expect_said(html, {}, {"<script>alert(1)"});
  expect_said(html, {"&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;Co&quot; <b>ORG</b>"});
}

TEST(TagReport, MarksWhatIsWrongInASentence) {
  const std::string html = page(made({}), "everything");
  expect_said(html, {"<span class=\"stretch\">Ada Lovelace <b>PER</b></span>",
                     "<span class=\"stretch wrong\">Charles Babbage <b>PER</b></span>",
                     "<span class=\"stretch wrong\">Charles <b>PER</b></span>", "LOC taken for ORG",
                     "PER with other ends"});
}

TEST(TagReport, PlansWithoutGroupsAreDrawnByBlock) {
  TagOutcome outcome = made({.searched = false, .repetition = false, .probe = false});
  MaskPlan middle{.name = "middle"};
  for (int block = 11; block < 21; ++block) middle.blocks.push_back(block);
  TagArm arm{.name = "middle", .mask = middle};
  for (uint64_t seed = 1; seed <= 5; ++seed)
    arm.runs.push_back(run_with(middle, 0, seed, 0.84 + 0.001 * static_cast<double>(seed)));
  outcome.arms.push_back(arm);
  outcome.arms.push_back({.name = "none", .mask = {.name = "none"}});
  EXPECT_EQ(tagging::pattern_of(arm, outcome).size(), 32u);
  EXPECT_EQ(std::ranges::count(tagging::pattern_of(arm, outcome), true), 10);
  expect_said(page(outcome, "by_block"), {"A square is a block", "not trained"});
}

TEST(TagReport, SaysWhenTheSelfTestDisagrees) {
  TagOutcome outcome = made({});
  outcome.mask_test = {};
  expect_said(page(outcome, "self_test"), {"The two do not agree"});
}

TEST(TagReport, TheTableOfTheTerminalIsNarrow) {
  const std::string table = report::terminal_table(tag_table(made({})), {.width = 80});
  EXPECT_THAT(table, AllOf(HasSubstr("0011"), HasSubstr("chosen"), HasSubstr("probe")));
  EXPECT_THAT(table, Not(HasSubstr("...")));
}

}  // namespace
}  // namespace lamina::cli
