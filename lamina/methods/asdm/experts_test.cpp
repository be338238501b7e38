#include "lamina/methods/asdm/experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/heal/student.h"
#include "lamina/methods/asdm/asdm_test.h"
#include "lamina/nn/mixed_conv.h"
#include "lamina/tensor/autograd.h"

namespace lamina::asdm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Tensor normal(at::IntArrayRef sizes, uint64_t seed) {
  return random_normal(sizes, seed).to(at::kDouble);
}

MixedConv layer(MixedConv::Gate gate, MixedConv::Reads reads) {
  const auto conv = [](uint64_t seed) {
    return Conv{.weight = normal({4, 3, 3, 3}, seed), .bias = normal({4}, seed + 1), .padding = 1};
  };
  const int64_t read = (reads == MixedConv::Reads::time ? 0 : 3) + (reads == MixedConv::Reads::input ? 0 : 5);
  const int64_t gates = gate == MixedConv::Gate::tanh_residual ? 2 : 3;
  return {.kept = conv(1),
          .others = {conv(3), conv(5)},
          .router = {.weight = normal({gates, read}, 7), .bias = normal({gates}, 8)},
          .gate = gate,
          .reads = reads};
}

Tensor run(const MixedConv& conv, const Tensor& x, const Tensor& time) {
  return conv(x, conv.gates(conv.router(conv.features(x, time))));
}

TEST(MixedConv, ABatchOfKernelsIsOneByOne) {
  const Tensor x = normal({3, 3, 6, 5}, 11), time = normal({3, 5}, 12);
  for (auto gate : {MixedConv::Gate::tanh_residual, MixedConv::Gate::sigmoid, MixedConv::Gate::softmax}) {
    for (auto reads : {MixedConv::Reads::time, MixedConv::Reads::input, MixedConv::Reads::both}) {
      const MixedConv conv = layer(gate, reads);
      const Tensor all = run(conv, x, time);
      for (int64_t i = 0; i < 3; ++i)
        EXPECT_LT(tiny::greatest_difference(all.narrow(0, i, 1),
                                            run(conv, x.narrow(0, i, 1), time.narrow(0, i, 1))),
                  1e-12);
      EXPECT_GT(tiny::greatest_difference(all, conv.kept(x)), 1e-2);
    }
  }
}

TEST(MixedConv, ItIsTheMixtureOfWhatEachKernelGives) {
  const MixedConv conv = layer(MixedConv::Gate::softmax, MixedConv::Reads::time);
  const Tensor x = normal({1, 3, 6, 5}, 11), time = normal({1, 5}, 12);
  const Tensor g = conv.gates(conv.router(time))[0];
  const Tensor sum = g[0] * conv.kept(x) + g[1] * conv.others[0](x) + g[2] * conv.others[1](x);
  EXPECT_LT(tiny::greatest_difference(run(conv, x, time), sum), 1e-12);
}

TEST(MixedConv, OneTimeIsOneKernelWhichIsKept) {
  const MixedConv conv = layer(MixedConv::Gate::tanh_residual, MixedConv::Reads::time);
  const Tensor x = normal({2, 3, 6, 5}, 11), time = normal({1, 5}, 12).repeat({2, 1});
  const c10::NoGradGuard evaluating;
  const Tensor first = run(conv, x, time), again = run(conv, x, time);
  EXPECT_TRUE(at::equal(first, again));
  const Tensor other = normal({1, 5}, 13).repeat({2, 1});
  EXPECT_GT(tiny::greatest_difference(run(conv, x, other), first), 1e-3);
  EXPECT_TRUE(at::equal(run(conv, x, time), first));
}

class Inheritance : public testing::Test {
 protected:
  tiny::Tiny whole_{unet_architecture(), {.config = four_stages()}};
  const Opened& opened() const { return whole_.opened; }
  Inputs inputs() const { return inputs_for(opened().checkpoint.config, 2, 3); }
  static Plan cuts() {
    return tiny::cuts({"down_blocks.0.resnets.1", "up_blocks.3.resnets.1", "up_blocks.2.resnets.2"});
  }
  static Plan with(Plan plan, const std::vector<Inherit>& edits) {
    plan.edits.insert(plan.edits.end(), edits.begin(), edits.end());
    return plan;
  }
};

TEST_F(Inheritance, HeirsAreTheNearestWhereKernelsFit) {
  std::vector<std::string> said;
  for (const Inherit& edit : heirs(opened().blueprint, cuts(), {})) {
    for (const std::string& donor : edit.donors) said.push_back(edit.site + "." + edit.conv + " < " + donor);
  }
  EXPECT_THAT(said, ElementsAre("down_blocks.0.resnets.0.conv1 < down_blocks.0.resnets.1.conv1",
                                "down_blocks.0.resnets.0.conv2 < down_blocks.0.resnets.1.conv2",
                                "up_blocks.2.resnets.1.conv1 < up_blocks.2.resnets.2.conv1",
                                "up_blocks.2.resnets.1.conv2 < up_blocks.2.resnets.2.conv2",
                                "up_blocks.3.resnets.0.conv2 < up_blocks.3.resnets.1.conv2",
                                "up_blocks.3.resnets.2.conv1 < up_blocks.3.resnets.1.conv1"));
}

