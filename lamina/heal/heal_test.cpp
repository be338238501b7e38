#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <set>

#include "lamina/base/file.h"
#include "lamina/heal/impl/adamw.h"
#include "lamina/heal/impl/head_loss.h"
#include "lamina/heal/impl/run_state.h"
#include "lamina/heal/train.h"
#include "lamina/tensor/autograd.h"
#include "tests/laws/tiny.h"

extern char** environ;

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

// ---- what the tests train

const Architecture& named(std::string_view name) {
  for (const Architecture& architecture : architectures()) {
    if (architecture.name == name) return architecture;
  }
  fail("no {}", name);
}

Opened tiny_model(const Architecture& architecture, const fs::path& folder,
                  at::ScalarType stored = at::kDouble) {
  if (!fs::exists(folder)) tiny::write(tiny::random_checkpoint(architecture, {.dtype = stored}), folder);
  return open(folder);
}

// Random tokens, every position but the last of a sample learnt where `learnt` says so.
class Given : public Batches {
 public:
  explicit Given(int64_t vocabulary, int64_t length = 9, std::function<bool(int64_t, int64_t)> learnt = {})
      : vocabulary_(vocabulary), length_(length), learnt_(std::move(learnt)) {}
  Batch at(int64_t first, int64_t count) const override {
    std::vector<Tensor> rows;
    for (int64_t i = 0; i < count; ++i)
      rows.push_back(tiny::batch(tiny::tokens(length_, vocabulary_, static_cast<uint64_t>(100 + first + i))));
    const Tensor ids = at::cat(rows), targets = at::full_like(ids, kNotLearnt);
    targets.narrow(1, 0, length_ - 1).copy_(ids.narrow(1, 1, length_ - 1));
    if (learnt_) {
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t t = 0; t < length_; ++t) {
          if (!learnt_(first + i, t)) targets[i][t] = kNotLearnt;
        }
      }
    }
    return {.inputs = {.ids = ids}, .targets = targets};
  }
  int64_t samples_per_epoch() const override { return 6; }
  std::string digest() const override { return fmt::format("given {} {}", vocabulary_, length_); }

 private:
  int64_t vocabulary_, length_;
  std::function<bool(int64_t, int64_t)> learnt_;
};

// -ln softmax(logits)[target] of every position that is learnt, by the book.
Tensor plain_losses(const Tensor& logits, const Tensor& targets) {
  const Tensor flat = logits.reshape({-1, logits.size(-1)}), want = targets.reshape({-1});
  const Tensor rows = at::nonzero(want.ne(kNotLearnt)).squeeze(1);
  return at::log_softmax(flat.index_select(0, rows), 1)
      .gather(1, want.index_select(0, rows).unsqueeze(1))
      .neg()
      .squeeze(1);
}

std::vector<Tensor> values_of(const Student& student) {
  std::vector<Tensor> values;
  for (const Parameter& parameter : student.parameters()) values.push_back(parameter.value.detach().clone());
  return values;
}

std::vector<Tensor> gradients_of(Student& student, const Batch& batch, bool again = false) {
  Tap none;
  const auto objective = cross_entropy();
  const Pass pass{.model = student.model(), .batch = batch, .tap = none, .gradient_checkpointing = again};
  torch::autograd::backward({(*objective)(pass).sum});
  std::vector<Tensor> gradients;
  for (Parameter& parameter : student.parameters()) {
    gradients.push_back(parameter.value.grad().defined() ? parameter.value.grad().clone() : Tensor());
    parameter.value.mutable_grad().reset();
  }
  return gradients;
}

double greatest(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double most = 0;
  EXPECT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, tiny::greatest_difference(a[i], b[i]));
  return most;
}

bool same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!at::equal(a[i], b[i])) return false;
  }
  return true;
}

Trained trained(Student& student, const Batches& data, const TrainOptions& options,
                const std::function<void(const StepRecord&)>& on_step = {}, Hook* hook = nullptr) {
  Hook none;
  const auto group = alone();
  const auto objective = cross_entropy();
  return train(student, *objective, {.train = data}, options, hook ? *hook : none, *group, {}, on_step);
}

std::string message_of_error(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

class EveryArchitecture : public testing::TestWithParam<const Architecture*> {
 protected:
  tiny::Folder folder_;
  Opened opened(at::ScalarType stored = at::kDouble) {
    return tiny_model(*GetParam(), folder_ / "model", stored);
  }
  int64_t vocabulary() { return opened().blueprint.vocabulary; }
};
INSTANTIATE_TEST_SUITE_P(Heal, EveryArchitecture, testing::ValuesIn(tiny::listed()),
                         [](const auto& info) { return std::string(info.param->name); });

// ---- students

TEST_P(EveryArchitecture, EveryWeightGetsAGradientAndItIsAutogradsOwn) {
  Student student(opened(), {.dtype = at::kDouble});
  const Batch batch = Given(vocabulary()).at(0, 3);
  const std::vector<Tensor> gradients = gradients_of(student, batch);
  EXPECT_EQ(student.parameters().size(), opened().blueprint.slots.size());

  torch::autograd::backward({plain_losses(student.model().run(batch.inputs), batch.targets).sum()});
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Parameter& parameter = student.parameters()[i];
    ASSERT_TRUE(gradients[i].defined()) << parameter.name;
    EXPECT_GT(gradients[i].abs().max().item<double>(), 0) << parameter.name;
    EXPECT_LT(tiny::greatest_difference(gradients[i], parameter.value.grad()), 1e-11) << parameter.name;
  }
}

TEST_P(EveryArchitecture, FreshAdaptersChangeNothing) {
  Student student(opened(), {.dtype = at::kDouble, .lora = LoraOptions{.rank = 3}});
  const auto ids = tiny::tokens(7, vocabulary(), 5);
  const Tensor before = tiny::logits(opened(), ids);
  EXPECT_TRUE(at::equal(before, tiny::logits(student.model(), ids)));
  check_equal(opened().checkpoint, student.now().checkpoint, {});
  size_t maps = 0;
  for (const Slot& slot : opened().blueprint.slots) maps += slot.part >= 0 && slot.axes.size() == 2 ? 1 : 0;
  EXPECT_EQ(student.parameters().size(), 2 * maps);
}

