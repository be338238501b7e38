#include "lamina/family/unet_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/base/random.h"

namespace lamina::unet {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

struct Net {
  Json config;
  Blueprint blueprint;
  explicit Net(const Json& json) : config(json), blueprint(unet::blueprint(json, "config")) {}
  explicit Net(const char* name) : Net(published_config(name)) {}

  std::vector<Site> sites(const std::vector<std::string>& labels) const {
    std::vector<Site> list;
    for (const std::string& label : labels) {
      const auto it = std::ranges::find(blueprint.parts, label, &Part::short_name);
      if (it == blueprint.parts.end()) fail("{} is no part", label);
      list.push_back({static_cast<int>(it - blueprint.parts.begin())});
    }
    return list;
  }
  Expressed express(const std::vector<std::string>& labels, Wiring wiring) const {
    return unet::express(config, blueprint, sites(labels), {.wiring = wiring});
  }
  Expressed exact(const std::vector<std::string>& labels) const { return express(labels, Wiring::exact); }
  Expressed stock(const std::vector<std::string>& labels) const { return express(labels, Wiring::stock); }
};

TEST(Layout, NothingRemovedIsTheSameConfig) {
  for (const std::string& name : published_names()) {
    const Net net(name.c_str());
    const Expressed same = net.exact({});
    ASSERT_TRUE(same.possible) << name << ": " << same.why;
    EXPECT_TRUE(same.exact);
    EXPECT_EQ(same.config, net.config) << name;
    EXPECT_EQ(same.parameters, net.blueprint.parameters());
    EXPECT_EQ(same.renamed.size(), net.blueprint.slots.size());
    EXPECT_TRUE(same.zeroed.empty());
  }
}

TEST(Layout, ATransformerThatIsGoneHasDepthNoughtAndAddsNothing) {
  const Net net("sd1.5");
  const Expressed one = net.exact({"d0.a1"});
  ASSERT_TRUE(one.possible) << one.why;
  EXPECT_EQ(one.config.at("transformer_layers_per_block"), Json({Json{1, 0}, 1, 1, 1}));
  EXPECT_EQ(one.config.at("reverse_transformer_layers_per_block"), Json({1, 1, 1, 1}));
  EXPECT_EQ(one.config.at("_diffusers_version"), "0.22.0");
  EXPECT_THAT(one.zeroed, ElementsAre("down_blocks.0.attentions.1.proj_out.weight",
                                      "down_blocks.0.attentions.1.proj_out.bias"));
  // The norm and both projections stay: 2 c^2 + 4 c.
  EXPECT_EQ(net.blueprint.parameters() - one.parameters, 2'546'240 - (2 * 320 * 320 + 4 * 320));

  const Expressed side = net.exact({"d0.a0", "d0.a1"});
  ASSERT_TRUE(side.possible) << side.why;
  EXPECT_EQ(side.config.at("down_block_types").at(0), "DownBlock2D");
  EXPECT_FALSE(side.config.contains("transformer_layers_per_block"));
  EXPECT_EQ(side.parameters, 854'428'484);
}

TEST(Layout, MiddleBlocks) {
  const Net net("sd1.5");
  const Expressed none = net.exact({"mid.r0", "mid.a0", "mid.r1"});
  ASSERT_TRUE(none.possible) << none.why;
  EXPECT_TRUE(none.config.at("mid_block_type").is_null());
  EXPECT_EQ(none.parameters, 762'482'884);
  const Expressed last = net.exact({"mid.r0", "mid.a0"});
  ASSERT_TRUE(last.possible) << last.why;
  EXPECT_EQ(last.config.at("mid_block_type"), "UNetMidBlock2D");
  EXPECT_EQ(last.parameters, 793'621'444);
  EXPECT_THAT(last.renamed,
              Contains(Pair("mid_block.resnets.1.conv1.weight", "mid_block.resnets.0.conv1.weight")));
  const Expressed between = net.exact({"mid.a0"});  // the last stage has no transformer that would go too
  ASSERT_TRUE(between.possible) << between.why;
  EXPECT_EQ(between.config.at("transformer_layers_per_block"), Json({1, 1, 1, 0}));
  EXPECT_FALSE(between.config.contains("reverse_transformer_layers_per_block"));
  EXPECT_THAT(net.exact({"mid.r0"}).why, HasSubstr("mid.a0"));
}

TEST(Layout, OneNumberForTheMiddleAndTheLastStage) {
  const Net net("sdxl");
  EXPECT_THAT(net.exact({"mid.a0.b3"}).why, HasSubstr("one number for both"));
  EXPECT_THAT(net.exact({"d2.a0.b3"}).why, HasSubstr("one number for both"));
  const Expressed both = net.exact({"mid.a0.b3", "d2.a0.b7"});
  ASSERT_TRUE(both.possible) << both.why;
  EXPECT_EQ(both.config.at("transformer_layers_per_block"), Json({1, 2, Json{9, 10}}));
  EXPECT_EQ(both.config.at("reverse_transformer_layers_per_block"), Json({10, 2, 1}));
  EXPECT_THAT(both.renamed, Contains(Pair("mid_block.attentions.0.transformer_blocks.4.norm1.weight",
                                          "mid_block.attentions.0.transformer_blocks.3.norm1.weight")));
  EXPECT_EQ(net.blueprint.parameters() - both.parameters, 2 * 34'755'840);
}

TEST(Layout, AResNetOfAStageIsNeverExact) {
  const Net net("sd1.5");
  for (const char* label : {"d0.r1", "u3.r1", "d3.r0"})
    EXPECT_THAT(net.exact({label}).why, HasSubstr(label)) << label;
  EXPECT_THAT(net.stock({"d3.r1"}).why, HasSubstr("one more"));
}

std::vector<std::string> bk_base() {
  return {"d0.r1", "d0.a1", "d1.r1", "d1.a1", "d2.r1", "d2.a1", "d3.r1",
          "u0.r1", "u1.r1", "u1.a1", "u2.r1", "u2.a1", "u3.r1", "u3.a1"};
}

TEST(Layout, TheCutsOfBkSdm) {
  const Net net("sd1.5");
  std::vector<std::string> gone = bk_base();
  const Expressed base = net.stock(gone);
  ASSERT_TRUE(base.possible) << base.why;
  EXPECT_FALSE(base.exact);
  EXPECT_EQ(base.config.at("layers_per_block"), 1);
  EXPECT_EQ(base.parameters, 579'384'964);
  for (const char* module : {"up_blocks.0.resnets", "up_blocks.3.attentions"}) {
    const std::string tail = std::string(module).ends_with("resnets") ? ".norm1.weight" : ".norm.weight";
    EXPECT_THAT(base.renamed,
                Contains(Pair(fmt::format("{}.2{}", module, tail), fmt::format("{}.1{}", module, tail))));
  }
  for (const char* label : {"mid.r0", "mid.a0", "mid.r1"}) gone.emplace_back(label);
  EXPECT_EQ(net.stock(gone).parameters, 482'346'884);
  for (const char* label : {"d3.r0", "u0.r0", "u0.r2"}) gone.emplace_back(label);
  const Expressed tiny = net.stock(gone);
  ASSERT_TRUE(tiny.possible) << tiny.why;
  EXPECT_EQ(tiny.parameters, 323'384'964);
  Json expected = published_config("bk-tiny");
  EXPECT_EQ(tiny.config, expected);
  EXPECT_THAT(tiny.renamed,
              Contains(Pair("up_blocks.2.upsamplers.0.conv.weight", "up_blocks.1.upsamplers.0.conv.weight")));
}

std::vector<std::string> innermost_stage_of_sd() {
  return {"d3.r0", "d3.r1", "u0.r0", "u0.r1", "u0.r2"};
}

TEST(Layout, TheMiddleKeepsItsHeadsWhereTheLastStageGoes) {
  const Net same("sd1.5");
  const Expressed three = same.stock(innermost_stage_of_sd());
  ASSERT_TRUE(three.possible) << three.why;
  EXPECT_EQ(three.config.at("block_out_channels"), Json({320, 640, 1280}));
  // The middle block has the heads of the last stage: with that one gone, of another.
  Json config = published_config("sd1.5");
  config["attention_head_dim"] = {8, 8, 8, 16};
  const Net net(config);
  EXPECT_THAT(net.stock(innermost_stage_of_sd()).why,
              HasSubstr("mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight would come to a place "
                        "with other heads"));
  std::vector<std::string> gone = innermost_stage_of_sd();
  gone.emplace_back("mid.a0");
  gone.emplace_back("mid.r0");
  EXPECT_TRUE(net.stock(gone).possible) << net.stock(gone).why;
}

TEST(Layout, AStageWithoutLayersStandsBetweenEqualWidths) {
  const Net net("sd1.5");
  EXPECT_THAT(net.stock({"d1.r0", "d1.a0", "d1.r1", "d1.a1", "u2.r0", "u2.a0", "u2.r1", "u2.a1"}).why,
              HasSubstr("channels change from 320 to 640"));
  const Expressed last = net.stock({"d3.r0", "d3.r1", "u0.r0", "u0.r1"});
  ASSERT_TRUE(last.possible) << last.why;
  EXPECT_EQ(last.config.at("layers_per_block"), Json({2, 2, 2, 0}));
}

TEST(Layout, AnUpLayerStandsOnlyWhereItsWidthIs) {
  const Net net("sd1.5");
  // u2 may lose r1 alone, u1 r0 or r1, u3 r1 or r2, u0 any.
  const std::vector<std::pair<std::string, std::vector<int>>> stages = {
      {"0", {0, 1, 2}}, {"1", {0, 1}}, {"2", {1}}, {"3", {1, 2}}};
  for (const auto& [stage, allowed] : stages) {
    const std::string down = std::to_string(3 - std::stoi(stage));
    for (int j = 0; j < 3; ++j) {
      std::vector<std::string> gone = {"d" + down + ".r1", "u" + stage + ".r" + std::to_string(j)};
      if (down != "3")
        gone.push_back("d" + down + ".a1"), gone.push_back("u" + stage + ".a" + std::to_string(j));
      const bool yes = std::ranges::find(allowed, j) != allowed.end();
      EXPECT_EQ(net.stock(gone).possible, yes) << stage << " " << j << " " << net.stock(gone).why;
    }
  }
}

TEST(Layout, TransformersFindAResNetOfTheirStage) {
  const Net net("sd1.5");
  // u2.a1 keeps its place behind r0, which loses its own.
  const Expressed moved = net.stock({"d1.r1", "d1.a1", "u2.r1", "u2.a0"});
  ASSERT_TRUE(moved.possible) << moved.why;
  EXPECT_THAT(moved.renamed,
              Contains(Pair("up_blocks.2.attentions.1.norm.weight", "up_blocks.2.attentions.0.norm.weight")));
  EXPECT_THAT(net.stock({"d1.r1", "d1.a1", "u2.r1"}).why, HasSubstr("without a ResNet"));
}

size_t at_random(size_t count, SplitMix& random) {
  return static_cast<size_t>(random.below(static_cast<int64_t>(count)));
}

// Any subset of units, within the bounds of its pick.
std::vector<Site> drawn(const std::vector<Group>& groups, SplitMix& random) {
  std::vector<Site> removed;
  for (const Group& group : groups) {
    const Choice& choice = group.choices[at_random(group.choices.size(), random)];
    removed.insert(removed.end(), choice.removed.begin(), choice.removed.end());
    for (const Pick& pick : choice.picks) {
      std::vector<size_t> order(pick.units.size());
      std::iota(order.begin(), order.end(), size_t{0});
      for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[at_random(i, random)]);
      const int64_t count = pick.least + random.below(pick.most - pick.least + 1);
      for (int64_t i = 0; i < count; ++i) {
        const Unit& unit = pick.units[order[static_cast<size_t>(i)]];
        removed.insert(removed.end(), unit.sites.begin(), unit.sites.end());
      }
    }
  }
  return removed;
}

