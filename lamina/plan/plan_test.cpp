#include "lamina/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Four blocks, one weight a part.
Blueprint small_blueprint() {
  Blueprint b;
  b.blocks = 4;
  b.stack = "h";
  for (int block = 0; block < b.blocks; ++block) {
    for (Kind kind : {Kind::attention, Kind::mlp}) {
      b.parts.push_back(
          {.path = fmt::format("h.{}.{}", block, kind_name(kind)), .kind = kind, .block = block});
      const int part = static_cast<int>(b.parts.size()) - 1;
      b.slots.push_back({.name = b.parts.back().path + ".in", .axes = {{"x", 2}}, .part = part});
      b.slots.push_back(
          {.name = b.parts.back().path + ".out", .axes = {{"x", 2}}, .part = part, .silences = true});
    }
  }
  return b;
}

Checkpoint small_checkpoint(const Blueprint& blueprint) {
  Checkpoint c;
  c.config = {{"num_hidden_layers", blueprint.blocks}};
  for (const Slot& slot : blueprint.slots) c.tensors.push_back({.name = slot.name, .shape = {2}});
  return c;
}

std::vector<std::string> labels(std::string_view list, const Blueprint& blueprint = small_blueprint()) {
  std::vector<std::string> all;
  for (Site site : removed_sites(plan_from_list(list, blueprint), blueprint))
    all.push_back(blueprint.part(site).label());
  return all;
}

template <class Work>
std::string refusal(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "was accepted";
  return "";
}

std::string refusal_of_list(std::string_view list) {
  return refusal([&] { labels(list); });
}

std::string refusal_of_json(const Json& json) {
  return refusal([&] { plan_from_json(json, "p.json"); });
}

TEST(PlanList, NamesBlocksHalvesAndRanges) {
  EXPECT_THAT(labels("3"), ElementsAre("A3", "F3"));
  EXPECT_THAT(labels("0,2-3"), ElementsAre("A0", "F0", "A2", "F2", "A3", "F3"));
  EXPECT_THAT(labels("attention:1-2,mlp:0"), ElementsAre("A1", "A2", "F0"));
  EXPECT_THAT(labels(" mlp:3 , 1"), ElementsAre("F3", "A1", "F1"));
  EXPECT_THAT(labels("attention:0-3"), ElementsAre("A0", "A1", "A2", "A3"));
  EXPECT_THAT(labels("2-2"), ElementsAre("A2", "F2"));
}

TEST(PlanList, SaysWhatIsWrong) {
  EXPECT_EQ(refusal_of_list("3-1"), "\"3-1\" in the list runs backwards; write 1-3");
  EXPECT_THAT(refusal_of_list("4"), HasSubstr("blocks 0 to 3"));
  EXPECT_THAT(refusal_of_list("0-999"), HasSubstr("blocks 0 to 3"));
  EXPECT_THAT(refusal_of_list("99999999999999999999"), HasSubstr("99999999999999999999"));
  for (const char* list :
       {"", ",", "1,", ",1", "a", "1-", "-1", "--1", "1-2-3", "1.5", "attention:", "0x1", "1 2", "+1"}) {
    EXPECT_THAT(refusal_of_list(list), HasSubstr("is no block or range of blocks")) << list;
  }
  EXPECT_THAT(refusal_of_list("ffn:1"), HasSubstr("attention and mlp are"));
  EXPECT_THAT(refusal_of_list("attention:mlp:1"), HasSubstr("is no block"));
}

TEST(PlanList, RefusesRepetitions) {
  for (const char* list : {"1,1", "0-2,2", "1,mlp:1", "attention:1,attention:0-3"})
    EXPECT_THAT(refusal_of_list(list), HasSubstr("twice")) << list;
}

TEST(PlanList, LeavesAtLeastOnePart) {
  EXPECT_THAT(refusal_of_list("0-3"), HasSubstr("keep at least one"));
  EXPECT_THAT(refusal_of_list("attention:0-3,mlp:0-3"), HasSubstr("keep at least one"));
  EXPECT_EQ(labels("attention:0-3,mlp:0-2").size(), 7U);
}

TEST(PlanList, KnowsWhatIsGoneAlready) {
  Blueprint blueprint = small_blueprint();
  blueprint.parts[2].present = false;  // A1
  EXPECT_THAT(labels("1", blueprint), ElementsAre("F1"));
  EXPECT_THAT(refusal([&] { labels("attention:1", blueprint); }), HasSubstr("already gone"));
  blueprint.parts[3].present = false;
  EXPECT_THAT(refusal([&] { labels("1", blueprint); }), HasSubstr("gone"));
}