TEST_P(EveryArchitecture, WhatIsWrittenIsWhatWasTrained) {
  for (const bool lora : {false, true}) {
    Student::Options options{.dtype = at::kDouble};
    if (lora) options.lora = LoraOptions{.rank = 3, .alpha = 5};
    Student student(opened(), options);
    const std::vector<Tensor> before = values_of(student);
    trained(student, Given(vocabulary()),
            {.steps = 4, .batch = 2, .schedule = Schedule::constant, .learning_rate = 0.01});
    const std::vector<Tensor> after = values_of(student);
    for (size_t i = 0; i < before.size(); ++i)
      EXPECT_GT(tiny::greatest_difference(before[i], after[i]), 0) << student.parameters()[i].name;
    const auto ids = tiny::tokens(7, vocabulary(), 5);
    const Opened now = student.now();
    EXPECT_LT(tiny::greatest_difference(tiny::logits(student.model(), ids), tiny::logits(now, ids)), 1e-12);
    fs::create_directories(folder_ / "written");
    write_folder(now.checkpoint, folder_ / "written", {});
    check_equal(now.checkpoint, open(folder_ / "written").checkpoint, {});
    fs::remove_all(folder_ / "written");
    EXPECT_EQ(student.now(DType::f32).checkpoint.tensors.front().dtype, lora ? DType::f64 : DType::f32);
  }
}

TEST_P(EveryArchitecture, PartsThatRunAgainGiveTheSameGradients) {
  for (const bool lora : {false, true}) {
    Student::Options options{.dtype = at::kFloat};
    if (lora) options.lora = LoraOptions{.rank = 3};
    Student student(opened(), options);
    // An adapter whose B is zero passes nothing on to its A.
    const c10::NoGradGuard plain;
    for (Parameter& parameter : student.parameters()) parameter.value.add_(0.01);
    const c10::AutoGradMode on(true);
    const Batch batch = Given(vocabulary()).at(0, 2);
    EXPECT_TRUE(same_bits(gradients_of(student, batch), gradients_of(student, batch, true)));
  }
}

TEST(Student, FreezesWhatItIsToldTo) {
  const tiny::Folder folder;
  const Architecture& gpt2 = named("GPT2LMHeadModel");
  Student student(tiny_model(gpt2, folder / "m"),
                  {.dtype = at::kDouble, .frozen = {"*wte*", "*.ln_1.*"}, .decay_all = false});
  std::set<std::string> names;
  for (const Parameter& parameter : student.parameters()) {
    names.insert(parameter.name);
    EXPECT_EQ(parameter.decays, parameter.value.dim() > 1) << parameter.name;
  }
  EXPECT_FALSE(names.contains("transformer.wte.weight"));
  EXPECT_FALSE(names.contains("transformer.h.0.ln_1.weight"));
  EXPECT_TRUE(names.contains("transformer.ln_f.weight"));
  EXPECT_EQ(student.find("transformer.wte.weight"), nullptr);
  EXPECT_THAT(message_of_error([&] { Student(tiny_model(gpt2, folder / "m"), {.frozen = {"nothing"}}); }),
              HasSubstr("matches no tensor"));
  EXPECT_THAT(message_of_error([&] {
                Student(tiny_model(gpt2, folder / "m"), {.lora = LoraOptions{.targets = {"*.q_proj"}}});
              }),
              HasSubstr("matches no linear map"));
}

TEST(Student, PutsAdaptersWhereItIsToldTo) {
  const tiny::Folder folder;
  Student student(tiny_model(named("LlamaForCausalLM"), folder / "m"),
                  {.lora = LoraOptions{.rank = 2, .targets = {"model.layers.0.*.q_proj", "*.down_proj"}}});
  EXPECT_EQ(student.parameters()[0].name, "model.layers.0.self_attn.q_proj.lora_A.weight");
  EXPECT_EQ(student.parameters()[1].name, "model.layers.0.self_attn.q_proj.lora_B.weight");
  for (const Parameter& parameter : student.parameters())
    EXPECT_TRUE(parameter.name.find("q_proj") != std::string::npos ||
                parameter.name.find("down_proj") != std::string::npos)
        << parameter.name;
  const Tensor a = student.parameters()[0].value;
  const double bound = 1 / std::sqrt(static_cast<double>(a.size(1)));
  EXPECT_LE(a.abs().max().item<double>(), bound);
  EXPECT_GT(a.abs().max().item<double>(), 0.5 * bound);
}

TEST(Student, NumbersTooLargeForTheFileAreRefused) {
  const tiny::Folder folder;
  Student student(tiny_model(named("GPT2LMHeadModel"), folder / "m", at::kHalf), {});
  {
    const c10::NoGradGuard plain;
    student.parameters()[0].value.fill_(1e6);
  }
  EXPECT_THAT(message_of_error([&] { student.now(); }), HasSubstr("too large for float16"));
  EXPECT_EQ(student.now(DType::f32).checkpoint.tensors.size(), student.opened().checkpoint.tensors.size());
}

TEST(Student, LearnsFromBlocksOfAFile) {
  const fs::path path = fs::path("..") / "shared" / "data" / "weights" / "stories260K" / "stories260K.gguf";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is not there";
  Student student(open(path), {});
  const auto curve = trained(student, Given(student.model().blueprint().vocabulary),
                             {.steps = 3, .batch = 2, .schedule = Schedule::constant, .learning_rate = 1e-3})
                         .curve;
  EXPECT_EQ(curve.size(), 3U);
  const auto ids = tiny::tokens(7, student.model().blueprint().vocabulary, 5);
  EXPECT_LT(tiny::greatest_difference(tiny::logits(student.model(), ids),
                                      tiny::logits(*build_model(student.now()), ids)),
            1e-3);
}

// ---- the loss

struct Headed {
  Tensor hidden, targets;
  Linear head;
  std::vector<Tensor> leaves() const {
    std::vector<Tensor> all = {hidden, head.weight};
    if (head.bias.defined()) all.push_back(head.bias);
    if (head.low_rank) all.push_back(head.low_rank->down), all.push_back(head.low_rank->up);
    return all;
  }
};