TEST(Layout, EveryChoiceIsExpressible) {
  SplitMix random(7);
  for (const char* name : {"sd1.5", "sdxl", "bk-base", "ssd-1b"}) {
    const Net net(name);
    for (Wiring wiring : {Wiring::exact, Wiring::stock}) {
      const std::vector<Group> groups = choices(net.config, net.blueprint, {.wiring = wiring});
      EXPECT_TRUE(groups[0].choices[0].removed.empty());
      for (int i = 0; i < 40; ++i) {
        const std::vector<Site> removed = drawn(groups, random);
        const Expressed now = express(net.config, net.blueprint, removed, {.wiring = wiring});
        ASSERT_TRUE(now.possible) << name << ": " << now.why;
        if (wiring == Wiring::exact) {
          EXPECT_TRUE(now.exact);
        }
      }
      // What leaves with a choice is counted, of one group at a time.
      for (const Group& group : groups) {
        for (const Choice& choice : group.choices) {
          if (!choice.picks.empty() && choice.picks[0].least > 0) continue;
          const Expressed now = express(net.config, net.blueprint, choice.removed, {.wiring = wiring});
          ASSERT_TRUE(now.possible) << now.why;
          EXPECT_EQ(net.blueprint.parameters() - now.parameters, choice.parameters) << name << group.name;
        }
      }
    }
  }
}

