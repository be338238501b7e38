#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lamina/methods/asdm/asdm_test.h"
#include "lamina/methods/asdm/incubation.h"
#include "lamina/methods/asdm/semantic.h"
#include "lamina/tensor/autograd.h"

namespace lamina::asdm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Noise as data: pure functions of the position.
class Noise : public Batches {
 public:
  Batch at(int64_t first, int64_t count) const override {
    std::vector<Tensor> samples, texts, targets;
    std::vector<double> times;
    for (int64_t i = first; i < first + count; ++i) {
      const auto seed = static_cast<uint64_t>(3 * i);
      samples.push_back(random_normal({1, 4, 8, 8}, seed).to(at::kDouble));
      texts.push_back(random_normal({1, 5, 12}, seed + 1).to(at::kDouble));
      targets.push_back(random_normal({1, 4, 8, 8}, seed + 2).to(at::kDouble));
      times.push_back(static_cast<double>((i * 37) % 1000));
    }
    return {.inputs = {.sample = at::cat(samples),
                       .time = at::tensor(times, at::kDouble),
                       .text = at::cat(texts)},
            .targets = at::cat(targets),
            .first = first};
  }
  int64_t samples_per_epoch() const override { return 64; }
  std::string digest() const override { return "noise"; }
};

class Incubating : public testing::Test {
 protected:
  tiny::Tiny whole_{unet_architecture(), {.config = four_stages()}};
  const Opened& opened() const { return whole_.opened; }
  static Plan plan() {
    return tiny::cuts({"up_blocks.2.resnets.1", "down_blocks.1.resnets.1", "mid_block.attentions.0"});
  }
};

TEST_F(Incubating, StagesAreThoseOfThePlanInTheOrderOfTheWalk) {
  EXPECT_THAT(stages_of(plan(), opened().blueprint),
              ElementsAre("down_blocks.1", "mid_block", "up_blocks.2"));
  const Plan one = restricted(plan(), opened().blueprint, {"mid_block"});
  ASSERT_EQ(one.edits.size(), 1u);
  EXPECT_EQ(std::get<Cut>(one.edits[0]).site, "mid_block.attentions.0");
  EXPECT_TRUE(of_stage("down_blocks.1.resnets.0.conv1.weight", "down_blocks.1"));
  EXPECT_FALSE(of_stage("down_blocks.10.resnets.0.conv1.weight", "down_blocks.1"));
}

// The maps behind the stages, in the order of the walk.
std::vector<Tensor> maps_of(const Opened& opened, const Inputs& inputs) {
  struct Maps : Tap {
    void saw_stage(int /*stage*/, const Tensor& x) override { all.push_back(x.clone()); }
    std::vector<Tensor> all;
  } maps;
  const InferenceMode evaluating;
  build_model(opened, {.dtype = at::kDouble})->run(inputs, maps);
  return maps.all;
}

TEST_F(Incubating, AHybridIsTheTeacherToTheBitOutsideItsStage) {
  const Inputs inputs = inputs_for(four_stages(), 2, 3);
  Plan whole_plan = plan();
  whole_plan.edits.emplace_back(
      Regional{.site = "up_blocks.3.attentions.0", .windows = {.window = 4, .pool = 2}});
  const std::vector<std::string>& stages = opened().blueprint.stages;
  const std::vector<Tensor> taught = maps_of(opened(), inputs);
  ASSERT_EQ(taught.size(), stages.size());
  const std::vector<std::string> edited_stages = stages_of(whole_plan, opened().blueprint);
  ASSERT_EQ(edited_stages.size(), 4u);
  for (const std::string& stage : edited_stages) {
    const Opened hybrid = edited(opened(), restricted(whole_plan, opened().blueprint, {stage}));
    const auto at = static_cast<size_t>(std::ranges::find(stages, stage) - stages.begin());
    const std::vector<Tensor> maps = maps_of(hybrid, inputs);
    ASSERT_EQ(maps.size(), stages.size()) << stage;
    for (size_t i = 0; i <= at; ++i)
      EXPECT_EQ(at::equal(maps[i], taught[i]), i < at) << stage << " edited, map behind " << stages[i];
    EXPECT_FALSE(at::equal(answer(hybrid, inputs), answer(opened(), inputs))) << stage;
    bool same_tensors = true;
    for (const Stored& stored : opened().checkpoint.tensors) {
      const Stored* here = hybrid.checkpoint.find(stored.name);
      const bool same = here && at::equal(load(*here, at::kDouble), load(stored, at::kDouble));
      if (of_stage(stored.name, stage)) same_tensors = same_tensors && same;
      if (!of_stage(stored.name, stage)) {
        EXPECT_TRUE(same) << stage << " edited, " << stored.name;
      }
    }
    // Windows change how a map is looked at, and no number; a cut takes some away.
    EXPECT_EQ(same_tensors, stage == "up_blocks.3") << stage;
  }
}