Tensor numbers(at::IntArrayRef sizes, uint64_t seed, at::ScalarType dtype = at::kDouble) {
  return random_normal(sizes, seed).to(dtype).set_requires_grad(true);
}

std::vector<Tensor> gradients_of(const Tensor& sum, const std::vector<Tensor>& leaves) {
  return torch::autograd::grad({sum}, leaves, {at::full({}, 0.5, sum.options())});
}

TEST(HeadLoss, HasTheGradientsOfThePlainFormula) {
  for (const bool bias : {false, true}) {
    for (const bool in_out : {false, true}) {
      for (const bool adapted : {false, true}) {
        const int64_t vocabulary = 23, width = 6;
        Headed h{
            .hidden = numbers({2, 5, width}, 1),
            .targets = at::randint(vocabulary, {2, 5}, at::kLong),
            .head = {.weight = numbers(
                         in_out ? at::IntArrayRef{width, vocabulary} : at::IntArrayRef{vocabulary, width}, 2),
                     .in_out = in_out}};
        h.targets[0][3] = kNotLearnt;
        h.targets[1][0] = kNotLearnt;
        if (bias) h.head.bias = numbers({vocabulary}, 3);
        if (adapted)
          h.head.low_rank =
              LowRank{.down = numbers({2, width}, 4), .up = numbers({vocabulary, 2}, 5), .scale = 0.7};
        const Tensor plain = plain_losses(h.head(h.hidden), h.targets).sum();
        const HeadLoss ours = head_loss(h.hidden, h.head, h.targets, {.weight = 0.25});
        EXPECT_NEAR(ours.cross_entropy, plain.item<double>(), 1e-12);
        EXPECT_NEAR(ours.sum.item<double>(), 0.25 * plain.item<double>(), 1e-12);
        EXPECT_LT(greatest(gradients_of(ours.sum, h.leaves()), gradients_of(plain * 0.25, h.leaves())),
                  1e-13);
      }
    }
  }
}

TEST(HeadLoss, TilesOfALargeVocabularyAddUp) {
  // Several tiles: more rows than one holds of so many tokens.
  const int64_t vocabulary = 600'000, rows = 40;
  Headed h{.hidden = numbers({1, rows, 2}, 1),
           .targets = at::randint(vocabulary, {1, rows}, at::kLong),
           .head = {.weight = numbers({vocabulary, 2}, 2)}};
  const Tensor plain = plain_losses(h.head(h.hidden), h.targets).sum();
  const Tensor ours = summed_cross_entropy(h.hidden, h.head, h.targets);
  EXPECT_NEAR(ours.item<double>() / plain.item<double>(), 1, 1e-13);
  EXPECT_LT(greatest(gradients_of(ours, h.leaves()), gradients_of(plain, h.leaves())), 1e-12);
}

TEST(HeadLoss, RefusesASecondDerivativeAndASecondBackward) {
  Headed h{.hidden = numbers({1, 4, 3}, 1),
           .targets = at::zeros({1, 4}, at::kLong),
           .head = {.weight = numbers({5, 3}, 2)}};
  Tensor sum = summed_cross_entropy(h.hidden, h.head, h.targets);
  EXPECT_THAT(message_of_error([&] { torch::autograd::backward({sum}, {}, true, /*create_graph=*/true); }),
              HasSubstr("no second derivative"));
  sum = summed_cross_entropy(h.hidden, h.head, h.targets);
  torch::autograd::backward({sum}, {}, /*retain_graph=*/true);
  EXPECT_THAT(message_of_error([&] { torch::autograd::backward({sum}); }), HasSubstr("twice"));
}

TEST(HeadLoss, NothingLearntIsNothingLost) {
  Headed h{.hidden = numbers({1, 4, 3}, 1),
           .targets = at::full({1, 4}, kNotLearnt, at::kLong),
           .head = {.weight = numbers({5, 3}, 2)}};
  const Tensor sum = summed_cross_entropy(h.hidden, h.head, h.targets);
  EXPECT_EQ(sum.item<double>(), 0);
  for (const Tensor& gradient : gradients_of(sum, h.leaves()))
    EXPECT_EQ(gradient.abs().max().item<double>(), 0);
}

TEST(Distillation, IsThePlainFormula) {
  const tiny::Folder folder;
  const Architecture& llama = named("LlamaForCausalLM");
  tiny::write(tiny::random_checkpoint(llama, {.seed = 7}), folder / "teacher");
  const std::shared_ptr<const Model> teacher = build_model(open(folder / "teacher"), {.dtype = at::kDouble});
  Student student(tiny_model(llama, folder / "m"), {.dtype = at::kDouble});
  const Batch batch = Given(teacher->blueprint().vocabulary).at(0, 2);
  Tap none;
  const Pass pass{.model = student.model(), .batch = batch, .tap = none, .weight = 0.1};
  const double t = 2;
  const auto objective =
      distillation(teacher, {.temperature = t, .logits = 0.7, .hidden = 0.3, .cross_entropy = 0.2});
  const Losses losses = (*objective)(pass);
  std::vector<Tensor> leaves;
  for (const Parameter& parameter : student.parameters()) leaves.push_back(parameter.value);
  const std::vector<Tensor> ours = torch::autograd::grad({losses.sum}, leaves);

  const Tensor rows = at::nonzero(batch.targets.reshape({-1}).ne(kNotLearnt)).squeeze(1);
  const auto walked = [&](const Model& model) {
    std::map<int, Tensor> streams;
    Stream stream = model.begin(batch.inputs);
    for (Site site : model.blueprint().present()) {
      model.step(stream, site, none);
      streams[model.blueprint().part(site).block] =
          stream.x.reshape({-1, stream.x.size(-1)}).index_select(0, rows);
    }
    const Tensor logits = model.finish(stream, none);
    return std::pair(logits.reshape({-1, logits.size(-1)}).index_select(0, rows), streams);
  };
  const auto [taught, their] = walked(*teacher);
  const auto [said, own] = walked(student.model());
  const Tensor p = at::log_softmax(taught / t, 1), q = at::log_softmax(said / t, 1);
  const Tensor kl = (p.exp() * (p - q)).sum() * (t * t);
  Tensor hidden = at::zeros({}, at::kDouble);
  for (const auto& [block, x] : own) hidden = hidden + (x - their.at(block)).square().mean(1).sum();
  hidden = hidden / static_cast<double>(own.size());
  const Tensor targets = plain_losses(student.model().run(batch.inputs), batch.targets).sum();
  const Tensor plain = (kl * 0.7 + hidden * 0.3 + targets * 0.2) * 0.1;
  EXPECT_NEAR(losses.sum.item<double>(), plain.item<double>(), 1e-12);
  EXPECT_NEAR(losses.terms.at("kl"), kl.item<double>(), 1e-11);
  EXPECT_NEAR(losses.terms.at("hidden"), hidden.item<double>(), 1e-11);
  EXPECT_NEAR(losses.measure, targets.item<double>(), 1e-11);
  EXPECT_LT(greatest(ours, torch::autograd::grad({plain}, leaves)), 1e-12);
}

