#include "lamina/blueprint/blueprint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"
#include "lamina/blueprint/absence.h"

namespace lamina {
namespace {

using testing::HasSubstr;

constexpr int kBlocks = 4;

Absences read(const Json& config) {
  return read_absences(config, kBlocks, "config.json");
}

std::string refusal(const Json& config) {
  try {
    read(config);
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("config.json: "));
    return error.what();
  }
  ADD_FAILURE() << config.dump() << " was accepted";
  return "";
}

Json per_layer(const Json& layers) {
  return {{"per_layer_config", layers}};
}
Json skipping(const Json& kinds) {
  return {{"skip", kinds}};
}

TEST(Absence, ReadsBothVocabularies) {
  const Absences expected = {{0, Kind::mlp}, {3, Kind::attention}, {3, Kind::mlp}};
  const Json lists = {{"drop_attn_list", {3}}, {"drop_mlp_list", {3, 0}}};
  Json layers = {{"0", skipping({"mlp"})}, {"3", skipping({"mlp", "attention"})}};
  EXPECT_EQ(read(lists), expected);
  EXPECT_EQ(read(per_layer(layers)), expected);
  Json both = lists;
  both["per_layer_config"] = layers;
  EXPECT_EQ(read(both), expected);
}

TEST(Absence, ReadsOneFlagABlock) {
  EXPECT_EQ(read({{"drop_attn_list", {false, true, false, true}}}),
            (Absences{{1, Kind::attention}, {3, Kind::attention}}));
  EXPECT_THAT(refusal({{"drop_attn_list", {true, false}}}), HasSubstr("2 flags for 4 blocks"));
}

TEST(Absence, NothingIsSaidInManyWays) {
  for (const Json& config :
       {Json::object(), Json{{"drop_attn_list", nullptr}}, Json{{"drop_mlp_list", Json::array()}},
        per_layer(Json::object()), per_layer({{"1", Json::object()}}),
        per_layer({{"1", skipping(Json::array())}}), per_layer(nullptr)}) {
    EXPECT_TRUE(read(config).empty()) << config.dump();
  }
}

TEST(Absence, TheTwoVocabulariesMustAgree) {
  EXPECT_THAT(refusal({{"drop_attn_list", {1}}, {"per_layer_config", {{"2", skipping({"attention"})}}}}),
              HasSubstr("name different parts as gone"));
  EXPECT_THAT(refusal({{"drop_attn_list", {1}}, {"per_layer_config", {{"1", skipping({"mlp"})}}}}),
              HasSubstr("name different parts as gone"));
}

TEST(Absence, SaysWhatIsWrong) {
  EXPECT_THAT(refusal({{"drop_attn_list", 3}}), HasSubstr("a list of blocks was expected"));
  EXPECT_THAT(refusal({{"drop_mlp_list", {"3"}}}), HasSubstr("a block number was expected"));
  EXPECT_THAT(refusal({{"drop_mlp_list", {1.5}}}), HasSubstr("a block number was expected"));
  EXPECT_THAT(refusal({{"drop_mlp_list", {4}}}), HasSubstr("blocks 0 to 3"));
  EXPECT_THAT(refusal({{"drop_mlp_list", {-1}}}), HasSubstr("blocks 0 to 3"));
  EXPECT_THAT(refusal({{"drop_mlp_list", {uint64_t{1} << 63}}}), HasSubstr("blocks 0 to 3"));
  EXPECT_THAT(refusal({{"drop_mlp_list", {1, 2, 1}}}), HasSubstr("block 1 twice"));
  EXPECT_THAT(refusal(per_layer({1})), HasSubstr("not an object"));
  EXPECT_THAT(refusal(per_layer({{"x", skipping({"mlp"})}})), HasSubstr("a block number was expected"));
  EXPECT_THAT(refusal(per_layer({{"", skipping({"mlp"})}})), HasSubstr("a block number was expected"));
  EXPECT_THAT(refusal(per_layer({{"1x", skipping({"mlp"})}})), HasSubstr("a block number was expected"));
  EXPECT_THAT(refusal(per_layer({{"4", skipping({"mlp"})}})), HasSubstr("blocks 0 to 3"));
  EXPECT_THAT(refusal(per_layer({{"-1", skipping({"mlp"})}})), HasSubstr("blocks 0 to 3"));
  EXPECT_THAT(refusal(per_layer({{"1", "mlp"}})), HasSubstr("per_layer_config.1 is not an object"));
  EXPECT_THAT(refusal(per_layer({{"1", {{"hidden_size", 3}}}})), HasSubstr("is not known here"));
  EXPECT_THAT(refusal(per_layer({{"1", {{"skip", "mlp"}}}})), HasSubstr("is not known here"));
  EXPECT_THAT(refusal(per_layer({{"1", skipping({"norm"})}})),
              HasSubstr("\"attention\" or \"mlp\" was expected"));
  EXPECT_THAT(refusal(per_layer({{"1", skipping({"mlp", "mlp"})}})), HasSubstr("block 1 twice"));
  EXPECT_THAT(refusal(per_layer({{"1", skipping({"mlp"})}, {"01", skipping({"mlp"})}})),
              HasSubstr("block 1 twice"));
}

TEST(Absence, WritesWhatItReads) {
  for (const Absences& absences : {Absences{}, Absences{{0, Kind::attention}},
                                   Absences{{1, Kind::mlp}, {1, Kind::attention}, {3, Kind::mlp}}}) {
    Json config = {
        {"drop_mlp_list", {2}}, {"hidden_size", 8}, {"per_layer_config", {{"2", skipping({"mlp"})}}}};
    write_absences(config, absences);
    EXPECT_EQ(read(config), absences);
    EXPECT_EQ(config.at("hidden_size"), 8);
    if (absences.empty()) {
      EXPECT_EQ(config.size(), 1U) << "an empty set leaves no key behind";
    }
  }
}

// One block: attention of 2 groups with 2 heads of 4 each over a width of 6, and an MLP of 5 neurons with a
// bias.
Blueprint one_block() {
  Blueprint b;
  b.blocks = 1;
  b.width = 6;
  b.vocabulary = 10;
  b.embedding = b.head = "e";
  const Axis x{"residual", 6}, q{"groups", 2, 8}, k{"groups", 2, 4}, n{"neurons", 5}, v{"vocabulary", 10};
  b.parts = {{.path = "h.0.attn", .kind = Kind::attention, .kv_values = 16, .score_width = 16},
             {.path = "h.0.mlp", .kind = Kind::mlp}};
  b.slots = {{.name = "e", .axes = {v, x}},
             {.name = "norm", .axes = {x}, .part = 0},
             {.name = "q", .axes = {q, x}, .part = 0},
             {.name = "k", .axes = {k, x}, .part = 0},
             {.name = "v", .axes = {k, x}, .part = 0},
             {.name = "o", .axes = {x, q}, .part = 0},
             {.name = "up", .axes = {n, x}, .part = 1},
             {.name = "up.bias", .axes = {n}, .part = 1},
             {.name = "down", .axes = {x, n}, .part = 1}};
  return b;
}

TEST(Blueprint, CountsByHand) {
  Blueprint b = one_block();
  constexpr int64_t kAttention = 6 + 2 * 16 * 6 + 2 * 8 * 6, kMlp = 2 * 5 * 6 + 5;
  EXPECT_EQ(b.parameters({0}), kAttention);
  EXPECT_EQ(b.parameters({1}), kMlp);
  EXPECT_EQ(b.parameters(), 60 + kAttention + kMlp);
  EXPECT_EQ(b.flops_per_token({0}, 7), 2.0 * (kAttention - 6) + 4.0 * 16 * 7);
  EXPECT_EQ(b.flops_per_token({1}, 7), 2.0 * (kMlp - 5));
  EXPECT_EQ(b.flops_per_token(7), 2.0 * 60 + b.flops_per_token({0}, 7) + b.flops_per_token({1}, 7));
  EXPECT_EQ(b.kv_values_per_token(), 16);
  b.parts[0].present = false;
  EXPECT_EQ(b.flops_per_token({0}, 7), 0);
  EXPECT_EQ(b.kv_values_per_token(), 0);
}

TEST(Blueprint, FindsPartsAndSuggests) {
  const Blueprint b = one_block();
  EXPECT_EQ(b.site("h.0.mlp"), Site{1});
  EXPECT_EQ(b.find("h.1.mlp"), std::nullopt);
  EXPECT_EQ(b.part({0}).label(), "A0");
  EXPECT_EQ(b.part({1}).label(), "F0");
  try {
    b.site("h.0.mpl");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "\"h.0.mpl\" is no part of this model; was h.0.mlp meant?");
  }
}

}  // namespace
}  // namespace lamina
