#include "lamina/family/clip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"
#include "tests/help.h"

namespace lamina::clip {
namespace {

using testing::HasSubstr;
using tests::refusal;

Json vit_l() {
  return {{"architectures", {"CLIPTextModel"}},
          {"model_type", "clip_text_model"},
          {"hidden_act", "quick_gelu"},
          {"hidden_size", 768},
          {"intermediate_size", 3072},
          {"num_attention_heads", 12},
          {"num_hidden_layers", 12},
          {"projection_dim", 768},
          {"eos_token_id", 2},
          {"vocab_size", 49408}};
}

Json big_g() {
  return {{"architectures", {"CLIPTextModelWithProjection"}},
          {"model_type", "clip_text_model"},
          {"hidden_act", "gelu"},
          {"hidden_size", 1280},
          {"intermediate_size", 5120},
          {"num_attention_heads", 20},
          {"num_hidden_layers", 32},
          {"projection_dim", 1280},
          {"eos_token_id", 49407},
          {"vocab_size", 49408}};
}

Blueprint declared(const Json& config) {
  return architecture_of(config, "config").blueprint(config, "config");
}

TEST(Clip, ParametersAreThePublishedOnes) {
  EXPECT_EQ(declared(vit_l()).parameters(), 123'060'480);
  EXPECT_EQ(declared(big_g()).parameters(), 694'659'840);
  EXPECT_EQ(declared(big_g()).parts.size(), 64U);
  EXPECT_FALSE(declared(vit_l()).speaks());
}

TEST(Clip, AnEndOfTwoMeansTheLargestId) {
  EXPECT_TRUE(read_config(vit_l(), "c").end_is_largest);
  EXPECT_FALSE(read_config(big_g(), "c").end_is_largest);
  Json silent = vit_l();
  silent.erase("eos_token_id");
  EXPECT_EQ(read_config(silent, "c").end_of_text, 49407);
  EXPECT_EQ(read_config(vit_l(), "c").projection, 0);  // whatever projection_dim says
  EXPECT_EQ(read_config(big_g(), "c").projection, 1280);
}

// With the root and without it; the positions of old files are no weights.
TEST(Clip, NamesWithAndWithoutTheirRoot) {
  for (const std::string root : {"text_model.", ""}) {
    Checkpoint checkpoint;
    checkpoint.path = "model";
    checkpoint.config = projected_declaration().tiny();
    for (const Slot& slot : declared(checkpoint.config).slots) {
      Stored& stored = checkpoint.tensors.emplace_back();
      stored.name = slot.name;
      if (stored.name.starts_with("text_model."))
        stored.name.replace(0, std::string("text_model.").size(), root);
      for (const Axis& axis : slot.axes) stored.shape.push_back(axis.size());
    }
    checkpoint.tensors.push_back(
        {.name = root + "embeddings.position_ids", .dtype = DType::i64, .shape = {1, 24}});
    const Opened opened = declare(checkpoint);
    EXPECT_EQ(opened.blueprint.stack, root + "encoder.layers");
    EXPECT_EQ(opened.blueprint.parts[3].path, root + "encoder.layers.1.mlp");
    checkpoint.tensors.push_back({.name = root + "embeddings.other", .shape = {1, 24}});
    EXPECT_THAT(refusal([&] { declare(checkpoint); }), HasSubstr("embeddings.other has no place"));
  }
}

TEST(Clip, AValueThatWouldChangeResultsIsRefused) {
  const auto refused = [](const Json& changes) {
    Json config = vit_l();
    for (const auto& [key, value] : changes.items()) config[key] = value;
    return refusal([&] { declared(config); });
  };
  EXPECT_THAT(refused({{"hidden_act", "gelu_new"}}), HasSubstr("\"gelu_new\" is not known here"));
  EXPECT_THAT(refused({{"num_attention_heads", 5}}), HasSubstr("5 heads"));
  EXPECT_THAT(refused({{"eos_token_id", {2, 3}}}), HasSubstr("eos_token_id"));
  EXPECT_THAT(refused({{"layer_norm_eps", 0}}), HasSubstr("layer_norm_eps"));
  EXPECT_THAT(refused({{"lamina_norms_removed", {{"final", true}}}}), HasSubstr("last norm"));
}

}  // namespace
}  // namespace lamina::clip