TEST(Distillation, ATeacherThatIsTheStudentTeachesNothing) {
  const tiny::Folder folder;
  const Architecture& gpt2 = named("GPT2LMHeadModel");
  Student student(tiny_model(gpt2, folder / "m"), {.dtype = at::kDouble});
  const std::shared_ptr<const Model> teacher = build_model(open(folder / "m"), {.dtype = at::kDouble});
  const Batch batch = Given(teacher->blueprint().vocabulary).at(0, 2);
  Tap none;
  const Pass pass{.model = student.model(), .batch = batch, .tap = none};
  const Losses losses = (*distillation(teacher, {.hidden = 1}))(pass);
  EXPECT_NEAR(losses.sum.item<double>(), 0, 1e-12);
  Json config = gpt2.tiny();
  config["vocab_size"] = config["vocab_size"].get<int64_t>() + 1;
  tiny::write(tiny::random_checkpoint(gpt2, {.config = config}), folder / "stranger");
  const std::shared_ptr<const Model> stranger =
      build_model(open(folder / "stranger"), {.dtype = at::kDouble});
  EXPECT_THAT(message_of_error([&] { (*distillation(stranger, {}))(pass); }), HasSubstr("vocabulary"));
}

TEST(Masks, LossIsThatOfThePositionsChosen) {
  const tiny::Folder folder;
  Student student(tiny_model(named("LlamaForCausalLM"), folder / "m"), {.dtype = at::kDouble});
  const int64_t vocabulary = student.model().blueprint().vocabulary;
  const Given data(vocabulary, 9, [](int64_t, int64_t t) { return t == 2 || t == 5; });
  const Batch batch = data.at(0, 3);
  EXPECT_EQ(batch.learnt(), 6);
  const Tensor losses = plain_losses(student.model().run(batch.inputs), batch.targets);
  Tap none;
  const Evaluation all = evaluate(student.model(), data, 3, 2, none);
  EXPECT_EQ(all.positions, 6);
  EXPECT_NEAR(all.loss, losses.mean().item<double>(), 1e-12);
}

TEST(Masks, PaddingChangesNothing) {
  for (const Architecture* architecture : tiny::listed()) {
    const tiny::Folder folder;
    Student student(tiny_model(*architecture, folder / "m"), {.dtype = at::kDouble});
    const Batch batch = Given(student.model().blueprint().vocabulary, 6).at(0, 2);
    const Tensor filler = at::full({2, 3}, 1, at::kLong), there = at::ones({2, 9}, at::kBool);
    there.narrow(1, 6, 3).fill_(false);
    const Batch padded{.inputs = {.ids = at::cat({batch.inputs.ids, filler}, 1), .padding = there},
                       .targets = at::cat({batch.targets, at::full({2, 3}, kNotLearnt, at::kLong)}, 1)};
    EXPECT_EQ(padded.learnt(), batch.learnt());
    EXPECT_LT(greatest(gradients_of(student, batch), gradients_of(student, padded)), 1e-12)
        << architecture->name;
  }
}

// ---- the optimizer and its schedule

TEST(AdamW, IsTheFormula) {
  const double lr = 0.01, beta1 = 0.9, beta2 = 0.98, epsilon = 1e-6, decay = 0.1;
  std::vector<Parameter> parameters = {{.name = "a", .value = numbers({3, 4}, 1)},
                                       {.name = "b", .value = numbers({70}, 2), .decays = false}};
  std::vector<Tensor> expected, first, second;
  for (const Parameter& parameter : parameters) {
    expected.push_back(parameter.value.detach().clone());
    first.push_back(at::zeros_like(parameter.value));
    second.push_back(at::zeros_like(parameter.value));
  }
  AdamW optimizer(parameters, {.beta1 = beta1, .beta2 = beta2, .epsilon = epsilon, .weight_decay = decay});
  const c10::NoGradGuard plain;
  for (int step = 1; step <= 12; ++step) {
    for (size_t i = 0; i < 2; ++i) {
      const Tensor gradient =
          random_normal(expected[i].sizes(), static_cast<uint64_t>(10 * step) + i).to(at::kDouble);
      parameters[i].value.mutable_grad() = gradient.clone();
      const Tensor clipped = gradient * 0.3;
      if (i == 0) expected[i] = expected[i] * (1 - lr * decay);
      first[i] = first[i] * beta1 + clipped * (1 - beta1);
      second[i] = second[i] * beta2 + clipped * clipped * (1 - beta2);
      expected[i] = expected[i] - lr * (first[i] / (1 - std::pow(beta1, step))) /
                                      ((second[i] / (1 - std::pow(beta2, step))).sqrt() + epsilon);
    }
    const double norm = optimizer.gradient_norm();
    EXPECT_NEAR(norm,
                std::sqrt(parameters[0].value.grad().square().sum().item<double>() +
                          parameters[1].value.grad().square().sum().item<double>()),
                1e-12);
    optimizer.update({.step = step, .learning_rate = lr, .factor = 0.3});
  }
  for (size_t i = 0; i < 2; ++i)
    EXPECT_LT(tiny::greatest_difference(parameters[i].value, expected[i]), 1e-12);
}