TEST_F(Inheritance, TheStartIsThePlainCutToTheBit) {
  const Tensor plain = answer(edited(opened(), cuts()), inputs());
  for (Experts::Reads reads : {Experts::Reads::time, Experts::Reads::input, Experts::Reads::both}) {
    const Plan plan = with(cuts(), heirs(opened().blueprint, cuts(), {.reads = reads}));
    const Opened made = edited(opened(), plan);
    EXPECT_TRUE(at::equal(answer(made, inputs()), plain));
    EXPECT_EQ(made.checkpoint.config.at("_class_name"), "LaminaUNet2DConditionModel");
    EXPECT_EQ(plan_from_json(to_json(plan), "plan").edits.size(), plan.edits.size());
    tests::Folder folder;
    write_folder(made.checkpoint, folder.path(), {});
    // Tensors stand at other addresses in a file, and products are then rounded otherwise.
    EXPECT_LT(tiny::greatest_difference(answer(open(folder.path()), inputs()), plain), 1e-12);
  }
  // The others start near it.
  for (Experts::Gate gate : {Experts::Gate::sigmoid, Experts::Gate::softmax}) {
    const Plan plan = with(cuts(), heirs(opened().blueprint, cuts(), {.gate = gate}));
    const Tensor start = answer(edited(opened(), plan), inputs());
    EXPECT_LT(tiny::greatest_difference(start, plain), 0.1 * plain.abs().max().item<double>());
    EXPECT_FALSE(at::equal(start, plain));
  }
}

TEST_F(Inheritance, DonorsKernelsAreTheirsButForOtherSkips) {
  const Opened made = edited(opened(), with(cuts(), heirs(opened().blueprint, cuts(), {})));
  const auto kernel = [](const Opened& model, const std::string& name) {
    const Stored* stored = model.checkpoint.find(name);
    EXPECT_TRUE(stored) << name;
    return load(*stored, at::kDouble);
  };
  EXPECT_TRUE(at::equal(kernel(made, "down_blocks.0.resnets.0.conv2.experts.0.weight"),
                        kernel(opened(), "down_blocks.0.resnets.1.conv2.weight")));
  // up_blocks.2.resnets.1 reads 16 + 16 channels, resnets.2 16 + 8.
  const Tensor mixed = kernel(made, "up_blocks.2.resnets.1.conv1.experts.0.weight");
  EXPECT_TRUE(at::equal(mixed.narrow(1, 0, 16),
                        kernel(opened(), "up_blocks.2.resnets.2.conv1.weight").narrow(1, 0, 16)));
  EXPECT_TRUE(at::equal(mixed.narrow(1, 16, 16),
                        kernel(opened(), "up_blocks.2.resnets.1.conv1.weight").narrow(1, 16, 16)));
}

TEST_F(Inheritance, TheRouterLearns) {
  const Opened made = edited(opened(), with(cuts(), heirs(opened().blueprint, cuts(), {})));
  Student student(made, {.dtype = at::kDouble});
  student.model().run(inputs()).square().sum().backward();
  for (const Parameter& parameter : student.parameters()) {
    if (!parameter.name.ends_with(".router.weight")) continue;
    ASSERT_TRUE(parameter.value.grad().defined()) << parameter.name;
    EXPECT_GT(parameter.value.grad().abs().max().item<double>(), 0) << parameter.name;
  }
}

// Experts of a model with these numbers in the routers' tensors of this name, and zeroes in their others.
struct Routed {
  Opened opened;
  std::vector<Tensor> kept = {};
};
Routed routed(const Opened& start, std::string_view name, at::ScalarType dtype = at::kDouble) {
  Routed made;
  Checkpoint checkpoint = start.checkpoint;
  for (Stored& stored : checkpoint.tensors) {
    const bool router = stored.name.find(".router.") != std::string::npos;
    if (router ? !stored.name.ends_with(name) : dtype == at::kDouble) continue;
    const Tensor numbers = router ? normal(stored.shape, 5) : load(stored, at::kDouble);
    made.kept.push_back(numbers.to(dtype).contiguous());
    stored.zero = false;
    stored.made = nullptr;
    stored.file = nullptr;
    stored.dtype = dtype_of(dtype);
    stored.bytes = {static_cast<const std::byte*>(made.kept.back().const_data_ptr()),
                    made.kept.back().nbytes()};
  }
  made.opened = declare(checkpoint);
  return made;
}

