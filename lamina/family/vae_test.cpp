#include "lamina/family/vae.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"
#include "tests/help.h"

namespace lamina::vae {
namespace {

using testing::HasSubstr;
using tests::refusal;

// As Stable Diffusion 1's vae/config.json has it.
Json stable_diffusion() {
  return {{"_class_name", "AutoencoderKL"},
          {"act_fn", "silu"},
          {"block_out_channels", {128, 256, 512, 512}},
          {"down_block_types", Json(std::vector<std::string>(4, "DownEncoderBlock2D"))},
          {"up_block_types", Json(std::vector<std::string>(4, "UpDecoderBlock2D"))},
          {"in_channels", 3},
          {"latent_channels", 4},
          {"layers_per_block", 2},
          {"norm_num_groups", 32},
          {"out_channels", 3},
          {"sample_size", 512}};
}

Json with(Json config, const Json& changes) {
  for (const auto& [key, value] : changes.items()) config[key] = value;
  return config;
}

TEST(Vae, ParametersAndTensorsAreThePublishedOnes) {
  const Blueprint kl = kl_declaration().blueprint(stable_diffusion(), "config");
  EXPECT_EQ(kl.parameters(), 83'653'863);
  EXPECT_EQ(kl.slots.size(), 248U);
  EXPECT_TRUE(kl.parts.empty());
  const Blueprint taesd = tiny_declaration().blueprint({{"_class_name", "AutoencoderTiny"}}, "config");
  EXPECT_EQ(taesd.parameters(), 2'445'063);
  EXPECT_EQ(taesd.slots.size(), 134U);
}

TEST(Vae, IsFoundByItsClass) {
  EXPECT_EQ(architecture_of(stable_diffusion(), "c").name, "AutoencoderKL");
  EXPECT_EQ(architecture_of({{"_class_name", "AutoencoderTiny"}}, "c").name, "AutoencoderTiny");
  EXPECT_THAT(refusal([] { architecture_of({{"_class_name", "AsymmetricAutoencoderKL"}}, "c"); }),
              HasSubstr("AutoencoderKL"));
}

// Old files spell the attention otherwise, and may store its maps as convolutions.
TEST(Vae, TheAttentionIsDeclaredAsTheFileHasIt) {
  for (const bool square : {true, false}) {
    Checkpoint checkpoint;
    checkpoint.path = "model";
    checkpoint.config = kl_declaration().tiny();
    for (const Slot& slot : kl_declaration().blueprint(checkpoint.config, "model").slots) {
      Stored& stored = checkpoint.tensors.emplace_back();
      stored.name = slot.name;
      for (const Axis& axis : slot.axes) stored.shape.push_back(axis.size());
      for (size_t i = 0; i < kSpelling.size(); ++i) {
        const std::string middle = fmt::format("attentions.0.{}.", kSpelling[i]);
        const size_t at = stored.name.find(middle);
        if (at == std::string::npos) continue;
        stored.name.replace(at, middle.size(), fmt::format("attentions.0.{}.", kOldSpelling[i]));
        if (square && stored.shape.size() == 2) stored.shape.insert(stored.shape.end(), 2, 1);
      }
    }
    const Opened opened = declare(checkpoint);
    EXPECT_EQ(opened.blueprint.slots.size(), checkpoint.tensors.size());
    EXPECT_NE(opened.blueprint.slot("decoder.mid_block.attentions.0.proj_attn.weight"), nullptr);
  }
}

TEST(Vae, AValueThatWouldChangeResultsIsRefused) {
  const auto kl = [](const Json& changes) {
    return refusal([&] { read_kl_config(with(stable_diffusion(), changes), "config.json"); });
  };
  EXPECT_THAT(kl({{"act_fn", "mish"}}), HasSubstr("\"act_fn\" is \"mish\""));
  EXPECT_THAT(kl({{"norm_num_groups", 3}}), HasSubstr("3 groups"));
  EXPECT_THAT(kl({{"block_out_channels", {128, 256}}}), HasSubstr("down_block_types"));
  EXPECT_THAT(kl({{"down_block_types", Json(std::vector<std::string>(4, "AttnDownEncoderBlock2D"))}}),
              HasSubstr("only DownEncoderBlock2D"));
  EXPECT_THAT(kl({{"scaling_factor", 0}}), HasSubstr("scaling_factor"));
  EXPECT_THAT(kl({{"latents_mean", {0, 0, 0, 0}}}), HasSubstr("only one is there"));
  EXPECT_THAT(kl({{"latents_mean", {0, 0}}, {"latents_std", {1, 1}}}), HasSubstr("4 latent channels"));
  EXPECT_THAT(kl({{"latents_mean", {0, 0, 0, 0}}, {"latents_std", {1, 1, 1, 0}}}), HasSubstr("not positive"));
  const auto tiny = [](const Json& changes) {
    return refusal([&] { read_tiny_config(with(tiny_declaration().tiny(), changes), "config.json"); });
  };
  EXPECT_THAT(tiny({{"act_fn", "silu"}}), HasSubstr("relu"));
  EXPECT_THAT(tiny({{"upsample_fn", "bilinear"}}), HasSubstr("nearest"));
  EXPECT_THAT(tiny({{"encoder_block_out_channels", {8, 16}}}), HasSubstr("different widths"));
  EXPECT_THAT(tiny({{"num_decoder_blocks", {1, 1, 1}}}), HasSubstr("decoder_block_out_channels"));
  EXPECT_THAT(tiny({{"num_encoder_blocks", {1, -1}}}), HasSubstr("num_encoder_blocks"));
}

}  // namespace
}  // namespace lamina::vae