TEST(AdamW, AnUpdateInFloat32IsClippedToo) {
  std::vector<Parameter> parameters = {{.name = "a", .value = numbers({50}, 1, at::kFloat)}};
  std::vector<Parameter> clipped = {
      {.name = "a", .value = parameters[0].value.detach().clone().set_requires_grad(true)}};
  AdamW one(parameters, {}), two(clipped, {});
  const Tensor gradient = random_normal({50}, 3);
  for (int step = 1; step <= 3; ++step) {
    parameters[0].value.mutable_grad() = gradient * (0.2 * step);
    clipped[0].value.mutable_grad() = gradient * step;
    one.update({.step = step, .learning_rate = 0.01});
    two.update({.step = step, .learning_rate = 0.01, .factor = 0.2});
  }
  EXPECT_LT(tiny::greatest_difference(parameters[0].value, clipped[0].value), 1e-6);
}

TEST(Schedule, HasTheRatesOfTransformers) {
  const TrainOptions cosine{
      .steps = 300, .schedule = Schedule::cosine, .learning_rate = 6e-4, .minimum_rate = 3e-4, .warmup = 25};
  for (const auto& [step, rate] : std::vector<std::pair<int64_t, double>>{{1, 0},
                                                                          {2, 2.3999999999999997e-05},
                                                                          {25, 0.0005759999999999999},
                                                                          {26, 0.0006},
                                                                          {27, 0.0005999902120690277},
                                                                          {101, 0.0005482291100917927},
                                                                          {163, 0.0004508567933373462},
                                                                          {300, 0.0003000097879309722},
                                                                          {301, 0.0003},
                                                                          {900, 0.0003}})
    EXPECT_NEAR(learning_rate_at(cosine, step), rate, 1e-18) << step;
  const TrainOptions linear{
      .steps = 7, .schedule = Schedule::linear, .learning_rate = 6e-4, .warmup = 10, .schedule_steps = 100};
  for (const auto& [step, rate] : std::vector<std::pair<int64_t, double>>{{1, 0},
                                                                          {6, 0.0003},
                                                                          {10, 0.00054},
                                                                          {11, 0.0006},
                                                                          {12, 0.0005933333333333333},
                                                                          {51, 0.0003333333333333333},
                                                                          {100, 6.666666666666667e-06},
                                                                          {101, 0}})
    EXPECT_NEAR(learning_rate_at(linear, step), rate, 1e-18) << step;
  EXPECT_EQ(learning_rate_at({.schedule = Schedule::constant, .learning_rate = 0.5}, 1), 0.5);
  EXPECT_EQ(schedule_from_name("linear"), Schedule::linear);
  EXPECT_THAT(message_of_error([] { schedule_from_name("step"); }), HasSubstr("cosine"));
}

// ---- the data

TEST(Batches, ArePiecesOfTheTextInAnotherOrderEachEpoch) {
  const auto ids = tiny::tokens(103, 50, 1);
  const auto batches = text_batches(ids, 10, 4);
  EXPECT_EQ(batches->samples_per_epoch(), 10);
  std::vector<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    std::vector<int64_t> order;
    for (int64_t i = 0; i < 10; ++i) {
      const Batch batch = batches->at(10 * epoch + i, 1);
      int64_t piece = 0;
      while (piece < 10 && batch.inputs.ids[0][0].item<int64_t>() != ids[static_cast<size_t>(10 * piece)])
        ++piece;
      for (int64_t t = 0; t < 10; ++t)
        EXPECT_EQ(batch.inputs.ids[0][t].item<int64_t>(), ids[static_cast<size_t>(10 * piece + t)]);
      EXPECT_TRUE(at::equal(batch.targets.narrow(1, 0, 9), batch.inputs.ids.narrow(1, 1, 9)));
      EXPECT_EQ(batch.targets[0][9].item<int64_t>(), kNotLearnt);
      order.push_back(piece);
    }
    EXPECT_EQ(std::set(order.begin(), order.end()).size(), 10U);
    orders.push_back(order);
  }
  EXPECT_NE(orders[0], orders[1]);
  // A pure function of the position, across the border of an epoch too.
  EXPECT_TRUE(at::equal(batches->at(7, 6).inputs.ids,
                        at::cat({batches->at(7, 3).inputs.ids, batches->at(10, 3).inputs.ids})));
  EXPECT_NE(text_batches(ids, 10, 5)->digest(), batches->digest());
  EXPECT_TRUE(at::equal(text_in_order(ids, 10)->at(3, 1).inputs.ids,
                        tiny::batch({ids.begin() + 30, ids.begin() + 40})));
  EXPECT_THAT(message_of_error([&] { text_batches(ids, 104, 1); }), HasSubstr("103 tokens"));
}

// ---- the loop

constexpr double kRate = 0.01;

TrainOptions some_steps(int64_t steps) {
  return {.steps = steps,
          .batch = 2,
          .schedule = Schedule::cosine,
          .learning_rate = kRate,
          .warmup = 2,
          .schedule_steps = 40};
}

TEST(Train, AccumulationIsOneLargeBatch) {
  const tiny::Folder folder;
  for (const char* name : {"LlamaForCausalLM", "GPT2LMHeadModel"}) {
    std::vector<std::vector<Tensor>> ends;
    std::vector<std::vector<StepRecord>> curves;
    for (const int64_t accumulate : {1, 4}) {
      Student student(tiny_model(named(name), folder / name), {.dtype = at::kDouble});
      // Samples of unequal numbers of positions: a mean of means would be another number.
      const Given data(student.model().blueprint().vocabulary, 9,
                       [](int64_t sample, int64_t t) { return t <= sample % 8; });
      TrainOptions options = some_steps(5);
      options.batch = 8 / accumulate;
      // The bias of keys moves no softmax: its gradient is rounding alone, which a small epsilon would make
      // large.
      options.epsilon = 1e-3;
      options.accumulate = accumulate;
      curves.push_back(trained(student, data, options).curve);
      ends.push_back(values_of(student));
    }
    EXPECT_LT(greatest(ends[0], ends[1]), 1e-12);
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_NEAR(curves[0][i].loss, curves[1][i].loss, 1e-12);
      EXPECT_NEAR(curves[0][i].gradient_norm, curves[1][i].gradient_norm, 1e-11);
      EXPECT_EQ(curves[0][i].tokens, curves[1][i].tokens);
    }
  }
}