TEST(PlanCheck, NamesTheNearestPart) {
  EXPECT_THAT(refusal([] { check_plan({.edits = {Cut{"h.1.attentoin", {}}}}, small_blueprint()); }),
              HasSubstr("was h.1.attention meant?"));
  EXPECT_THAT(
      refusal([] { check_plan({.edits = {Cut{"h.1.mlp", {}}, Silence{"h.1.mlp"}}}, small_blueprint()); }),
      HasSubstr("twice"));
}

TEST(PlanJson, KeepsEditsScoresAndProvenance) {
  const Json json = parse_json(R"({"lamina_plan": 1, "method": "finercut",
      "edits": [{"edit": "cut", "site": "h.1.mlp", "score": 0.1}, {"edit": "silence", "site": "h.0.mlp"}, {"edit": "cut", "site": "h.2.mlp"}]})",
                               "p.json");
  const Plan plan = plan_from_json(json, "p.json");
  ASSERT_EQ(plan.edits.size(), 3U);
  EXPECT_EQ(std::get<Cut>(plan.edits[0]).score, 0.1);
  EXPECT_EQ(std::get<Silence>(plan.edits[1]).site, "h.0.mlp");
  EXPECT_EQ(std::get<Cut>(plan.edits[2]).score, std::nullopt);
  EXPECT_EQ(plan.provenance, Json({{"method", "finercut"}}));
  EXPECT_EQ(to_json(plan), json);
}

TEST(PlanJson, SaysWhatIsWrong) {
  EXPECT_THAT(refusal_of_json(Json::array()), HasSubstr("no list \"edits\""));
  EXPECT_THAT(refusal_of_json({{"edits", 3}}), HasSubstr("no list \"edits\""));
  EXPECT_THAT(refusal_of_json({{"lamina_plan", 2}, {"edits", Json::array()}}), HasSubstr("newer"));
  EXPECT_THAT(refusal_of_json({{"edits", {1}}}), HasSubstr("p.json: edit 1"));
  EXPECT_THAT(refusal_of_json({{"edits", {{{"edit", "cut"}}}}}), HasSubstr("site"));
  EXPECT_THAT(refusal_of_json({{"edits", {{{"site", "h.0.mlp"}}}}}), HasSubstr("edit"));
  EXPECT_THAT(refusal_of_json({{"edits", {{{"edit", "fold"}, {"site", "h.0.mlp"}}}}}),
              HasSubstr("cut and silence are"));
  EXPECT_THAT(refusal_of_json({{"edits", {{{"edit", "cut"}, {"site", "h.0.mlp"}, {"scroe", 1}}}}}),
              HasSubstr("\"scroe\""));
  EXPECT_THAT(refusal_of_json({{"edits", {{{"edit", "silence"}, {"site", "h.0.mlp"}, {"score", 1}}}}}),
              HasSubstr("\"score\""));
}

TEST(PlanApply, CutsTensorsAndDeclaresTheAbsence) {
  const Blueprint blueprint = small_blueprint();
  const Checkpoint before = small_checkpoint(blueprint);
  const Checkpoint after = apply(before, blueprint, plan_from_list("2,mlp:0", blueprint));
  EXPECT_EQ(after.tensors.size(), before.tensors.size() - 6);
  EXPECT_EQ(after.find("h.2.attention.in"), nullptr);
  EXPECT_EQ(after.find("h.0.mlp.out"), nullptr);
  EXPECT_NE(after.find("h.0.attention.out"), nullptr);
  EXPECT_EQ(after.config.at("drop_attn_list"), Json({2}));
  EXPECT_EQ(after.config.at("drop_mlp_list"), Json({0, 2}));
  EXPECT_EQ(after.config.at("per_layer_config").dump(),
            R"({"0":{"skip":["mlp"]},"2":{"skip":["attention","mlp"]}})");
  EXPECT_EQ(before.tensors.size(), blueprint.slots.size()) << "apply works on a copy";
}

TEST(PlanApply, SilencesOnlyWhatThePartWritesWith) {
  const Blueprint blueprint = small_blueprint();
  const Plan plan = plan_from_list("mlp:1", blueprint);
  const Checkpoint after = apply(small_checkpoint(blueprint), blueprint, silenced(plan));
  for (const Stored& tensor : after.tensors)
    EXPECT_EQ(tensor.zero, tensor.name == "h.1.mlp.out") << tensor.name;
  EXPECT_EQ(after.config, small_checkpoint(blueprint).config) << "nothing is absent";
}

TEST(PlanApply, AnEmptyPlanChangesNothing) {
  const Blueprint blueprint = small_blueprint();
  EXPECT_EQ(apply(small_checkpoint(blueprint), blueprint, {}).config, small_checkpoint(blueprint).config);
}

}  // namespace
}  // namespace lamina