TEST_F(Incubating, OnlyTheStageLearnsAndTheWholeIsMadeOfThem) {
  const Noise data;
  const std::shared_ptr<const Model> teacher = build_model(opened(), {.dtype = at::kDouble});
  for (Incubation order : {Incubation::independent, Incubation::sequential}) {
    const IncubationOptions options{
        .order = order,
        .train = {.steps = 12, .batch = 4, .learning_rate = 1e-6},
        .teaching = {.task = 0, .output = 1, .feature = 0, .mode = FeatureMode::none, .look_every = 0},
        .dtype = at::kDouble};
    const Incubated done = incubate(opened(), teacher, plan(), {.train = data}, options, *alone());
    ASSERT_EQ(done.stages.size(), 3u);
    for (const IncubatedStage& stage : done.stages)
      EXPECT_LT(stage.after, stage.before) << incubation_name(order) << " " << stage.stage;
    const Opened plain = edited(opened(), plan());
    for (const Stored& stored : done.opened.checkpoint.tensors) {
      const bool learnt = std::ranges::any_of(
          done.stages, [&](const IncubatedStage& stage) { return of_stage(stored.name, stage.stage); });
      const bool same =
          at::equal(load(stored, at::kDouble), load(*plain.checkpoint.find(stored.name), at::kDouble));
      if (!learnt) {
        EXPECT_TRUE(same) << stored.name;
      }
      if (learnt && stored.name.ends_with("conv1.weight")) {
        EXPECT_FALSE(same) << stored.name;
      }
    }
    const Inputs inputs = inputs_for(four_stages(), 2, 3);
    const Tensor wanted = answer(opened(), inputs);
    EXPECT_LT((answer(done.opened, inputs) - wanted).square().mean().item<double>(),
              (answer(plain, inputs) - wanted).square().mean().item<double>());
  }
  EXPECT_THAT(tests::refusal([&] { incubate(opened(), teacher, {}, {.train = data}, {}, *alone()); }),
              HasSubstr("nothing to incubate"));
}

TEST_F(Incubating, AStageOfWhichNothingIsLeftIsPassedOver) {
  const Noise data;
  const std::shared_ptr<const Model> teacher = build_model(opened(), {.dtype = at::kDouble});
  const Plan plan =
      tiny::cuts({"down_blocks.3.resnets.0", "down_blocks.3.resnets.1", "up_blocks.2.resnets.1"});
  EXPECT_THAT(stages_that_learn(plan, opened()), ElementsAre("up_blocks.2"));
  IncubationOptions options{.train = {.batch = 2, .learning_rate = 1e-6},
                            .steps = {3},
                            .teaching = {.task = 0, .feature = 0, .mode = FeatureMode::none, .look_every = 0},
                            .dtype = at::kDouble};
  const Incubated done = incubate(opened(), teacher, plan, {.train = data}, options, *alone());
  ASSERT_EQ(done.stages.size(), 2u);
  EXPECT_TRUE(done.stages[0].trained.curve.empty());
  EXPECT_EQ(done.stages[0].before, done.stages[0].after);
  EXPECT_GT(done.stages[0].before, 0);
  EXPECT_EQ(done.stages[1].trained.curve.size(), 3u);
  const Plan gone = tiny::cuts({"down_blocks.3.resnets.0", "down_blocks.3.resnets.1"});
  options.steps = {};
  EXPECT_THAT(tests::refusal([&] { incubate(opened(), teacher, gone, {.train = data}, options, *alone()); }),
              HasSubstr("none can learn"));
}

TEST_F(Incubating, StepsAreDealtToTheStagesAndAJointStretch) {
  EXPECT_THAT(dealt_steps(100, 3, 0.25), ElementsAre(25, 25, 25, 25));
  EXPECT_THAT(dealt_steps(100, 3, 0), ElementsAre(34, 33, 33, 0));
  EXPECT_THAT(dealt_steps(6, 4, 0.25), ElementsAre(1, 1, 1, 1, 2));
  EXPECT_THAT(tests::refusal([] { dealt_steps(4, 4, 0.25); }), HasSubstr("too few for 4 stages"));
  EXPECT_THAT(tests::refusal([] { dealt_steps(4, 1, 1); }), HasSubstr("below 1"));
}