// Keeps what a method might: an average, a parameter of its own, a loss of its own.
class Averaging : public Hook {
 public:
  Averaging() : parameter_(at::full({3}, 0.5, at::kFloat).set_requires_grad(true)) {}
  std::optional<std::pair<std::string, Tensor>> extra_loss() override {
    return std::pair{"squares", (parameter_ - 0.1).square().sum()};
  }
  void end_step(StepRecord& record, Group&) override {
    average_ = 0.9 * average_ + 0.1 * record.loss;
    record.terms["average"] = average_;
  }
  std::vector<Parameter> parameters() override { return {{.name = "own", .value = parameter_}}; }
  State state() const override {
    return {.json = {{"seen", average_ > 0}}, .tensors = {{"average", at::full({}, average_, at::kDouble)}}};
  }
  void restore(const State& state) override {
    EXPECT_TRUE(state.json.at("seen").get<bool>());
    average_ = state.tensors.at("average").item<double>();
  }
  std::string digest() const override { return "averaging"; }

 private:
  Tensor parameter_;
  double average_ = 0;
};

struct Ended {
  Trained trained;
  std::vector<Tensor> values;
};

Ended run_of(const fs::path& model, const TrainOptions& options, bool lora,
             const std::function<void(const StepRecord&)>& on_step = {}) {
  const Architecture& architecture = named(lora ? "LlamaForCausalLM" : "GPT2LMHeadModel");
  Student::Options how;
  if (lora) how.lora = LoraOptions{.rank = 3};
  Student student(tiny_model(architecture, model, at::kFloat), how);
  Averaging hook;
  const Given data(student.model().blueprint().vocabulary);
  Trained done = trained(student, data, options, on_step, &hook);
  std::vector<Tensor> values = values_of(student);
  values.push_back(hook.parameters()[0].value.detach().clone());
  return {std::move(done), std::move(values)};
}

void expect_equal(const Ended& a, const Ended& b) {
  EXPECT_TRUE(same_bits(a.values, b.values));
  ASSERT_EQ(a.trained.curve.size(), b.trained.curve.size());
  for (size_t i = 0; i < a.trained.curve.size(); ++i) {
    const StepRecord &x = a.trained.curve[i], &y = b.trained.curve[i];
    EXPECT_EQ(x.step, y.step);
    EXPECT_EQ(x.loss, y.loss);
    EXPECT_EQ(x.objective, y.objective);
    EXPECT_EQ(x.gradient_norm, y.gradient_norm);
    EXPECT_EQ(x.learning_rate, y.learning_rate);
    EXPECT_EQ(x.tokens, y.tokens);
    EXPECT_EQ(x.terms, y.terms);
  }
}

constexpr const char* kChild = "LAMINA_TEST_HEAL_CHILD";

TrainOptions in_state(const fs::path& state, int64_t steps) {
  TrainOptions options = some_steps(steps);
  options.accumulate = 2;
  options.state = state;
  options.checkpoint_every = 5;
  return options;
}

// Not a test of its own: the process that Resume.AKilledRunGoesOnBitForBit kills.
TEST(Resume, Child) {
  const char* folder = std::getenv(kChild);
  if (!folder) GTEST_SKIP() << "runs as the child of another test alone";
  const fs::path path(folder);
  run_of(path / "model", in_state(path / "state", 40), path.filename() == "lora",
         [](const StepRecord& record) {
           if (record.step == 27) ::raise(SIGKILL);
         });
}

