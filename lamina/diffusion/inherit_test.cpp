#include "lamina/diffusion/inherit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/laws/unets.h"

namespace lamina {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using tests::refusal;
using tiny::four_stages;
using tiny::unet_architecture;

const Json kScheduler = {{"_class_name", "DDIMScheduler"},
                         {"beta_schedule", "scaled_linear"},
                         {"clip_sample", false},
                         {"steps_offset", 1}};

// The family's own tiny config, which has transformers of several blocks, and one of SD1.5's kind.
class Unets : public testing::TestWithParam<bool> {
 protected:
  Unets() : net(unet_architecture(), {.seed = 3, .config = GetParam() ? four_stages() : Json()}) {}

  // Latents after a way of six calls, with guidance.
  Tensor way(Denoiser& denoiser, int64_t steps = 6) {
    const Inputs inputs = tiny::inputs(net.opened);
    const auto half = [&](int64_t row) {
      Conditions one{.text = inputs.text.slice(0, row, row + 1)};
      for (const auto& [name, value] : inputs.added) one.added[name] = value.slice(0, row, row + 1);
      return one;
    };
    return sample(denoiser, kScheduler, half(0), half(1),
                  {.steps = steps, .guidance = 2, .noise = inputs.sample.slice(0, 0, 1)});
  }
  Tensor way(const Inheritance& options) { return way(*inheriting(net.opened, *net.model, options)); }
  Tensor plain_way() { return way(*plain(*net.model)); }

