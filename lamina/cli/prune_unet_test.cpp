// The verb as a user runs it, on a small U-Net: budgets hold, what is written is what was meant, a run that
// was stopped goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/file.h"
#include "lamina/base/text.h"
#include "lamina/cli/prune_unet.h"
#include "tests/laws/tiny.h"
#include "tests/unet_config.h"

namespace lamina::cli {
namespace {

namespace fs = std::filesystem;

// That says how large its latents are: the verb asks.
Json four_stages() {
  Json config = tests::four_stages();
  config["sample_size"] = 8;
  return config;
}

class PruneUnet : public testing::Test {
 protected:
  PruneUnet() {
    const Architecture& architecture = architecture_of({{"_class_name", "UNet2DConditionModel"}}, "test");
    tiny::InMemory made =
        tiny::random_checkpoint(architecture, {.dtype = at::kFloat, .config = four_stages()});
    made.checkpoint.shards[0].name = "diffusion_pytorch_model.safetensors";
    tiny::write(made, folder_ / "unet");
  }
  // Throws what the verb throws.
  int run(std::vector<std::string> words) const {
    const std::vector<std::string> usual = {"--samples",
                                            "3",
                                            "--heldout",
                                            "2",
                                            "--rerank",
                                            "4",
                                            "--refine",
                                            "4",
                                            "--rerank-samples",
                                            "2",
                                            "--repeats",
                                            "1",
                                            "--trajectory-steps",
                                            "2",
                                            "-q",
                                            "-o",
                                            out()};
    words.insert(words.begin(), {"prune", (folder_ / "unet").string()});
    words.insert(words.end(), usual.begin(), usual.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    testing::internal::CaptureStdout();
    const auto ended = [] { return testing::internal::GetCapturedStdout(); };
    try {
      const int status = run_prune_unet(static_cast<int>(argv.size()), argv.data());
      ended();
      return status;
    } catch (...) {
      ended();
      throw;
    }
  }
  std::string out() const { return (folder_ / "out").string(); }
  Json report() const { return parse_json(read_file(folder_ / "out" / "report.json"), "report"); }
  Plan plan() const {
    return plan_from_json(parse_json(read_file(folder_ / "out" / "plan.json"), "plan"), "plan");
  }

  tests::Folder folder_;
};

TEST_F(PruneUnet, HoldsItsBudgetsAndWritesWhatSkippingComputes) {
  ASSERT_EQ(run({"--params", "60%", "--macs", "85%"}), 0);
  const Opened before = open(folder_ / "unet"), after = open(folder_ / "out");
  EXPECT_LE(static_cast<double>(after.blueprint.parameters()),
            0.6 * static_cast<double>(before.blueprint.parameters()));
  const unet::Config config = unet::read_config(before.checkpoint.config, "test");
  const unet::Shape2d shape{.height = 8, .width = 8};
  EXPECT_LE(unet::macs(config, after.blueprint, shape).total(),
            0.85 * unet::macs(config, before.blueprint, shape).total());

  const auto whole = build_model(before), cut = build_model(after);
  Skip skip(before.blueprint, plan());
  const Inputs inputs{
      .sample = random_normal({1, 4, 8, 8}, 1), .time = at::ones({1}), .text = random_normal({1, 5, 12}, 2)};
  EXPECT_TRUE(at::equal(whole->run(inputs, skip), cut->run(inputs)));
  EXPECT_THAT(read_file(folder_ / "out" / "report.html"), testing::HasSubstr("What each part is worth"));
  EXPECT_FALSE(fs::exists(folder_ / "out" / "search"));
}

TEST_F(PruneUnet, SameSeedSamePlanAndScores) {
  ASSERT_EQ(run({"--params", "50%"}), 0);
  const Plan first = plan();
  const std::string scores = read_file(folder_ / "out" / "scores.csv");
  ASSERT_EQ(run({"--params", "50%", "--force"}), 0);
  EXPECT_EQ(to_json(first).at("edits"), to_json(plan()).at("edits"));
  EXPECT_EQ(read_file(folder_ / "out" / "scores.csv"), scores);
  EXPECT_EQ(std::ranges::count(scores, '\n'),
            1 + static_cast<int64_t>(open(folder_ / "unet").blueprint.present().size()));
  ASSERT_EQ(run({"--params", "50%", "--force", "--seed", "1"}), 0);
  EXPECT_NE(read_file(folder_ / "out" / "scores.csv"), scores);
}

TEST_F(PruneUnet, EveryMethodAndSolverEndsInAPlan) {
  for (const char* method : {"bk-sdm", "magnitude", "taylor", "block-influence", "random"}) {
    ASSERT_EQ(run({"--method", method, "--plan-only", "--force", "--compare", "none", "--trajectory", "0"}),
              0)
        << method;
    EXPECT_FALSE(plan().edits.empty());
    EXPECT_FALSE(fs::exists(folder_ / "out" / "config.json"));
  }
  for (const char* solver : {"dynamic", "greedy-loss", "greedy-ratio"}) {
    ASSERT_EQ(run({"--solver", solver, "--criterion", "guided", "--plan-only", "--force", "--compare", "none",
                   "--trajectory", "0"}),
              0);
    EXPECT_FALSE(plan().edits.empty());
  }
}

TEST_F(PruneUnet, StockLayoutsOpenWithoutAKeyOfOurs) {
  for (const char* layout : {"exact", "stock", "bk-base"}) {
    ASSERT_EQ(run({"--layout", layout, "--params", "90%", "--force", "--trajectory", "1"}), 0) << layout;
    const Opened after = open(folder_ / "out");
    EXPECT_FALSE(after.checkpoint.config.contains(std::string(unet::kRemoved))) << layout;
    EXPECT_LE(static_cast<double>(after.blueprint.parameters()),
              0.9 * static_cast<double>(open(folder_ / "unet").blueprint.parameters()))
        << layout;
  }
}

// What the report says of a figure of the verdict, and of a table's cell.
Json figure(const Json& report, const std::string& name) {
  for (const Json& figure : report.at("verdict").at("figures"))
    if (figure.at("name") == name) return figure;
  return {};
}
Json table(const Json& report, const std::string& title) {
  for (const Json& section : report.at("sections"))
    for (const Json& element : section.at("elements"))
      if (element.value("title", "") == title) return element;
  return {};
}

TEST_F(PruneUnet, ABudgetOfMillisecondsIsTimedAsItIsWritten) {
  // No clock of such a model is to be trusted; that the budget is not met is said, and that is all.
  ASSERT_EQ(run({"--method", "asdm", "--ms", "80%", "--regional-side", "4", "--window", "2", "--cell", "1"}),
            0);
  const Json report = this->report();
  const Json ms = figure(report, "Milliseconds a pass");
  EXPECT_THAT(ms.at("measured").get<std::string>(), testing::HasSubstr("both measured, by turns"));
  EXPECT_GT(ms.at("after").get<double>(), 0);
  const Json rounds = table(report, "Proposed and timed").at("rows");
  ASSERT_GE(rounds.size(), 1u);
  EXPECT_LE(rounds.size(), 3u);
  const Json windows = table(report, "Windows in place of whole maps").at("rows");
  EXPECT_GE(windows.size(), 5u);  // every attention of the two outer stages
  for (const Edit& edit : plan().edits) {
    if (!std::holds_alternative<Cut>(edit)) continue;
    EXPECT_FALSE(open(folder_ / "out")
                     .blueprint.part(open(folder_ / "unet").blueprint.site(std::get<Cut>(edit).site))
                     .present);
  }
  EXPECT_THROW(run({"--method", "asdm", "--ms", "80%", "--macs", "80%", "--force"}), Error);
  EXPECT_THROW(run({"--method", "asdm", "--params", "80%", "--force"}), Error);
}

TEST_F(PruneUnet, EachPlanIsHeldToItsCriterion) {
  ASSERT_EQ(run({"--macs", "85%", "--criterion", "clean"}), 0);
  const Json plans = table(report(), "Plans side by side");
  std::vector<std::string> names, columns;
  for (const Json& column : plans.at("columns")) columns.push_back(column.at("name"));
  for (const Json& row : plans.at("rows")) names.push_back(row.at("cells").at(0));
  EXPECT_THAT(names, testing::Contains(kByOutput));
  EXPECT_THAT(names, testing::Not(testing::Contains(kByClean)));
  EXPECT_THAT(columns, testing::Contains("clean picture"));
  ASSERT_EQ(run({"--macs", "85%", "--force", "--random-plans", "3", "--layout", "any"}), 0);
  names.clear();
  const Json others = table(report(), "Plans side by side");
  for (const Json& row : others.at("rows")) names.push_back(row.at("cells").at(0));
  EXPECT_THAT(names, testing::Contains(kByClean));
  EXPECT_THAT(names, testing::Contains("random, best of 3"));
  ASSERT_EQ(run({"--method", "asdm", "--macs", "90%", "--criterion", "clean", "--regional-side", "4",
                 "--window", "2", "--cell", "1", "--force"}),
            0);
}

TEST_F(PruneUnet, TheDrawingTellsWhatIsDoneBesideCutting) {
  ASSERT_EQ(run({"--method", "asdm", "--macs", "97%", "--regional-side", "8", "--window", "4", "--cell", "2",
                 "--no-cuts"}),
            0);
  const Plan plan = this->plan();
  ASSERT_FALSE(plan.edits.empty());
  const std::string html = read_file(folder_ / "out" / "report.html");
  EXPECT_THAT(html, testing::HasSubstr("sees windows of 4 x 4 tokens, and means of cells of 2 x 2"));
  EXPECT_THAT(html, testing::HasSubstr("\u229e stays, and sees windows"));
  const Json windows = table(report(), "Windows in place of whole maps").at("rows");
  size_t chosen = 0;
  for (const Json& row : windows) chosen += row.at("mark") == "in the plan";
  EXPECT_EQ(chosen, plan.edits.size());
}

TEST_F(PruneUnet, EveryReadingOfItsEditsCanBeAskedFor) {
  const std::vector<std::string> usual = {"--method", "asdm", "--macs", "97%", "--regional-side", "8",
                                          "--window", "4",    "--cell", "2",   "--no-cuts",       "--force"};
  const auto window = [&](std::vector<std::string> more) {
    more.insert(more.begin(), usual.begin(), usual.end());
    EXPECT_EQ(run(more), 0);
    return std::get<Regional>(plan().edits.at(0)).windows;
  };
  EXPECT_TRUE(window({}).log_count && window({}).mask_own);
  EXPECT_FALSE(window({"--no-log-count"}).log_count);
  EXPECT_FALSE(window({"--no-mask-own"}).mask_own);
  EXPECT_EQ(window({"--mix", "pooled"}).mix, Windows::Mix::pooled);
  EXPECT_THROW(window({"--mix", "stirred"}), Error);
  EXPECT_THROW(run({"--method", "asdm", "--macs", "97%", "--window", "3", "--cell", "2", "--force"}), Error);

  ASSERT_EQ(run({"--method", "asdm", "--macs", "80%", "--no-regional", "--gate", "softmax", "--router", "x+t",
                 "--donors", "1", "--outer", "9", "--force"}),
            0);
  const auto plan = this->plan();
  const auto heir = std::ranges::find_if(
      plan.edits, [](const Edit& edit) { return std::holds_alternative<Inherit>(edit); });
  ASSERT_NE(heir, plan.edits.end());
  EXPECT_EQ(std::get<Inherit>(*heir).gate, Experts::Gate::softmax);
  EXPECT_EQ(std::get<Inherit>(*heir).reads, Experts::Reads::both);
  EXPECT_EQ(std::get<Inherit>(*heir).donors.size(), 1u);
  EXPECT_THROW(run({"--method", "asdm", "--macs", "80%", "--gate", "open", "--force"}), Error);
}

// The texts of the flags name all that they take.
TEST(UnetOptionsFields, TextsNameEveryChoice) {
  UnetOptions options;
  std::map<std::string, std::string> texts;
  const auto visit = [&](auto&, const char* name, const char* help) { texts[name] = help; };
  options.fields(visit);
  for (const auto& [name, text] : texts) EXPECT_FALSE(text.empty()) << name;
  for (const std::string& name : unet::layout_names()) EXPECT_THAT(texts["layout"], testing::HasSubstr(name));
  for (const std::string& name : laptop::criterion_names())
    EXPECT_THAT(texts["criterion"], testing::HasSubstr(name));
}

TEST_F(PruneUnet, GoesOnFromItsJournal) {
  ASSERT_EQ(run({"--params", "50%"}), 0);
  const Plan whole = plan();
  // No layout of stock configs goes so far; what was scored before that was known is kept.
  EXPECT_THROW(run({"--params", "25%", "--layout", "exact", "--force"}), Error);
  const fs::path work = folder_ / "out.partial" / "search" / "journal.jsonl";
  ASSERT_TRUE(fs::exists(work));
  EXPECT_THROW(run({"--params", "50%", "--force", "--resume"}), Error);  // it was another run
  ASSERT_EQ(run({"--params", "50%", "--force"}), 0);
  EXPECT_EQ(to_json(whole).at("edits"), to_json(plan()).at("edits"));
}

TEST_F(PruneUnet, AJournalWithoutItsLastLineIsReadUpToIt) {
  const fs::path path = folder_ / "journal.jsonl";
  const Json identity = {{"seed", 1}};
  {
    UnetJournal journal(path, identity, {});
    journal.add("a", 1.5);
    journal.add("b", Json::array({1, nullptr}));
  }
  const std::string text = read_file(path);
  write_file(path, text + "{\"key\":\"c\",\"val");
  UnetJournal again(path, identity, {.resume = true});
  ASSERT_TRUE(again.find("b"));
  EXPECT_EQ(again.find("a")->get<double>(), 1.5);
  EXPECT_FALSE(again.find("c"));
  EXPECT_EQ(read_file(path), text);
  EXPECT_THROW(UnetJournal(path, {{"seed", 2}}, {.resume = true}), Error);
}

TEST_F(PruneUnet, SaysWhatCannotBe) {
  EXPECT_THROW(run({"--params", "2%"}), Error);
  EXPECT_THROW(run({"--params", "half"}), Error);
  EXPECT_THROW(run({"--params", "50%", "--macs", "70%", "--solver", "dynamic"}), Error);
  EXPECT_THROW(run({"--method", "taylor", "--criterion", "output"}), Error);
  EXPECT_THROW(run({"--layout", "bk-huge"}), Error);
  EXPECT_THROW(run({"--latent", "8"}), Error);
  EXPECT_THROW(run({"--method", "bk-sdm", "--params", "50%"}), Error);
  EXPECT_THROW(run({"--method", "asdm", "--criterion", "influence"}), Error);
  EXPECT_FALSE(fs::exists(folder_ / "out.partial"));  // nothing was measured
}

}  // namespace
}  // namespace lamina::cli