TEST(Resume, AKilledRunGoesOnBitForBit) {
  for (const bool lora : {false, true}) {
    const tiny::Folder made;
    const fs::path folder = made / (lora ? "lora" : "full");
    fs::create_directories(folder);
    const Ended whole = run_of(folder / "model", in_state(folder / "undisturbed", 40), lora);

    ::setenv(kChild, folder.c_str(), 1);
    std::string self = fs::canonical("/proc/self/exe"), filter = "--gtest_filter=Resume.Child";
    std::array<char*, 3> arguments = {self.data(), filter.data(), nullptr};
    pid_t child = 0;
    ASSERT_EQ(::posix_spawn(&child, self.c_str(), nullptr, nullptr, arguments.data(), environ), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ::unsetenv(kChild);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    EXPECT_THAT(checkpoints_in(folder / "state"), ElementsAre(25, 20));

    TrainOptions options = in_state(folder / "state", 40);
    options.resume = true;
    const Ended rest = run_of(folder / "model", options, lora);
    EXPECT_EQ(rest.trained.resumed_from, 25);
    expect_equal(whole, rest);
    EXPECT_THAT(checkpoints_in(folder / "state"), ElementsAre(40, 35));

    // Done is done.
    const Ended again = run_of(folder / "model", options, lora);
    EXPECT_EQ(again.trained.resumed_from, 40);
    expect_equal(whole, again);
  }
}

struct Cut {};

TEST(Resume, FallsBackWhereTheNewestIsDamaged) {
  const tiny::Folder folder;
  const Ended whole = run_of(folder / "model", in_state({}, 40), false);
  const auto interrupted = [&] {
    fs::remove_all(folder / "state");
    EXPECT_THROW(run_of(folder / "model", in_state(folder / "state", 40), false,
                        [](const StepRecord& record) {
                          if (record.step == 23) throw Cut{};
                        }),
                 Cut);
  };
  const auto spoil = [&](const fs::path& path, const std::function<std::string(std::string)>& how) {
    const std::string text = how(read_file(path));
    std::ofstream(path, std::ios::binary) << text;
  };
  TrainOptions options = in_state(folder / "state", 40);
  options.resume = true;
  const std::vector<std::function<std::string(std::string)>> ways = {
      [](std::string text) { return text.substr(0, text.size() / 2); },
      [](std::string text) {
        text[text.size() - 9] = static_cast<char>(text[text.size() - 9] ^ 1);
        return text;
      },
      [](std::string) { return std::string(); }};
  for (const char* file : {"state.json", "tensors.safetensors"}) {
    for (size_t way = 0; way < ways.size(); ++way) {
      if (std::string_view(file) == "state.json" && way == 1) continue;  // a digit more or less is still JSON
      interrupted();
      spoil(folder / "state" / "step-20" / file, ways[way]);
      const Ended rest = run_of(folder / "model", options, false);
      EXPECT_EQ(rest.trained.resumed_from, 15);
      ASSERT_EQ(rest.trained.notes.size(), 1U);
      EXPECT_THAT(rest.trained.notes[0], HasSubstr("step-15 was taken"));
      expect_equal(whole, rest);
    }
  }
  interrupted();
  for (const char* step : {"step-20", "step-15"}) fs::remove(folder / "state" / step / "state.json");
  EXPECT_THAT(message_of_error([&] { run_of(folder / "model", options, false); }),
              HasSubstr("no checkpoint is whole"));
}

TEST(Resume, AnotherRunIsRefusedAndMoreStepsAreNot) {
  const tiny::Folder folder;
  const Ended whole = run_of(folder / "model", in_state({}, 30), false);
  run_of(folder / "model", in_state(folder / "state", 10), false);
  EXPECT_THAT(message_of_error([&] { run_of(folder / "model", in_state(folder / "state", 10), false); }),
              HasSubstr("earlier run"));
  TrainOptions options = in_state(folder / "state", 30);
  options.resume = true;
  TrainOptions other = options;
  other.learning_rate = 0.5;
  other.batch = 4;
  EXPECT_THAT(message_of_error([&] { run_of(folder / "model", other, false); }),
              testing::AllOf(HasSubstr("lr was 0.01 and is 0.5"), HasSubstr("batch was 2 and is 4")));
  other = options;
  other.schedule_steps = 0;
  EXPECT_THAT(message_of_error([&] { run_of(folder / "model", other, false); }),
              HasSubstr("length of the schedule was 40 and is 30"));
  EXPECT_THAT(message_of_error([&] { run_of(folder / "another", options, true); }),
              HasSubstr("another model"));
  const Ended rest = run_of(folder / "model", options, false);
  EXPECT_EQ(rest.trained.resumed_from, 10);
  expect_equal(whole, rest);
}

TEST(Resume, WhoIsAskedToStopWritesACheckpointFirst) {
  const tiny::Folder folder;
  const Ended whole = run_of(folder / "model", in_state({}, 12), false);
  Student student(tiny_model(named("GPT2LMHeadModel"), folder / "model"), {});
  Averaging hook;
  const auto group = alone();
  const auto objective = cross_entropy();
  const Given data(student.model().blueprint().vocabulary);
  std::stop_source source;
  EXPECT_THROW(train(student, *objective, {.train = data}, in_state(folder / "state", 12), hook, *group,
                     {.tick = {}, .stop = source.get_token()},
                     [&](const StepRecord& record) {
                       if (record.step == 7) source.request_stop();
                     }),
               Stopped);
  EXPECT_THAT(checkpoints_in(folder / "state"), ElementsAre(7, 5));
  TrainOptions options = in_state(folder / "state", 12);
  options.resume = true;
  const Ended rest = run_of(folder / "model", options, false);
  EXPECT_EQ(rest.trained.resumed_from, 7);
  expect_equal(whole, rest);
}

TEST(RunState, TextThatWasCutOrChangedIsAnErrorOrAState) {
  RunState state{.step = 2, .fields = {{"lr", "0.1"}}};
  state.curve = {{.step = 1, .loss = 0.1, .terms = {{"kl", std::numeric_limits<double>::infinity()}}},
                 {.step = 2, .loss = 1.0 / 3}};
  state.evaluations = {{.step = 2, .loss = 0.7, .positions = 5}};
  const std::string text = to_text(state, "digest");
  const ReadState back = state_from_text(text, "it");
  EXPECT_EQ(back.state.curve[1].loss, 1.0 / 3);
  EXPECT_TRUE(std::isnan(back.state.curve[0].terms.at("kl")));
  EXPECT_EQ(back.state.fields, state.fields);
  EXPECT_EQ(back.state.evaluations[0].positions, 5);
  EXPECT_EQ(back.digest_of_tensors, "digest");
  tiny::Random random(1);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string other = text;
    if (i % 3 == 0) other.resize(static_cast<size_t>(random.below(static_cast<int64_t>(text.size()))));
    for (int k = 0; k <= i % 3; ++k) {
      if (!other.empty())
        other[static_cast<size_t>(random.below(static_cast<int64_t>(other.size())))] =
            "0\"{}[],:-e\x80n"[random.below(13)];
    }
    try {
      state_from_text(other, "it");
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1500);
}

// The root of zero has no slope: the loss is a number, its gradient is not.
class Breaking : public Hook {
 public:
  enum class What { loss, gradient };
  explicit Breaking(What what)
      : what_(what), parameter_(at::zeros({2}, at::kFloat).set_requires_grad(true)) {}
  void begin_step(int64_t step) override { step_ = step; }
  std::optional<std::pair<std::string, Tensor>> extra_loss() override {
    if (step_ < 4) return std::pair{"own", parameter_.sum() * 0};
    if (what_ == What::loss)
      return std::pair{"own", parameter_.sum() * std::numeric_limits<double>::quiet_NaN()};
    return std::pair{"own", (parameter_ * 0).sqrt().sum()};
  }
  std::vector<Parameter> parameters() override { return {{.name = "a.root", .value = parameter_}}; }

 private:
  What what_;
  Tensor parameter_;
  int64_t step_ = 0;
};

TEST(Train, StopsBeforeWhatIsNoNumberReachesTheWeights) {
  const tiny::Folder folder;
  const auto run = [&](Hook* hook, int64_t steps) {
    Student student(tiny_model(named("GPT2LMHeadModel"), folder / "m"), {});
    TrainOptions options = some_steps(steps);
    options.clip = 0;
    Trained done = trained(student, Given(student.model().blueprint().vocabulary), options, {}, hook);
    return Ended{std::move(done), values_of(student)};
  };
  const Ended three = run(nullptr, 3);
  Breaking loss(Breaking::What::loss), gradient(Breaking::What::gradient);
  const Ended a = run(&loss, 10), b = run(&gradient, 10);
  EXPECT_EQ(a.trained.broke_at, 4);
  EXPECT_EQ(a.trained.broke_on, "the loss");
  EXPECT_EQ(b.trained.broke_at, 4);
  EXPECT_EQ(b.trained.broke_on, "the gradient of a.root");
  EXPECT_EQ(a.trained.curve.size(), 3U);
  EXPECT_TRUE(same_bits(three.values, a.values));
  EXPECT_TRUE(same_bits(three.values, b.values));
  EXPECT_EQ(three.trained.broke_at, 0);
}

// Norms that fade: part of each is a map of its own, learnt beside the model. It counts what it sees.
class Fading : public Hook {
 public:
  Fading() : tap_(*this) {}
  Tap& tap() override { return tap_; }
  void begin_pass(const Batch&) override { ++passes; }
  void recomputing(bool on) override {
    EXPECT_NE(on, again_);
    again_ = on;
  }
  std::vector<Parameter> parameters() override { return {{.name = "gate", .value = gate, .decays = false}}; }
  Tensor gate = at::full({}, 0.7, at::kDouble).set_requires_grad(true);
  int64_t passes = 0, first = 0, again = 0;

 private:
  struct Sees : Tap {
    explicit Sees(Fading& its) : its(its) {}
    bool reads_norm(Site) const override { return true; }
    Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
      if (path.reader == Reader::mlp) ++(its.again_ ? its.again : its.first);
      return norm(x) * its.gate + norm.held(x, 2.0) * (1 - its.gate);
    }
    Fading& its;
  };
  bool again_ = false;
  Sees tap_;
};

