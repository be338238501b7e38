#include "lamina/heal/denoise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/heal/ema.h"
#include "lamina/heal/features.h"
#include "lamina/heal/first_numbers.h"
#include "lamina/heal/hooks.h"
#include "lamina/heal/train.h"
#include "lamina/plan/plan.h"
#include "lamina/tensor/autograd.h"
#include "tests/laws/unets.h"

namespace lamina {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

// Stages, attention with one block and with two, a middle.
Json small_config() {
  return {{"_class_name", "UNet2DConditionModel"},
          {"in_channels", 3},
          {"out_channels", 3},
          {"sample_size", 8},
          {"down_block_types", {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D"}},
          {"up_block_types", {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D"}},
          {"block_out_channels", {8, 12}},
          {"layers_per_block", 2},
          {"transformer_layers_per_block", {1, 2}},
          {"attention_head_dim", 2},
          {"cross_attention_dim", 6},
          {"norm_num_groups", 4}};
}

Opened small(const tiny::Folder& folder, uint64_t seed = 1) {
  const fs::path path = folder / fmt::format("model{}", seed);
  if (!fs::exists(path))
    tiny::write(tiny::random_checkpoint(tiny::unet_architecture(), {.seed = seed, .config = small_config()}),
                path);
  return open(path);
}

Opened cut(const Opened& opened, const std::vector<std::string>& sites) {
  return tiny::edited(opened, tiny::cuts(sites));
}

Student student_of(const Opened& opened, Student::Options options = {}) {
  options.dtype = at::kDouble;
  return Student(opened, std::move(options));
}

Tensor numbers(at::IntArrayRef sizes, uint64_t seed) {
  return random_normal(sizes, seed).to(at::kDouble);
}

// Noise as data: pure functions of the position.
class Noise : public Batches {
 public:
  Batch at(int64_t first, int64_t count) const override {
    std::vector<Tensor> samples, texts, targets, ids;
    std::vector<double> times;
    for (int64_t i = first; i < first + count; ++i) {
      const auto seed = static_cast<uint64_t>(3 * i);
      samples.push_back(numbers({1, 3, 8, 8}, seed));
      texts.push_back(numbers({1, 5, 6}, seed + 1));
      targets.push_back(numbers({1, 3, 8, 8}, seed + 2));
      times.push_back(static_cast<double>((i * 37) % 1000));
      ids.push_back(tiny::batch(tiny::tokens(5, 97, seed)));
    }
    return {.inputs = {.ids = at::cat(ids),
                       .sample = at::cat(samples),
                       .time = at::tensor(times, at::kDouble),
                       .text = at::cat(texts)},
            .targets = at::cat(targets),
            .first = first};
  }
  int64_t samples_per_epoch() const override { return 6; }
  std::string digest() const override { return "noise"; }
};

std::map<std::string, Tensor> gradients(Student& student, const Objective& objective, const Batch& batch,
                                        bool again = false) {
  Tap none;
  const Pass pass{.model = student.model(), .batch = batch, .tap = none, .gradient_checkpointing = again};
  torch::autograd::backward({objective(pass).sum});
  std::map<std::string, Tensor> all;
  std::vector<Parameter> parameters = student.parameters();
  for (const Parameter& parameter : objective.parameters()) parameters.push_back(parameter);
  for (const Parameter& parameter : parameters) {
    all[parameter.name] = parameter.value.grad().defined() ? parameter.value.grad().clone() : Tensor();
    parameter.value.mutable_grad().reset();
  }
  return all;
}

void expect_near(const std::map<std::string, Tensor>& a, const std::map<std::string, Tensor>& b,
                 double most) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    ASSERT_TRUE(tensor.defined() && b.at(name).defined()) << name;
    EXPECT_LE(tiny::greatest_difference(tensor, b.at(name)), most) << name;
  }
}

Trained trained(Student& student, const Objective& objective, const TrainOptions& options, Hook& hook) {
  const auto group = alone();
  return train(student, objective, {.train = Noise()}, options, hook, *group);
}

std::vector<Tensor> values_of(const std::vector<Parameter>& parameters) {
  std::vector<Tensor> values;
  for (const Parameter& parameter : parameters) values.push_back(parameter.value.detach().clone());
  return values;
}

bool same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::ranges::equal(a, b, [](const Tensor& x, const Tensor& y) { return at::equal(x, y); });
}

std::string message_of_error(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// ---- the loop on a U-Net

TEST(Denoising, EveryWeightGetsAGradientAndTheLossIsTheMeanSquare) {
  const tiny::Folder folder;
  Student student = student_of(small(folder));
  const Batch batch = Noise().at(0, 2);
  const auto objective = denoising();
  Tap none;
  const Losses losses = (*objective)({.model = student.model(), .batch = batch, .tap = none, .weight = 0.5});
  const double expected = (student.model().run(batch.inputs) - batch.targets).square().sum().item<double>();
  EXPECT_NEAR(losses.measure, expected, 1e-9);
  EXPECT_NEAR(losses.sum.item<double>(), expected / 2, 1e-9);
  EXPECT_EQ(batch.learnt(), batch.targets.numel());
  for (const auto& [name, gradient] : gradients(student, *objective, batch)) {
    ASSERT_TRUE(gradient.defined()) << name;
    EXPECT_GT(gradient.abs().max().item<double>(), 0) << name;
  }
}

TEST(Denoising, PartsThatRunAgainGiveTheSameGradients) {
  const tiny::Folder folder;
  for (const bool whole : {true, false}) {
    const Opened opened = small(folder);
    Student student = student_of(
        whole ? opened
              : cut(opened, {"down_blocks.0.resnets.1", "up_blocks.0.attentions.1.transformer_blocks.0",
                             "up_blocks.0.attentions.1.transformer_blocks.1"}));
    const Batch batch = Noise().at(4, 2);
    const auto objective = denoising();
    expect_near(gradients(student, *objective, batch), gradients(student, *objective, batch, true), 1e-12);
  }
}

TEST(Denoising, AdaptersStandOnLinearMapsAndMergeIntoTheModel) {
  const tiny::Folder folder;
  Json config = small_config();
  config["use_linear_projection"] = true;
  tiny::write(tiny::random_checkpoint(tiny::unet_architecture(), {.config = config}), folder / "linear");
  Student student = student_of(open(folder / "linear"), {.lora = LoraOptions{.rank = 2, .alpha = 4}});
  const Batch batch = Noise().at(0, 2);
  {
    const c10::NoGradGuard writing;
    for (const Parameter& parameter : student.parameters())
      if (parameter.name.ends_with("lora_B.weight"))
        parameter.value.copy_(numbers(parameter.value.sizes(), 3));
  }
  for (const auto& [name, gradient] : gradients(student, *denoising(), batch)) {
    EXPECT_THAT(name, HasSubstr(".lora_"));
    EXPECT_TRUE(gradient.defined() && gradient.abs().max().item<double>() > 0) << name;
  }
  const auto merged = build_model(student.now(), {.dtype = at::kDouble});
  EXPECT_LE(tiny::greatest_difference(merged->run(batch.inputs), student.model().run(batch.inputs)), 1e-9);
}

TEST(Denoising, AccumulationChangesNothing) {
  const tiny::Folder folder;
  Student one = student_of(small(folder)), two = student_of(small(folder));
  Hook none;
  TrainOptions options{.steps = 3, .batch = 4};
  const Trained at_once = trained(one, *denoising(), options, none);
  options.batch = 1, options.accumulate = 4;
  const Trained in_turn = trained(two, *denoising(), options, none);
  for (size_t i = 0; i < at_once.curve.size(); ++i) {
    EXPECT_NEAR(at_once.curve[i].loss, in_turn.curve[i].loss, 1e-11);
    EXPECT_NEAR(at_once.curve[i].objective, at_once.curve[i].loss, 1e-11);
  }
}

TEST(Denoising, ValidationIsTheSameMeasure) {
  const tiny::Folder folder;
  Student student = student_of(small(folder));
  const auto objective = denoising();
  Tap none;
  const Evaluation all = evaluate(student.model(), *objective, Noise(), {.samples = 5, .batch = 2}, none);
  EXPECT_EQ(all.positions, 5 * 3 * 8 * 8);
  const Batch batch = Noise().at(0, 5);
  EXPECT_NEAR(all.loss, (student.model().run(batch.inputs) - batch.targets).square().mean().item<double>(),
              1e-10);
}

// ---- a text encoder beside it

Opened text_encoder(const tiny::Folder& folder) {
  const Json config = {{"architectures", {"CLIPTextModel"}},
                       {"model_type", "clip_text_model"},
                       {"hidden_size", 6},
                       {"intermediate_size", 8},
                       {"num_hidden_layers", 2},
                       {"num_attention_heads", 2},
                       {"vocab_size", 97},
                       {"max_position_embeddings", 8},
                       {"hidden_act", "quick_gelu"},
                       {"eos_token_id", 96}};
  const fs::path path = folder / "text";
  if (!fs::exists(path))
    tiny::write(tiny::random_checkpoint(architecture_of(config, "test"), {.config = config}), path);
  return open(path);
}

TEST(Conditioner, LearnsWithTheDenoiserAndGoesOnBitForBit) {
  const tiny::Folder folder;
  const auto run = [&](int64_t steps, bool resume, const fs::path& state) {
    Student student = student_of(small(folder));
    const auto encoder =
        std::make_shared<Student>(text_encoder(folder), Student::Options{.dtype = at::kDouble});
    const auto objective = denoising(learning(encoder));
    std::vector<Parameter> all = student.parameters();
    for (Parameter& parameter : objective->parameters()) all.push_back(std::move(parameter));
    Averaging averaging(all, 0.9);
    TrainOptions options{.steps = steps, .batch = 2, .schedule_steps = 4, .checkpoint_every = 2};
    options.state = state;
    options.resume = resume;
    trained(student, *objective, options, averaging);
    std::vector<Tensor> values = values_of(all);
    const auto shown = averaging.shown();
    for (const Tensor& value : values_of(all)) values.push_back(value);
    return values;
  };
  const std::vector<Tensor> whole = run(4, false, folder / "whole");
  run(2, false, folder / "halves");
  EXPECT_TRUE(same_bits(whole, run(4, true, folder / "halves")));
  Student student = student_of(small(folder));
  const auto encoder =
      std::make_shared<Student>(text_encoder(folder), Student::Options{.dtype = at::kDouble});
  for (const auto& [name, gradient] : gradients(student, *denoising(learning(encoder)), Noise().at(0, 2)))
    EXPECT_TRUE(gradient.defined() && gradient.abs().max().item<double>() > 0) << name;
}

// ---- the average

TEST(Averaging, IsTheAverageWithAWarmUp) {
  const Tensor value = at::tensor({1.0, 2.0}, at::kDouble);
  Averaging averaging({{.name = "a", .value = value}}, 0.5);
  const auto group = alone();
  Tensor expected = value.clone();
  for (int64_t step = 1; step <= 12; ++step) {
    value.add_(static_cast<double>(step));
    StepRecord record{.step = step};
    averaging.end_step(record, *group);
    const auto n = static_cast<double>(step);
    const double decay = std::min(0.5, (1 + n) / (10 + n));
    expected = expected * decay + value * (1 - decay);
  }
  const Tensor before = value.clone();
  {
    const auto shown = averaging.shown();
    EXPECT_LE(tiny::greatest_difference(value, expected), 1e-12);
  }
  EXPECT_TRUE(at::equal(value, before));
}

// ---- objectives of other networks

// One map that is a convolution: enough to see a loss.
class Plain : public Model {
 public:
  explicit Plain(Tensor says) : Model({}, at::kDouble), says_(std::move(says)) {}
  Stream begin(const Inputs&) const override {
    return {.x = says_, .shared = {}, .padding = {}, .cache = {}};
  }
  void step(Stream&, Site, Tap&) const override {}
  Tensor read_out(const Stream& stream, Tap&) const override { return stream.x; }
  Tensor finish(const Stream& stream, Tap&) const override { return stream.x; }

 private:
  Tensor says_;
};

TEST(Reconstruction, TermsAreAsWritten) {
  const Tensor made = numbers({2, 3, 4, 5}, 1), wanted = numbers({2, 3, 4, 5}, 2);
  const Plain model(made);
  const Batch batch{.inputs = {}, .targets = wanted};
  Tap none;
  const Losses losses = (*reconstruction({.square = 2, .absolute = 0.5, .edges = 0.25}))(
      {.model = model, .batch = batch, .tap = none, .weight = 1.0 / 120});
  const Tensor d = made - wanted;
  const double edges = (d.narrow(3, 1, 4) - d.narrow(3, 0, 4)).square().mean().item<double>() +
                       (d.narrow(2, 1, 3) - d.narrow(2, 0, 3)).square().mean().item<double>();
  const double square = d.square().mean().item<double>(), absolute = d.abs().mean().item<double>();
  EXPECT_NEAR(losses.sum.item<double>(), 2 * square + 0.5 * absolute + 0.25 * edges, 1e-9);
  EXPECT_NEAR(losses.measure, square * 120, 1e-9);
  EXPECT_THAT(message_of_error([&] {
                const Batch other{.inputs = {}, .targets = numbers({2, 3, 4, 4}, 2)};
                (*reconstruction())({.model = model, .batch = other, .tap = none});
              }),
              HasSubstr("asks for"));
}

TEST(Classification, IsTheCrossEntropyOfTheQuestionsAsked) {
  const Tensor logits = numbers({2, 5}, 1), answers = at::tensor({0, 2, 1, -100}, at::kLong).view({2, 2});
  const Plain model(logits);
  const Batch batch{.inputs = {}, .targets = answers};
  EXPECT_EQ(batch.learnt(), 3);
  Tap none;
  const Losses losses = (*classification({2, 3}))({.model = model, .batch = batch, .tap = none});
  const Tensor first = logits.narrow(1, 0, 2).log_softmax(1), second = logits.narrow(1, 2, 3).log_softmax(1);
  const double expected = -(first[0][0] + second[0][2] + first[1][1]).item<double>();
  EXPECT_NEAR(losses.measure, expected, 1e-12);
  EXPECT_THAT(
      message_of_error([&] { (*classification({2, 2}))({.model = model, .batch = batch, .tap = none}); }),
      HasSubstr("answers were expected"));
}

// ---- first numbers

TEST(FirstNumbers, OfConvolutionsAreThoseOfTorch) {
  const tiny::Folder folder;
  const Opened opened = with_first_numbers(small(folder), {.seed = 3});
  const Blueprint& blueprint = opened.blueprint;
  EXPECT_EQ(first_law(blueprint), FirstLaw::torch);
  const auto numbers = [&](const char* name) { return load(*opened.checkpoint.find(name), at::kDouble); };
  EXPECT_EQ(numbers("conv_out.weight").abs().max().item<double>(), 0);
  EXPECT_EQ(numbers("down_blocks.0.resnets.0.conv2.weight").abs().max().item<double>(), 0);
  EXPECT_EQ(numbers("down_blocks.0.resnets.0.norm1.weight").min().item<double>(), 1);
  EXPECT_EQ(numbers("down_blocks.0.resnets.0.norm1.bias").abs().max().item<double>(), 0);
  const double bound = 1 / std::sqrt(8.0 * 9);
  for (const char* name : {"down_blocks.0.resnets.1.conv1.weight", "down_blocks.0.resnets.1.conv1.bias"}) {
    const Tensor values = numbers(name);
    EXPECT_LE(values.abs().max().item<double>(), bound) << name;
    EXPECT_GT(values.abs().max().item<double>(), 0.5 * bound) << name;
  }
  const Opened loud = with_first_numbers(small(folder), {.seed = 3, .silent_parts = false});
  EXPECT_GT(load(*loud.checkpoint.find("conv_out.weight"), at::kDouble).abs().max().item<double>(), 0);
}

// ---- a teacher

const std::vector<std::string> kGone = {"down_blocks.1.resnets.1", "up_blocks.0.resnets.1"};

struct Lesson {
  tiny::Folder folder;
  Opened whole = small(folder);
  std::shared_ptr<const Model> teacher = build_model(whole, {.dtype = at::kDouble});
  Noise data;
};

std::map<std::string, double> terms_of(const Teaching& teaching, const Student& student) {
  Tap none;
  const Batch batch = Noise().at(0, 2);
  const Losses losses = teaching({.model = student.model(), .batch = batch, .tap = none});
  std::map<std::string, double> terms = losses.terms;
  for (auto& [name, value] : terms) value /= static_cast<double>(batch.learnt());
  return terms;
}

std::vector<std::string> tapped(const Opened& student, const Opened& teacher) {
  const auto ours = build_model(student, {.dtype = at::kDouble}),
             theirs = build_model(teacher, {.dtype = at::kDouble});
  std::vector<std::string> names;
  for (const FeatureTap& tap : feature_taps(*ours, *theirs, Noise().at(0, 1).inputs))
    names.push_back(tap.name);
  return names;
}

TEST(Teaching, TapsBeginWhereTheStudentLacksAPart) {
  Lesson lesson;
  EXPECT_THAT(tapped(cut(lesson.whole, kGone), lesson.whole),
              testing::ElementsAre("down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"));
}

// Stages are in no order of what was done to them: a window far in front of the first cut changes all maps
// between the two.
TEST(Teaching, TapsBeginWhereAPartDoesAnotherThing) {
  Lesson lesson;
  const auto all =
      testing::ElementsAre("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1");
  const auto with = [&](Edit edit) {
    Plan plan = tiny::cuts({"up_blocks.1.resnets.2"});
    plan.edits.push_back(std::move(edit));
    return tiny::edited(lesson.whole, plan);
  };
  EXPECT_THAT(tapped(with(Cut{"mid_block.resnets.1", std::nullopt}), lesson.whole),
              testing::ElementsAre("mid_block", "up_blocks.0", "up_blocks.1"));
  const Opened windows =
      with(Regional{.site = "down_blocks.0.attentions.1", .windows = {.window = 4, .pool = 2}});
  EXPECT_THAT(tapped(windows, lesson.whole), all);
  const Opened kernels = with(Inherit{
      .site = "down_blocks.0.resnets.1", .conv = "conv2", .donors = {"down_blocks.0.resnets.0.conv2"}});
  EXPECT_THAT(tapped(kernels, lesson.whole), all);
  // Of a teacher that has them and a student that has not, as well.
  EXPECT_THAT(tapped(cut(windows, {"up_blocks.1.resnets.1"}), windows), testing::ElementsAre("up_blocks.1"));
  EXPECT_THAT(tapped(with(Cut{"up_blocks.1.resnets.1", std::nullopt}), windows), all);
}

TEST(Teaching, TheTeacherItselfHasNothingToLearn) {
  Lesson lesson;
  const Student student = student_of(lesson.whole);
  for (const FeatureMode mode :
       {FeatureMode::plain, FeatureMode::plain_equal, FeatureMode::teacher_norm, FeatureMode::batch_norm,
        FeatureMode::ema_loss, FeatureMode::layer_norm, FeatureMode::masked}) {
    const Teaching teaching(lesson.teacher, student.model(), lesson.data, {.mode = mode});
    EXPECT_EQ(teaching.taps().size(), 5U);
    for (const auto& [name, value] : terms_of(teaching, student)) {
      if (name == "task") continue;
      EXPECT_TRUE(std::isfinite(value)) << name;
      EXPECT_NEAR(value, 0, 1e-20) << feature_mode_name(mode) << " " << name;
    }
  }
}

TEST(Teaching, LossesAreAsWritten) {
  Lesson lesson;
  const Student student = student_of(cut(lesson.whole, kGone));
  const Teaching plain(lesson.teacher, student.model(), lesson.data, {.mode = FeatureMode::plain}),
      normed(lesson.teacher, student.model(), lesson.data, {.mode = FeatureMode::teacher_norm}),
      equal(lesson.teacher, student.model(), lesson.data, {.mode = FeatureMode::plain_equal});
  const auto raw = terms_of(plain, student), relative = terms_of(normed, student),
             control = terms_of(equal, student);
  double weights = 0;
  for (size_t i = 0; i < normed.taps().size(); ++i) {
    const std::string& name = normed.taps()[i].name;
    const double weight = 1 / (4 * normed.mean_squares()[i]);
    weights += weight;
    EXPECT_NEAR(relative.at(name), raw.at(name) * weight, 1e-9 * relative.at(name)) << name;
  }
  for (const FeatureTap& tap : equal.taps())
    EXPECT_NEAR(control.at(tap.name), raw.at(tap.name) * weights / 4, 1e-9 * control.at(tap.name));
  const Batch batch = lesson.data.at(0, 2);
  Tap none;
  const Losses losses = plain({.model = student.model(), .batch = batch, .tap = none});
  double sum = 0;
  for (const auto& [name, value] : losses.terms) sum += name == "gradient ratio" ? 0 : value;
  EXPECT_NEAR(losses.sum.item<double>(), sum, 1e-9 * sum);
  const Tensor said = student.model().run(batch.inputs), taught = lesson.teacher->run(batch.inputs);
  EXPECT_NEAR(raw.at("output"), (said - taught).square().mean().item<double>(), 1e-10);
  EXPECT_NEAR(raw.at("task"), (said - batch.targets).square().mean().item<double>(), 1e-10);
  EXPECT_GT(raw.at("gradient ratio"), 1);
}

// The same network with one map of it in other units.
class Scaled : public Model {
 public:
  Scaled(std::shared_ptr<const Model> inner, int stage, double by)
      : Model(inner->blueprint(), inner->dtype()), inner_(std::move(inner)), stage_(stage), by_(by) {}
  Stream begin(const Inputs& inputs) const override { return inner_->begin(inputs); }
  void step(Stream& stream, Site site, Tap& tap) const override {
    Louder louder(tap, *this);
    inner_->step(stream, site, louder);
  }
  Tensor read_out(const Stream& stream, Tap& tap) const override { return inner_->read_out(stream, tap); }
  Tensor finish(const Stream& stream, Tap& tap) const override { return inner_->finish(stream, tap); }

 private:
  class Louder : public Tap {
   public:
    Louder(Tap& behind, const Scaled& model) : behind_(behind), model_(model) {}
    void saw_stage(int stage, const Tensor& x) override {
      behind_.saw_stage(stage, stage == model_.stage_ ? x * model_.by_ : x);
    }

   private:
    Tap& behind_;
    const Scaled& model_;
  };
  std::shared_ptr<const Model> inner_;
  int stage_;
  double by_;
};

TEST(Teaching, ScaleOfOneMapIsTakenOutByTheTeachersNormAlone) {
  Lesson lesson;
  const Opened gone = cut(lesson.whole, kGone);
  const Student student = student_of(gone);
  constexpr int kStage = 1;  // down_blocks.1
  const std::shared_ptr<const Model> loud_teacher = std::make_shared<Scaled>(lesson.teacher, kStage, 100.0);
  const auto share = [&](FeatureMode mode, bool loud) {
    // Both in the same units, as after a change of scale that the next layer takes back.
    const std::shared_ptr<const Model> ours(&student.model(), [](const Model*) {});
    const Scaled own(ours, kStage, loud ? 100.0 : 1.0);
    const Teaching teaching(loud ? loud_teacher : lesson.teacher, own, lesson.data,
                            {.task = 0, .output = 0, .mode = mode});
    Tap none;
    const Batch batch = lesson.data.at(0, 2);
    const Losses losses = teaching({.model = own, .batch = batch, .tap = none});
    double sum = 0;
    for (const FeatureTap& tap : teaching.taps()) sum += losses.terms.at(tap.name);
    return losses.terms.at("down_blocks.1") / sum;
  };
  EXPECT_NEAR(share(FeatureMode::teacher_norm, true), share(FeatureMode::teacher_norm, false), 1e-9);
  EXPECT_NEAR(share(FeatureMode::batch_norm, true), share(FeatureMode::batch_norm, false), 1e-9);
  EXPECT_GT(share(FeatureMode::plain, true), 0.9);
}

TEST(Teaching, TakesTheSameGradientsWhereStagesRunAgain) {
  Lesson lesson;
  Student student = student_of(cut(lesson.whole, kGone));
  const Teaching teaching(lesson.teacher, student.model(), lesson.data, {});
  const Batch batch = lesson.data.at(0, 2);
  expect_near(gradients(student, teaching, batch), gradients(student, teaching, batch, true), 1e-12);
}

TEST(Teaching, LearnsAndGoesOnBitForBit) {
  Lesson lesson;
  for (const FeatureMode mode : {FeatureMode::teacher_norm, FeatureMode::ema_loss, FeatureMode::masked}) {
    const auto run = [&](int64_t steps, bool resume, const fs::path& state) {
      Student student = student_of(cut(lesson.whole, kGone));
      Teaching teaching(lesson.teacher, student.model(), lesson.data, {.mode = mode, .steps = 4});
      Averaging averaging(student.parameters(), 0.9);
      Hooks hooks({&teaching.hook(), &averaging});
      TrainOptions options{.steps = steps, .batch = 2, .schedule_steps = 4, .checkpoint_every = 2};
      options.state = state;
      options.resume = resume;
      const Trained made = trained(student, teaching, options, hooks);
      EXPECT_EQ(made.curve.front().terms.count("raw mid_block"), 0U);
      EXPECT_GT(made.curve.front().terms.at("mid_block"), 0);
      return values_of(student.parameters());
    };
    const std::string name(feature_mode_name(mode));
    const std::vector<Tensor> whole = run(4, false, lesson.folder / (name + "whole"));
    run(2, false, lesson.folder / (name + "halves"));
    EXPECT_TRUE(same_bits(whole, run(4, true, lesson.folder / (name + "halves")))) << name;
  }
}

TEST(Teaching, ASemanticTermPullsAtTheStudentAlone) {
  Lesson lesson;
  Student student = student_of(cut(lesson.whole, kGone));
  NoiseSchedule schedule{.alpha_bar = std::vector<double>(1000, 0.25)};
  bool teacher_has_a_graph = true;
  const auto loss = [&](const Tensor& ours, const Tensor& theirs, const Tensor& bar) {
    teacher_has_a_graph = theirs.requires_grad();
    EXPECT_EQ(bar.sizes(), at::IntArrayRef({2}));
    return (ours - theirs).square().mean();
  };
  const Teaching teaching(
      lesson.teacher, student.model(), lesson.data,
      {.mode = FeatureMode::none, .semantic = 0.5, .semantic_loss = loss, .schedule = schedule});
  const auto terms = terms_of(teaching, student);
  EXPECT_FALSE(teacher_has_a_graph);
  // x_0 differs by sqrt((1 - abar) / abar) times what the two say.
  EXPECT_NEAR(terms.at("semantic"), 0.5 * 3 * terms.at("output"), 1e-9);
}

TEST(Teaching, RefusesWhatMeansNothing) {
  Lesson lesson;
  const Student student = student_of(lesson.whole);
  const auto refused = [&](TeachingOptions options) {
    return message_of_error(
        [&] { const Teaching teaching(lesson.teacher, student.model(), lesson.data, options); });
  };
  EXPECT_THAT(refused({.task = -1}), HasSubstr("0 or more"));
  EXPECT_THAT(refused({.task = 0, .output = 0, .mode = FeatureMode::none}), HasSubstr("nothing would be"));
  EXPECT_THAT(refused({.semantic = 1}), HasSubstr("semantic"));
  EXPECT_THAT(message_of_error([] { feature_mode_from_name("loud"); }), HasSubstr("teacher-norm"));
}

}  // namespace
}  // namespace lamina