TEST(Layout, NamedLayoutsAreReachedToTheParameter) {
  SplitMix random(3);
  const std::vector<std::tuple<const char*, const char*, int64_t>> known = {
      {"sd1.5", "bk-base", 579'384'964},  {"sd1.5", "bk-small", 482'346'884},
      {"sd1.5", "bk-tiny", 323'384'964},  {"sdxl", "ssd-1b", 1'331'334'404},
      {"sdxl", "vega", 745'225'604},      {"sdxl", "koala-1b", 1'161'184'324},
      {"sdxl", "koala-700m", 782'822'724}};
  for (const auto& [parent, layout, parameters] : known) {
    const Net net(parent);
    const std::vector<Group> groups = choices(net.config, net.blueprint, {.layout = layout});
    for (int i = 0; i < 10; ++i) {
      const Expressed now =
          express(net.config, net.blueprint, drawn(groups, random), {.wiring = Wiring::stock});
      ASSERT_TRUE(now.possible) << layout << ": " << now.why;
      EXPECT_EQ(now.parameters, parameters) << layout;
      Json expected = published_config(layout);
      if (expected.contains("reverse_transformer_layers_per_block"))
        expected["_diffusers_version"] = "0.22.0";
      Config a = read_config(now.config, "ours"), b = read_config(expected, "published");
      EXPECT_EQ(blueprint(now.config, "ours").slots.size(), blueprint(expected, "published").slots.size());
      EXPECT_EQ(a.layers, b.layers);
      EXPECT_EQ(a.down_depths, b.down_depths) << layout;
    }
  }
  const Net net("sd1.5");
  const auto refusal = [&](const char* layout) {
    try {
      choices(net.config, net.blueprint, {.layout = layout});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("was accepted");
  };
  EXPECT_THAT(refusal("ssd-1b"), HasSubstr("down_blocks.1"));
  EXPECT_THAT(refusal("small-sd"), HasSubstr("bk-base"));
}

TEST(Layout, TheNearestPlanIsNamed) {
  const Net net("sd1.5");
  const std::vector<Site> asked = net.sites({"d0.r1", "d0.a1", "u3.r1", "u3.a1", "u2.r0"});
  const Near exact = nearest(net.config, net.blueprint, asked, {});
  EXPECT_TRUE(exact.expressed.possible);
  EXPECT_EQ(exact.removed, net.sites({"d0.a1", "u3.a1"}));
  EXPECT_EQ(exact.returned, net.sites({"d0.r1", "u3.r1", "u2.r0"}));
  const Near stock = nearest(net.config, net.blueprint, asked, {.wiring = Wiring::stock});
  EXPECT_TRUE(stock.expressed.possible);
  EXPECT_EQ(stock.removed, net.sites({"d0.r1", "d0.a1", "u3.r1", "u3.a1"}));
  EXPECT_TRUE(stock.added.empty());
  EXPECT_EQ(stock.returned, net.sites({"u2.r0"}));
}

}  // namespace
}  // namespace lamina::unet