TEST(Train, AHookSeesThePartsThatRunAgainAndLearnsFromThem) {
  for (const Architecture* architecture : tiny::listed()) {
    const tiny::Folder folder;
    std::vector<std::vector<Tensor>> ends;
    for (const bool again : {false, true}) {
      Student student(tiny_model(*architecture, folder / "m"), {.dtype = at::kDouble});
      // The first rate is 0: one update, from gradients at the same place. Later ones make much of a
      // rounding.
      TrainOptions options = some_steps(2);
      options.accumulate = 2;
      options.epsilon = 1e-3;
      options.gradient_checkpointing = again;
      Fading hook;
      trained(student, Given(student.model().blueprint().vocabulary), options, {}, &hook);
      int64_t mlps = 0;
      for (Site site : student.model().blueprint().present())
        mlps += student.model().blueprint().part(site).kind == Kind::mlp ? 1 : 0;
      EXPECT_EQ(hook.passes, 4);
      EXPECT_EQ(hook.first, 4 * mlps);
      EXPECT_EQ(hook.again, again ? 4 * mlps : 0);
      EXPECT_NE(hook.gate.item<double>(), 0.7);
      ends.push_back(values_of(student));
      ends.back().push_back(hook.gate.detach().clone());
    }
    // The gate's gradient is added up part by part in one, all at once in the other.
    EXPECT_LT(greatest(ends[0], ends[1]), 1e-12) << architecture->name;
  }
}

TEST(Train, EvaluatesWhenItIsTime) {
  const tiny::Folder folder;
  Student student(tiny_model(named("GPT2LMHeadModel"), folder / "m"), {});
  const Given data(student.model().blueprint().vocabulary);
  TrainOptions options = some_steps(5);
  options.evaluate_every = 2;
  Hook hook;
  const auto group = alone();
  const auto objective = cross_entropy();
  const Trained done =
      train(student, *objective, {.train = data, .validation = &data, .validation_samples = 5}, options, hook,
            *group);
  std::vector<int64_t> steps;
  for (const Evaluation& evaluation : done.evaluations) steps.push_back(evaluation.step);
  EXPECT_THAT(steps, ElementsAre(2, 4, 5));
  Tap none;
  const Evaluation last = evaluate(student.model(), data, 5, 3, none);
  EXPECT_NEAR(done.evaluations.back().loss, last.loss, 1e-6);
  EXPECT_EQ(last.positions, 5 * 8);
}

// The same few samples again and again.
class Few : public Given {
 public:
  using Given::Given;
  Batch at(int64_t first, int64_t count) const override { return Given::at(first % 4, count); }
};

TEST(Train, AutocastKeepsItsWeightsWide) {
  for (const bool again : {false, true}) {
    const tiny::Folder folder;
    Student student(tiny_model(named("LlamaForCausalLM"), folder / "m"), {});
    TrainOptions options = some_steps(30);
    options.autocast = "bfloat16";
    options.gradient_checkpointing = again;
    const auto curve = trained(student, Few(student.model().blueprint().vocabulary), options).curve;
    EXPECT_LT(curve.back().loss, 0.8 * curve.front().loss);
    for (const Parameter& parameter : student.parameters())
      EXPECT_EQ(parameter.value.scalar_type(), at::kFloat);
  }
  const tiny::Folder folder;
  Student wide(tiny_model(named("LlamaForCausalLM"), folder / "m"), {.dtype = at::kDouble});
  TrainOptions options = some_steps(1);
  options.autocast = "bfloat16";
  EXPECT_THAT(message_of_error([&] { trained(wide, Few(32), options); }), HasSubstr("autocast"));
}

TEST(Train, OptionsThatMakeNoSenseAreRefused) {
  const tiny::Folder folder;
  Student student(tiny_model(named("GPT2LMHeadModel"), folder / "m"), {});
  const Given data(student.model().blueprint().vocabulary);
  const auto refused = [&](const std::function<void(TrainOptions&)>& change) {
    TrainOptions options = some_steps(2);
    change(options);
    return message_of_error([&] { trained(student, data, options); });
  };
  EXPECT_THAT(refused([](TrainOptions& o) { o.steps = 0; }), HasSubstr("steps"));
  EXPECT_THAT(refused([](TrainOptions& o) { o.minimum_rate = 1; }), HasSubstr("floor"));
  EXPECT_THAT(refused([](TrainOptions& o) { o.beta2 = 1; }), HasSubstr("beta2"));
  EXPECT_THAT(refused([](TrainOptions& o) { o.autocast = "int4"; }), HasSubstr("bfloat16"));
  EXPECT_THAT(message_of_error([&] {
                trained(
                    student,
                    Given(student.model().blueprint().vocabulary, 9, [](int64_t, int64_t) { return false; }),
                    some_steps(2));
              }),
              HasSubstr("no position"));
}

}  // namespace
}  // namespace lamina
