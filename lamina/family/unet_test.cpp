#include "lamina/family/unet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"

namespace lamina::unet {
namespace {

using testing::HasSubstr;

struct Published {
  const char* name;
  int64_t parameters;
  size_t tensors;                  // 0: not known
  double with_attention, without;  // GMAC at the latent of the config
};

class Layouts : public testing::TestWithParam<Published> {};

// Counts of diffusers' own modules, and of the model cards.
INSTANTIATE_TEST_SUITE_P(Every, Layouts,
                         testing::Values(Published{"sd1.5", 859'520'964, 686, 401.64, 338.6},
                                         Published{"sd2.1", 865'910'724, 0, 402.1, 339.1},
                                         Published{"sdxl", 2'567'463'684, 1680, 3380.6, 2988.7},
                                         Published{"bk-base", 579'384'964, 0, 261.5, 223.7},
                                         Published{"bk-small", 482'346'884, 0, 255.4, 217.6},
                                         Published{"bk-tiny", 323'384'964, 0, 242.8, 205.0},
                                         Published{"ssd-1b", 1'331'334'404, 0, 2103.9, 1853.8},
                                         Published{"vega", 745'225'604, 0, 1411.2, 1273.0},
                                         Published{"koala-1b", 1'161'184'324, 0, 1715.9, 1515.4},
                                         Published{"koala-700m", 782'822'724, 0, 1350.8, 1176.2}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::erase_if(name, [](char c) { return c == '.' || c == '-'; });
                           return name;
                         });

TEST_P(Layouts, ParametersTensorsAndMultiplyAddsAreThePublishedOnes) {
  const Json json = published_config(GetParam().name);
  const Blueprint b = blueprint(json, "config");
  EXPECT_EQ(b.parameters(), GetParam().parameters);
  if (GetParam().tensors > 0) {
    EXPECT_EQ(b.slots.size(), GetParam().tensors);
  }
  const Config c = read_config(json, "config");
  const Macs cost = macs(c, b, {.height = c.sample_size, .width = c.sample_size});
  EXPECT_NEAR(cost.total() / 1e9, GetParam().with_attention, 0.001 * GetParam().with_attention);
  EXPECT_NEAR(cost.weights / 1e9, GetParam().without, 0.001 * GetParam().without);
}

TEST(Unet, CandidatesOfStableDiffusion) {
  const Json json = published_config("sd1.5");
  const Blueprint b = blueprint(json, "config");
  const Config c = read_config(json, "config");
  EXPECT_EQ(b.parts.size(), 38U);
  const std::vector<Macs> costs = macs_by_part(c, b, {});
  const auto part = [&](const char* path) { return b.site(path); };
  // Parameters that leave with it: a shortcut stays.
  const auto saved = [&](const char* path) { return parameters_saved(b, {part(path)}); };
  EXPECT_EQ(saved("down_blocks.0.resnets.0"), 2'255'040);
  EXPECT_EQ(saved("down_blocks.0.attentions.0"), 2'546'240);
  EXPECT_EQ(saved("down_blocks.1.resnets.0"), 6'558'080 - (320 * 640 + 640));
  EXPECT_EQ(saved("mid_block.attentions.0"), 34'760'960);
  EXPECT_EQ(saved("up_blocks.3.resnets.1"), 3'382'400 - (640 * 320 + 320));
  EXPECT_NEAR(costs[static_cast<size_t>(part("down_blocks.0.attentions.0").index)].total() / 1e9, 19.366,
              0.01);
  EXPECT_NEAR(costs[static_cast<size_t>(part("down_blocks.0.resnets.0").index)].total() / 1e9, 7.550, 0.01);
  EXPECT_EQ(b.part(part("up_blocks.2.resnets.1")).label(), "u2.r1");
  EXPECT_EQ(b.part(part("mid_block.attentions.0")).label(), "mid.a0");
}

TEST(Unet, BlocksOfDeepTransformersAreParts) {
  const Blueprint b = blueprint(published_config("sdxl"), "config");
  EXPECT_EQ(b.parts.size(), 87U);
  EXPECT_EQ(b.wrappers.size(), 11U);
  std::vector<Site> all;
  for (int part : b.wrappers[0].parts) all.push_back({part});
  EXPECT_EQ(parameters_saved(b, all), 20'832'000);  // blocks and what stands around them
  EXPECT_EQ(parameters_saved(b, {all[0]}), 10'005'120);
}

std::string refusal(const Json& change) {
  Json json = published_config("sd1.5");
  json.update(change);
  try {
    blueprint(json, "config");
  } catch (const Error& error) {
    return error.what();
  }
  return "was accepted";
}

TEST(Unet, RefusesWhatItDoesNotKnowOrCannotBe) {
  EXPECT_THAT(refusal({{"act_fn", "mish"}}), HasSubstr("\"act_fn\""));
  EXPECT_THAT(
      refusal({{"down_block_types", {"DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"}}}),
      HasSubstr("AttnDownBlock2D"));
  EXPECT_THAT(refusal({{"attention_head_dim", 7}}), HasSubstr("do not divide"));
  EXPECT_THAT(refusal({{"norm_num_groups", 7}}), HasSubstr("groups"));
  EXPECT_THAT(refusal({{"layers_per_block", {2, 2}}}), HasSubstr("2 entries"));
  EXPECT_THAT(refusal({{"layers_per_block", {2, 2, 0, 2}}}), HasSubstr("no layers"));
  EXPECT_THAT(refusal({{"layers_per_block", -1}}), HasSubstr("layers_per_block"));
  EXPECT_THAT(refusal({{"transformer_layers_per_block", {Json{1, 0}, 1, 1, 1}}}),
              HasSubstr("reverse_transformer_layers_per_block"));
  EXPECT_THAT(refusal({{"block_out_channels", {320, 1e30, 1280, 1280}}}), HasSubstr("block_out_channels"));
  EXPECT_THAT(refusal({{"mid_block_type", "UNetMidBlock2DSimpleCrossAttn"}}), HasSubstr("mid_block_type"));
  EXPECT_THAT(refusal({{"lamina_removed", {"down_blocks.9.resnets.0"}}}),
              HasSubstr("down_blocks.9.resnets.0"));
  EXPECT_THAT(refusal({{"lamina_removed", {"mid_block.resnets.0", "mid_block.resnets.0"}}}),
              HasSubstr("twice"));
  EXPECT_THAT(refusal({{"time_cond_proj_dim", 256}}), HasSubstr("time_cond_proj_dim"));
}

}  // namespace
}  // namespace lamina::unet
