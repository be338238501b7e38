// What stands between the verb and the trainings that it reaches: where an incubation begins, which plan it
// takes, how its stretches become one curve.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/file.h"
#include "lamina/cli/heal_pipeline_asdm.h"
#include "lamina/cli/heal_pipeline_flags.h"
#include "lamina/family/unet_layout.h"
#include "tests/laws/tiny.h"
#include "tests/unet_config.h"

namespace lamina::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

class Beginning : public testing::Test {
 protected:
  Opened written(const Checkpoint& checkpoint, const char* name) const {
    fs::create_directories(folder_ / name);
    write_folder(checkpoint, folder_ / name, {});
    return open(folder_ / name);
  }
  Beginning() {
    tiny::InMemory made =
        tiny::random_checkpoint(architecture_of({{"_class_name", "UNet2DConditionModel"}}, "test"),
                                {.dtype = at::kFloat, .config = tests::four_stages()});
    tiny::write(made, folder_ / "teacher");
    teacher_ = open(folder_ / "teacher");
  }
  Checkpoint cut() const { return apply(teacher_.checkpoint, teacher_.blueprint, plan_); }

  tests::Folder folder_;
  Opened teacher_;
  Plan plan_ = tiny::cuts({"down_blocks.1.resnets.1", "mid_block.attentions.0"});
};

TEST_F(Beginning, IsTheTeacherWithThePlanAndNothingElse) {
  const Opened student = written(cut(), "cut");
  check_is_cut(student, teacher_, plan_);
  EXPECT_THAT(tests::refusal([&] { check_is_cut(teacher_, teacher_, plan_); }), HasSubstr("its config"));
  const Plan other = tiny::cuts({"down_blocks.1.resnets.1"});
  EXPECT_THAT(tests::refusal([&] { check_is_cut(student, teacher_, other); }), HasSubstr("its config"));
}

TEST_F(Beginning, ACutThatAStockConfigSaysIsRefusedInASentence) {
  const Plan plan = tiny::cuts({"mid_block.attentions.0", "mid_block.resnets.1"});
  const Blueprint& blueprint = teacher_.blueprint;
  const unet::Expressed expressed =
      unet::express(teacher_.checkpoint.config, blueprint, removed_sites(plan, blueprint), {});
  ASSERT_TRUE(expressed.possible) << expressed.why;
  const Opened student = written(unet::compacted(teacher_.checkpoint, expressed), "stock");
  EXPECT_FALSE(same_places(student.blueprint, blueprint));
  EXPECT_TRUE(same_places(written(cut(), "cut").blueprint, blueprint));
  const std::string said = tests::refusal([&] { check_is_cut(student, teacher_, plan); });
  EXPECT_THAT(said, HasSubstr("a stock config says it"));
  EXPECT_THAT(said, HasSubstr("prune with --layout any, or heal without --incubate"));
}

TEST_F(Beginning, NumbersOfTheStudentsOwnAreNotLost) {
  Checkpoint mended = cut();
  for (Stored& stored : mended.tensors)
    if (stored.name == "conv_out.bias") stored.zero = true;
  const Opened student = written(mended, "mended");
  EXPECT_THAT(tests::refusal([&] { check_is_cut(student, teacher_, plan_); }),
              HasSubstr("numbers of its own"));
}

TEST_F(Beginning, ThePlanStandsBesideThePipelineOrIsNamed) {
  EXPECT_THAT(tests::refusal([&] { plan_of_cut(folder_.path(), {}); }), HasSubstr("--plan"));
  write_file(folder_ / "plan.json", to_json(plan_).dump());
  EXPECT_EQ(plan_of_cut(folder_.path(), {}).edits.size(), 2U);
  write_file(folder_ / "other.json", to_json(tiny::cuts({"mid_block.attentions.0"})).dump());
  EXPECT_EQ(plan_of_cut(folder_.path(), folder_ / "other.json").edits.size(), 1U);
}

TEST(Stretches, BecomeOneCurve) {
  std::vector<asdm::IncubatedStage> stages(2);
  stages[0].trained = {.curve = {{.step = 1}, {.step = 2}}, .evaluations = {{.step = 2}}, .resumed_from = 2};
  stages[1].trained = {.curve = {{.step = 1}}, .evaluations = {}, .broke_at = 2, .broke_on = "the loss"};
  const Trained whole = one_behind_the_other(stages);
  std::vector<int64_t> steps;
  for (const StepRecord& record : whole.curve) steps.push_back(record.step);
  EXPECT_THAT(steps, ElementsAre(1, 2, 3));
  EXPECT_EQ(whole.evaluations.at(0).step, 2);
  EXPECT_EQ(whole.resumed_from, 2);
  EXPECT_EQ(whole.broke_at, 4);
  EXPECT_EQ(whole.broke_on, "the loss");
}

// What the flags say, without a run.
std::string refused(std::vector<std::string> words) {
  CLI::App app;
  PipelineFlags flags;
  TrainingFlags training;
  add_flags(app, flags);
  add_training_flags(app, training);
  words.insert(words.begin(), {"heal", "cut", "-o", "out", "--pictures", "scenes"});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  parse(app, static_cast<int>(argv.size()), argv.data());
  return tests::refusal([&] { check_flags(app, flags, training); });
}

TEST(Flags, ThatDoNotGoTogetherAreRefused) {
  EXPECT_THAT(refused({"--incubate", "sequential"}), HasSubstr("--incubate goes with --teacher"));
  EXPECT_THAT(refused({"--plan", "p"}), HasSubstr("--plan goes with --incubate"));
  EXPECT_THAT(refused({"--teacher", "t", "--incubate", "slowly"}), HasSubstr("sequential"));
  EXPECT_THAT(refused({"--teacher", "t", "--incubate", "sequential", "--lora", "2"}), HasSubstr("--lora"));
  EXPECT_THAT(refused({"--teacher", "t", "--incubate", "sequential", "--joint-share", "1"}),
              HasSubstr("below 1"));
  EXPECT_THAT(refused({"--teacher", "t", "--incubate", "sequential", "--joint-share", "0", "--ema", ".9"}),
              HasSubstr("--ema"));
  EXPECT_THAT(refused({"--teacher", "t", "--incubate", "sequential", "--schedule-steps", "9"}),
              HasSubstr("--schedule-steps"));
  EXPECT_THAT(refused({"--semantic", "1", "--scorer", "s"}), HasSubstr("--semantic goes with --teacher"));
  EXPECT_THAT(refused({"--teacher", "t", "--semantic", "1"}), HasSubstr("goes with --scorer"));
  EXPECT_THAT(refused({"--teacher", "t", "--scorer", "s"}), HasSubstr("goes with --semantic"));
  EXPECT_THAT(refused({"--teacher", "t", "--semantic", "0", "--scorer", "s"}), HasSubstr("above 0"));
  EXPECT_THAT(refused({"--teacher", "t", "--semantic-times", "one"}), HasSubstr("goes with --semantic"));
}

}  // namespace
}  // namespace lamina::cli