  tiny::Tiny net;
};

INSTANTIATE_TEST_SUITE_P(Configs, Unets, testing::Bool());

TEST_P(Unets, WholeAtEveryCallIsThePlainWay) {
  const Tensor wanted = plain_way();
  EXPECT_TRUE(at::equal(way(Inheritance{}), wanted));
  EXPECT_TRUE(at::equal(way(inheritance_from_text("deep:1")), wanted));
  EXPECT_TRUE(at::equal(way(inheritance_from_text("deep:1:2")), wanted));
  EXPECT_TRUE(at::equal(way(inheritance_from_text("block:u1,mid:1")), wanted));
  EXPECT_FALSE(at::equal(way(inheritance_from_text("deep:3")), wanted));
}

// At a call between, a part that is held adds what it added before: with all parts and all that depends on
// the sample held, only the ends are made anew.
TEST_P(Unets, WhatIsHeldStaysNearThePlainWay) {
  const Tensor wanted = plain_way();
  const double size = wanted.abs().mean().item<double>();
  for (const char* text :
       {"deep:2", "deep:2:1", "deep:3:0:front", "layer:d0.r0:2", "block:u1:2:middle", "block:mid:3"}) {
    const Tensor found = way(inheritance_from_text(text));
    EXPECT_FALSE(at::equal(found, wanted)) << text;
    EXPECT_LT((found - wanted).abs().mean().item<double>(), size) << text;
  }
}

// Branch by branch, DeepCache is: skips made anew, one map taken over. Made by hand from a record of a pass.
TEST_P(Unets, ABranchTakesOverWhatCameUpFromBelow) {
  const InferenceMode guard;
  const Inputs first = tiny::inputs(net.opened, 1);
  Inputs second = tiny::inputs(net.opened, 2);
  const auto denoiser = inheriting(net.opened, *net.model, {.kind = Inheritance::Kind::deep, .interval = 2});
  (*denoiser)(first, 0, 2);
  const Tensor found = (*denoiser)(second, 1, 2);

  const int parts = static_cast<int>(net.opened.blueprint.parts.size());
  int reader = parts - 1;  // the last ResNet
  while (net.opened.blueprint.parts[static_cast<size_t>(reader)].kind != Kind::resnet) --reader;
  Tap none;
  Stream old = net.model->begin(first), made = net.model->begin(second);
  for (int i = 0; i < reader; ++i) net.model->step(old, {i}, none);
  const Tensor skip = made.x;
  made.x = at::cat({old.x.slice(1, 0, old.x.size(1) - skip.size(1)), skip}, 1);
  for (int i = reader; i < parts; ++i) net.model->step(made, {i}, none);
  EXPECT_TRUE(at::equal(found, net.model->finish(made, none)));
}

TEST_P(Unets, MergingNothingIsThePlainWayAndMuchStaysFinite) {
  const Tensor wanted = plain_way();
  EXPECT_TRUE(at::equal(way(Inheritance{.merged = 0}), wanted));
  EXPECT_FALSE(at::equal(way(Inheritance{.merged = 0.5}), wanted));
  EXPECT_TRUE(
      at::isfinite(way(Inheritance{.kind = Inheritance::Kind::deep, .merged = 0.75})).all().item<bool>());
}

TEST_P(Unets, SwitchingHandsOver) {
  const Tensor wanted = plain_way();
  const auto both = [&](double share) {
    return way(*switching(plain(*net.model), plain(*net.model), share));
  };
  EXPECT_TRUE(at::equal(both(0.4), wanted));
  const tiny::Tiny other(unet_architecture(), {.seed = 4, .config = GetParam() ? four_stages() : Json()});
  const auto with = [&](double share) {
    return way(*switching(plain(*other.model), plain(*net.model), share));
  };
  EXPECT_TRUE(at::equal(with(0), wanted));
  EXPECT_TRUE(at::equal(with(1), way(*plain(*other.model))));
  EXPECT_FALSE(at::equal(with(0.5), wanted));
}

TEST(Inherit, WholeCalls) {
  const auto at = [](int64_t calls, int64_t interval, WholeCalls mode) {
    std::vector<int> where;
    const std::vector<bool> whole = whole_calls(calls, interval, mode);
    for (size_t i = 0; i < whole.size(); ++i)
      if (whole[i]) where.push_back(static_cast<int>(i));
    return where;
  };
  EXPECT_THAT(at(8, 3, WholeCalls::uniform), ElementsAre(0, 3, 6));
  EXPECT_THAT(at(25, 5, WholeCalls::front), ElementsAre(0, 3, 8, 16, 24));
  EXPECT_THAT(at(25, 5, WholeCalls::middle), ElementsAre(0, 8, 12, 16, 24));
  EXPECT_THAT(at(5, 1, WholeCalls::front), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(at(1, 9, WholeCalls::middle), ElementsAre(0));
}

TEST(Inherit, MultiplyAdds) {
  const tiny::Tiny net(unet_architecture(), {.config = four_stages()});
  const unet::Shape2d shape{.height = 16, .width = 16, .text_tokens = 5};
  const auto share = [&](const Inheritance& options) {
    const Spent spent = multiply_adds(net.opened, options, 10, shape);
    return spent.own / spent.plain;
  };
  EXPECT_EQ(share({}), 1);
  EXPECT_EQ(share(inheritance_from_text("deep:1")), 1);
  EXPECT_EQ(share(inheritance_from_text("layer:d0.r0,u3.a2:1")), 1);
  const double deep = share(inheritance_from_text("deep:5")),
               wider = share(inheritance_from_text("deep:5:2"));
  EXPECT_LT(deep, wider);
  EXPECT_GT(deep, 0.2);  // two calls of ten are whole
  EXPECT_LT(wider, 1);
  EXPECT_LT(share(Inheritance{.merged = 0.5}), 1);
  // Every part held: what is left between is neither zero nor below.
  const double all = share(inheritance_from_text("block:d0,d1,d2,d3,mid,u0,u1,u2,u3:10"));
  EXPECT_GT(all, 0.1);
  EXPECT_LT(all, 0.5);
}

// Of Stable Diffusion 1.5: what is left of a call between is the last ResNet and transformer, and the ends;
// half of the tokens merged in its five largest self-attentions.
TEST(Inherit, MultiplyAddsOfStableDiffusion) {
  Opened opened;
  opened.checkpoint.config = unet::published_config("sd1.5");
  opened.architecture = &unet_architecture();
  opened.blueprint = unet_architecture().blueprint(opened.checkpoint.config, "sd1.5");
  const double giga = 1e9;
  const Spent deep = multiply_adds(opened, inheritance_from_text("deep:2"), 2, {});
  EXPECT_NEAR(deep.plain / 2 / giga, 401.64, 0.01);
  EXPECT_NEAR((deep.own - deep.plain / 2) / giga, 12.164 + 19.366 + 2 * 0.0472 + 0.002, 0.005);
  const Spent merged = multiply_adds(opened, Inheritance{.merged = 0.5}, 1, {});
  const double tokens = 4096, left = 2048, c = 320;
  const double each = 3 * c * c * (tokens - left) + 2 * c * (tokens * tokens - left * left) - c * 1024 * 3072;
  EXPECT_NEAR((merged.plain - merged.own) / giga, 5 * each / giga, 1e-6);
}

TEST(Inherit, WhatIsNotKnownIsRefused) {
  const tiny::Tiny net(unet_architecture());
  const auto refused = [&](const std::string& text) {
    return refusal([&] { inheriting(net.opened, *net.model, inheritance_from_text(text)); });
  };
  EXPECT_THAT(refused("deep"), HasSubstr("deep:INTERVAL"));
  EXPECT_THAT(refused(""), HasSubstr("deep:INTERVAL"));
  EXPECT_THAT(refused("deep:x"), HasSubstr("not a whole number"));
  EXPECT_THAT(refused("deep:0"), HasSubstr("at least 1"));
  EXPECT_THAT(refused("deep:2:99"), HasSubstr("branches 0 to"));
  EXPECT_THAT(refused("layer:d9.r1:2"), HasSubstr("no part \"d9.r1\""));
  EXPECT_THAT(refusal([&] { inheriting(net.opened, *net.model, {.merged = 0.9}); }), HasSubstr("0 to 0.75"));
  EXPECT_THAT(refusal([&] { switching(nullptr, nullptr, 2); }), HasSubstr("0 to 1"));
}

}  // namespace
}  // namespace lamina