TEST_F(Incubating, LaterStretchesGoOnInTheData) {
  const Noise data;
  const Later later(data, 6);
  EXPECT_TRUE(at::equal(later.at(2, 2).inputs.sample, data.at(8, 2).inputs.sample));
  EXPECT_NE(later.digest(), data.digest());
  EXPECT_EQ(Later(data, 0).digest(), data.digest());
}

TEST_F(Incubating, GoesOnToTheSameBits) {
  const Noise data;
  const tests::Folder folder;
  const std::shared_ptr<const Model> teacher = build_model(opened(), {.dtype = at::kDouble});
  const auto run = [&](const char* state, bool resume, int64_t until) {
    std::stop_source stop;
    std::vector<int64_t> seen;
    IncubationOptions options{
        .train = {.batch = 2, .learning_rate = 1e-6, .checkpoint_every = 1},
        .steps = {2, 3, 2},
        .teaching = {.task = 0, .feature = 0, .mode = FeatureMode::none, .look_every = 0},
        .dtype = at::kDouble};
    options.train.state = folder / state;
    options.train.resume = resume;
    options.on_step = [&](const StepRecord& record) {
      seen.push_back(record.step);
      if (record.step == until) stop.request_stop();
    };
    Incubated done{.opened = {}};
    try {
      done = incubate(opened(), teacher, plan(), {.train = data}, options, *alone(),
                      {.tick = {}, .stop = stop.get_token()});
    } catch (const Stopped&) {
    }
    return std::pair(std::move(done), seen);
  };
  const auto [whole, steps] = run("whole", false, 100);
  EXPECT_THAT(steps, ElementsAre(1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(run("halves", false, 4).second, ElementsAre(1, 2, 3, 4));
  const auto [halves, rest] = run("halves", true, 100);
  EXPECT_THAT(rest, ElementsAre(5, 6, 7));
  for (const Stored& stored : whole.opened.checkpoint.tensors)
    EXPECT_TRUE(
        at::equal(load(stored, at::kDouble), load(*halves.opened.checkpoint.find(stored.name), at::kDouble)))
        << stored.name;
  for (size_t i = 0; i < whole.stages.size(); ++i) {
    EXPECT_EQ(whole.stages[i].before, halves.stages[i].before);
    EXPECT_EQ(whole.stages[i].after, halves.stages[i].after);
  }
}

// Any model with a read_out says what pictures mean; here one that reads three channels.
class Semantics : public testing::Test {
 protected:
  tiny::Tiny features_{architecture_of({{"architectures", {"LaminaSceneScorer"}}}, "test")};
};

TEST_F(Semantics, TheGradientIsTheStudentsAlone) {
  const std::shared_ptr<const Model> features = build_model(features_.opened, {.dtype = at::kDouble});
  const auto loss = semantic_loss({.features = features});
  const Tensor student = random_normal({2, 3, 32, 32}, 1).to(at::kDouble).set_requires_grad(true);
  const Tensor teacher = random_normal({2, 3, 32, 32}, 2).to(at::kDouble).set_requires_grad(true);
  const Tensor alpha_bar = at::tensor({0.9, 0.1}, at::kDouble).view({2, 1, 1, 1});
  const Tensor apart = loss(student, teacher, alpha_bar);
  EXPECT_GT(apart.item<double>(), 0);
  apart.backward();
  EXPECT_GT(student.grad().abs().max().item<double>(), 0);
  EXPECT_FALSE(teacher.grad().defined());
  EXPECT_LT(std::abs(loss(teacher.detach(), teacher, alpha_bar).item<double>()), 1e-12);
}

TEST_F(Semantics, TimesOfMuchNoiseWeighLittle) {
  const std::shared_ptr<const Model> features = build_model(features_.opened, {.dtype = at::kDouble});
  const Tensor student = random_normal({1, 3, 32, 32}, 1).to(at::kDouble),
               teacher = random_normal({1, 3, 32, 32}, 2).to(at::kDouble);
  const auto at_alpha = [&](double alpha, TimeWeight weight) {
    return semantic_loss({.features = features, .weight = weight})(student, teacher,
                                                                   at::full({1, 1, 1, 1}, alpha, at::kDouble))
        .item<double>();
  };
  EXPECT_NEAR(at_alpha(0.2, TimeWeight::alpha_bar), 0.2 * at_alpha(1, TimeWeight::alpha_bar), 1e-12);
  EXPECT_EQ(at_alpha(0.2, TimeWeight::one), at_alpha(1, TimeWeight::one));
}

}  // namespace
}  // namespace lamina::asdm