TEST_F(Inheritance, FixedGatesAreAPlainModel) {
  const Opened start = edited(opened(), with(cuts(), heirs(opened().blueprint, cuts(), {})));
  for (at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const Routed mixed = routed(start, ".bias", dtype);  // gates that no time moves
    const std::vector<Inputs> samples = {inputs()};
    const Folding folding =
        fold_gates(mixed.opened, {.measured = samples, .judged = samples, .dtype = dtype});
    EXPECT_LT(folding.moved_most, dtype == at::kDouble ? 1e-13 : 1e-6);
    EXPECT_LT(folding.moved, dtype == at::kDouble ? 1e-13 : 1e-6);
    Plan plan;
    for (const Blend& blend : folding.edits) plan.edits.emplace_back(blend);
    EXPECT_EQ(plan.edits.size(), 6u);
    const Opened plain = edited(mixed.opened, plan_from_json(to_json(plan), "plan"));
    EXPECT_FALSE(plain.checkpoint.config.contains("lamina_experts"));
    EXPECT_EQ(plain.checkpoint.tensors.size(), edited(opened(), cuts()).checkpoint.tensors.size());
    const double off = dtype == at::kDouble ? 1e-12 : 1e-6;
    EXPECT_LT(tiny::greatest_difference(answer(plain, inputs()), answer(mixed.opened, inputs())), off);
    EXPECT_GT(tiny::greatest_difference(answer(plain, inputs()), answer(start, inputs())), 1e-3);
  }
}

TEST_F(Inheritance, GatesThatTimeMovesFoldToTheirMeans) {
  const Opened start = edited(opened(), with(cuts(), heirs(opened().blueprint, cuts(), {})));
  const Routed mixed = routed(start, ".weight");
  const std::vector<Inputs> samples = {inputs_for(opened().checkpoint.config, 3, 4)},
                            one = {inputs_for(opened().checkpoint.config, 1, 4)};
  const Folding folding =
      fold_gates(mixed.opened, {.measured = samples, .judged = samples, .dtype = at::kDouble});
  EXPECT_GT(folding.moved, 1e-4);
  // At the one time that they were measured at they are what they were.
  EXPECT_LT(fold_gates(mixed.opened, {.measured = one, .judged = one, .dtype = at::kDouble}).moved_most,
            1e-13);
}

TEST_F(Inheritance, GatesThatReadPicturesDoNotFold) {
  const std::vector<Inputs> samples = {inputs()};
  EXPECT_THAT(tests::refusal([&] { fold_gates(opened(), {.measured = samples}); }),
              HasSubstr("nothing to fold"));
  for (Experts::Reads reads : {Experts::Reads::input, Experts::Reads::both}) {
    const Plan plan = with(cuts(), heirs(opened().blueprint, cuts(), {.reads = reads}));
    EXPECT_THAT(tests::refusal([&] { fold_gates(edited(opened(), plan), {.measured = samples}); }),
                HasSubstr("read the picture too"));
  }
}

TEST_F(Inheritance, SkipIsCutIsSilence) {
  const Opened made = edited(opened(), with(cuts(), heirs(opened().blueprint, cuts(), {})));
  const auto model = build_model(made, {.dtype = at::kDouble});
  const Plan plan = tiny::cuts({"down_blocks.0.resnets.0", "up_blocks.3.resnets.2"});
  const InferenceMode evaluating;
  Skip skip(made.blueprint, plan);
  const Tensor skipped = model->run(inputs(), skip);
  const Opened cut = edited(made, plan);
  EXPECT_TRUE(at::equal(answer(cut, inputs()), skipped));
  EXPECT_TRUE(at::equal(answer(edited(made, silenced(plan)), inputs()), skipped));
  EXPECT_EQ(cut.checkpoint.config.at("lamina_experts").size(), 3u);
}

TEST_F(Inheritance, WhatDoesNotFitIsRefused) {
  const auto refused = [&](const Inherit& edit) {
    return tests::refusal([&] { check_plan({.edits = {edit}}, opened().blueprint); });
  };
  const std::string site = "down_blocks.0.resnets.0";
  EXPECT_THAT(refused({.site = site, .conv = "conv2"}), HasSubstr("names no donor"));
  EXPECT_THAT(refused({.site = site, .conv = "conv3", .donors = {"x"}}), HasSubstr("conv1 or conv2"));
  EXPECT_THAT(refused({.site = site, .conv = "conv2", .donors = {site + ".conv2"}}), HasSubstr("itself"));
  EXPECT_THAT(refused({.site = site, .conv = "conv2", .donors = {"down_blocks.1.resnets.0.conv2"}}),
              HasSubstr("other channels"));
  EXPECT_THAT(tests::refusal([&] {
                check_plan({.edits = {Blend{.site = site, .conv = "conv2", .gates = {1}}}},
                           opened().blueprint);
              }),
              HasSubstr("has but one"));
  Json config = opened().checkpoint.config;
  config["lamina_experts"] = {{"down_blocks.0.resnets.0.conv2", {{"experts", Json::array()}}}};
  EXPECT_THAT(tests::refusal([&] { unet::blueprint(config, "config.json"); }), HasSubstr("1 to 64"));
  config["lamina_experts"] = {{"down_blocks.0.attentions.0.proj_out", {{"experts", {"x"}}}}};
  EXPECT_THAT(tests::refusal([&] { unet::blueprint(config, "config.json"); }), HasSubstr("conv1 or conv2"));
}

}  // namespace
}  // namespace lamina::asdm
