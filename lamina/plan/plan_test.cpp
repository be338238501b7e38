#include "lamina/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/checkpoint/numbers.h"
#include "tests/help.h"

namespace lamina {
namespace {

using tests::refusal;

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
  EXPECT_THAT(
      refusal_of_json({{"edits", {{{"edit", "fold"}, {"site", "h.0.mlp"}}}}}),
      HasSubstr("cut, silence, clamp, replace, freeze_norm, unmask, regional, inherit and blend are"));
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

// One block whose feed-forward has 3 neurons of width 2, with or without a gate and biases; `turned`: weights
// stand as [in, out].
struct Neural {
  bool gate = true, biases = false, turned = false;
  std::string bias_key = {};
};

Blueprint neural_blueprint(const Neural& options, bool biases) {
  Blueprint b;
  b.family = "small";
  b.blocks = 1;
  b.width = 2;
  b.stack = "h";
  b.embedding = "e";
  const Axis residual{"r", 2}, neurons{"h.0.n", 3};
  b.slots.push_back({.name = "e", .axes = {{"v", 5}, residual}});
  b.parts.push_back({.path = "h.0.attn", .kind = Kind::attention, .block = 0});
  b.parts.push_back({.path = "h.0.mlp", .kind = Kind::mlp, .block = 0});
  b.parts[1].neurons = Neurons{.count = 3,
                               .gate = options.gate ? "h.0.gate" : "",
                               .up = "h.0.up",
                               .down = "h.0.down",
                               .bias_key = options.bias_key};
  for (const std::string name : {"h.0.gate", "h.0.up", "h.0.down"}) {
    if (name == "h.0.gate" && !options.gate) continue;
    const bool writes = name == "h.0.down";
    std::vector<Axis> axes = {writes ? residual : neurons, writes ? neurons : residual};
    const Axis out = axes[0];
    if (options.turned) std::swap(axes[0], axes[1]);
    b.slots.push_back({.name = name + ".weight", .axes = axes, .part = 1, .silences = writes});
    if (biases) b.slots.push_back({.name = name + ".bias", .axes = {out}, .part = 1, .silences = writes});
  }
  return b;
}

void put(Stored& tensor, const std::vector<float>& values, DType dtype = DType::f32) {
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(block_bytes(dtype)));
  encode_f32(values, dtype, bytes);
  tensor.dtype = dtype;
  own(tensor, std::move(bytes));
}

std::vector<float> numbers_of(const Checkpoint& checkpoint, const std::string& name) {
  const Stored* tensor = checkpoint.find(name);
  if (!tensor) return {};
  const std::vector<std::byte> bytes = bytes_as(*tensor, DType::f32);
  std::vector<float> values(tensor->elements());
  decode_f32(DType::f32, bytes, values);
  return values;
}

// Every weight 1, 2, 3, ... in the order of [out, in], biases 10, 20, 30.
Checkpoint neural_checkpoint(const Neural& options, DType dtype = DType::f32) {
  Checkpoint c;
  c.config = {{"model_type", "small"}, {"architectures", {"SmallModel"}}, {"num_hidden_layers", 1}};
  for (const Slot& slot : neural_blueprint(options, options.biases).slots) {
    Stored tensor{.name = slot.name, .shard = 0};
    for (const Axis& axis : slot.axes) tensor.shape.push_back(axis.size());
    std::vector<float> values;
    for (size_t i = 0; i < tensor.elements(); ++i)
      values.push_back(static_cast<float>(i + 1) * (slot.axes.size() == 1 ? 10 : 1));
    if (options.turned && slot.axes.size() == 2 && slot.name != "e") {
      const auto rows = static_cast<size_t>(tensor.shape[0]), columns = static_cast<size_t>(tensor.shape[1]);
      for (size_t r = 0; r < rows; ++r) {
        for (size_t k = 0; k < columns; ++k) values[r * columns + k] = static_cast<float>(k * rows + r + 1);
      }
    }
    put(tensor, values, dtype);
    c.tensors.push_back(tensor);
  }
  return c;
}

Checkpoint edited(const Neural& options, const Edit& edit, DType dtype = DType::f32) {
  return apply(neural_checkpoint(options, dtype), neural_blueprint(options, options.biases),
               {.edits = {edit}});
}

Clamp clamp(NeuronPlace place, ClampMode mode, double value, int64_t neuron = 1) {
  return {.site = "h.0.mlp", .neuron = neuron, .place = place, .mode = mode, .value = value};
}

TEST(PlanNeurons, ScalesARowOrAColumnAndNothingElse) {
  const Neural plain;
  const Checkpoint post = edited(plain, clamp(NeuronPlace::post, ClampMode::scale, -2));
  EXPECT_THAT(numbers_of(post, "h.0.down.weight"), ElementsAre(1, -4, 3, 4, -10, 6));
  EXPECT_THAT(numbers_of(post, "h.0.up.weight"), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(post.tensors.size(), 4U);
  EXPECT_EQ(post.config, neural_checkpoint(plain).config);
  const Checkpoint linear = edited(plain, clamp(NeuronPlace::linear, ClampMode::scale, 0.5));
  EXPECT_THAT(numbers_of(linear, "h.0.up.weight"), ElementsAre(1, 2, 1.5, 2, 5, 6));
  const Checkpoint gate = edited({.biases = true}, clamp(NeuronPlace::gate, ClampMode::scale, 2));
  EXPECT_THAT(numbers_of(gate, "h.0.gate.weight"), ElementsAre(1, 2, 6, 8, 5, 6));
  EXPECT_THAT(numbers_of(gate, "h.0.gate.bias"), ElementsAre(10, 40, 30));
}

TEST(PlanNeurons, TheAxisSaysWhichWayAWeightLies) {
  const Neural turned{.gate = false, .biases = true, .turned = true};
  const Checkpoint post = edited(turned, clamp(NeuronPlace::post, ClampMode::set, 2));
  EXPECT_THAT(numbers_of(post, "h.0.down.weight"), ElementsAre(1, 4, 0, 0, 3, 6));
  EXPECT_THAT(numbers_of(post, "h.0.down.bias"), ElementsAre(10 + 2 * 2, 20 + 2 * 5));
  const Checkpoint linear = edited(turned, clamp(NeuronPlace::linear, ClampMode::set, 7));
  EXPECT_THAT(numbers_of(linear, "h.0.up.weight"), ElementsAre(1, 0, 5, 2, 0, 6));
  EXPECT_THAT(numbers_of(linear, "h.0.up.bias"), ElementsAre(10, 7, 30));
  const Checkpoint other =
      edited(turned, Replace{.site = "h.0.mlp", .neuron = 2, .vector = NeuronVector::up, .values = {8, 9}});
  EXPECT_THAT(numbers_of(other, "h.0.up.weight"), ElementsAre(1, 3, 8, 2, 4, 9));
}

TEST(PlanNeurons, ZeroNeedsNoBias) {
  for (NeuronPlace place : {NeuronPlace::gate, NeuronPlace::linear, NeuronPlace::post}) {
    const Clamp zero = clamp(place, ClampMode::set, 0);
    EXPECT_TRUE(beyond_weights({.edits = {zero}}, neural_blueprint({}, false)).empty());
    const Checkpoint after = edited({}, zero);
    EXPECT_EQ(after.tensors.size(), 4U);
    EXPECT_EQ(after.config, neural_checkpoint({}).config);
  }
  EXPECT_THAT(
      numbers_of(edited({.biases = true}, clamp(NeuronPlace::linear, ClampMode::set, 0)), "h.0.up.bias"),
      ElementsAre(10, 0, 30));
}

TEST(PlanNeurons, BiasesAreMadeWhereTheArchitectureHasThem) {
  const Neural able{.bias_key = "mlp_bias"};
  const Checkpoint after = edited(able, clamp(NeuronPlace::post, ClampMode::add, 3), DType::bf16);
  EXPECT_EQ(after.config.at("mlp_bias"), true);
  EXPECT_THAT(numbers_of(after, "h.0.down.bias"), ElementsAre(6, 15));
  EXPECT_THAT(numbers_of(after, "h.0.gate.bias"), ElementsAre(0, 0, 0));
  EXPECT_THAT(numbers_of(after, "h.0.up.bias"), ElementsAre(0, 0, 0));
  EXPECT_THAT(numbers_of(after, "h.0.down.weight"), ElementsAre(1, 2, 3, 4, 5, 6));
  for (const Stored& tensor : after.tensors) EXPECT_EQ(tensor.dtype, DType::bf16) << tensor.name;
}

TEST(PlanNeurons, WhatNoWeightsSayGoesIntoTheConfig) {
  const Neural plain;
  const Checkpoint after = edited(plain, clamp(NeuronPlace::post, ClampMode::set, 3));
  EXPECT_EQ(after.config.at("model_type"), "lamina_small");
  EXPECT_EQ(after.config.at("architectures"), Json({"LaminaSmallModel"}));
  EXPECT_EQ(after.config.at("lamina_clamps").dump(),
            R"([{"site":"h.0.mlp","neuron":1,"place":"post","mode":"set","value":3.0}])");
  const Blueprint blueprint = neural_blueprint(plain, false);
  EXPECT_THAT(clamps_of(after.config, blueprint, "c"),
              ElementsAre(clamp(NeuronPlace::post, ClampMode::set, 3)));
  // A second edit: what stands behind the place is written, what stands before it must follow the clamp.
  const Checkpoint scaled =
      apply(after, blueprint, {.edits = {clamp(NeuronPlace::post, ClampMode::scale, 2)}});
  EXPECT_EQ(scaled.config, after.config);
  const Checkpoint held = edited(plain, clamp(NeuronPlace::linear, ClampMode::max, 3));
  const Checkpoint twice =
      apply(held, blueprint, {.edits = {clamp(NeuronPlace::linear, ClampMode::scale, 2)}});
  EXPECT_EQ(twice.config.at("lamina_clamps").size(), 2U);
  EXPECT_EQ(twice.config.at("model_type"), "lamina_small");
  // Without the part there is nothing to hold.
  const Checkpoint silent = apply(twice, blueprint, {.edits = {Silence{"h.0.mlp"}}});
  EXPECT_EQ(silent.config, neural_checkpoint(plain).config);
}

TEST(PlanNeurons, ClampsOfAConfigAreChecked) {
  const Blueprint blueprint = neural_blueprint({}, false);
  const auto refused = [&](const Json& list) {
    return refusal([&] { clamps_of({{"lamina_clamps", list}}, blueprint, "c.json"); });
  };
  const Json good = {{"site", "h.0.mlp"}, {"neuron", 1}, {"place", "post"}, {"mode", "max"}, {"value", 2.5}};
  EXPECT_EQ(clamps_of({{"lamina_clamps", {good}}}, blueprint, "c").size(), 1U);
  EXPECT_THAT(refused(3), HasSubstr("where a list was expected"));
  EXPECT_THAT(refused(Json::array({3})), HasSubstr("c.json: entry 1 of lamina_clamps is"));
  for (const auto& [key, value, said] :
       std::vector<std::tuple<std::string, Json, std::string>>{{"site", "h.0.attn", "attention"},
                                                               {"site", "h.1.mlp", "no part"},
                                                               {"neuron", 3, "0 to 2"},
                                                               {"neuron", -1, "neuron"},
                                                               {"neuron", 1.5, "neuron"},
                                                               {"place", "hook_post", "no place"},
                                                               {"mode", "hold", "no mode"},
                                                               {"value", nullptr, "missing"},
                                                               {"value", 1e300, "no finite number"},
                                                               {"value", "1", "number"},
                                                               {"edit", "clamp", "not known"}}) {
    Json bad = good;
    bad[key] = value;
    EXPECT_THAT(refused(Json::array({bad})), HasSubstr(said)) << bad;
  }
}

TEST(PlanNeurons, ANumberTooLargeForItsTypeIsRefused) {
  EXPECT_THAT(refusal([] { edited({}, clamp(NeuronPlace::post, ClampMode::scale, 60000), DType::f16); }),
              HasSubstr("h.0.down.weight: 120000 is too large for float16"));
}

TEST(PlanNeurons, ChecksSayWhatIsWrong) {
  const Neural ungated{.gate = false, .biases = true};
  const auto refused = [&](std::vector<Edit> edits) {
    return refusal([&] { check_plan({.edits = std::move(edits)}, neural_blueprint(ungated, true)); });
  };
  const Clamp good = clamp(NeuronPlace::post, ClampMode::set, 1);
  const auto with = [&](auto change) {
    Clamp changed = good;
    change(changed);
    return changed;
  };
  EXPECT_THAT(refused({with([](Clamp& c) { c.site = "h.0.attn"; })}),
              HasSubstr("is attention and has none; feed-forwards do, such as h.0.mlp"));
  EXPECT_THAT(refused({with([](Clamp& c) { c.neuron = 3; })}), HasSubstr("0 to 2"));
  EXPECT_THAT(refused({with([](Clamp& c) { c.neuron = -1; })}), HasSubstr("0 to 2"));
  EXPECT_THAT(refused({with([](Clamp& c) { c.place = NeuronPlace::gate; })}),
              HasSubstr("linear and post are"));
  EXPECT_THAT(refused({with([](Clamp& c) { c.value = std::nan(""); })}), HasSubstr("finite"));
  EXPECT_THAT(refused({good, with([](Clamp& c) { c.mode = ClampMode::add; })}),
              HasSubstr("clamps neuron 1 of h.0.mlp twice at post"));
  EXPECT_THAT(refused({good, Cut{"h.0.mlp", {}}}), HasSubstr("takes h.0.mlp out and edits its neurons"));
  EXPECT_THAT(refused({Silence{"h.0.mlp"}, good}), HasSubstr("takes h.0.mlp out and edits its neurons"));
  const Replace row{.site = "h.0.mlp", .neuron = 0, .vector = NeuronVector::up, .values = {1, 2}};
  EXPECT_THAT(refused({row, row}), HasSubstr("replaces the up of neuron 0 of h.0.mlp twice"));
  EXPECT_THAT(refused({Replace{.site = "h.0.mlp", .vector = NeuronVector::up, .values = {1}}}),
              HasSubstr("by 1 values where 2 are needed"));
  EXPECT_THAT(refused({Replace{.site = "h.0.mlp", .vector = NeuronVector::up, .values = {1, INFINITY}}}),
              HasSubstr("not all finite"));
  EXPECT_THAT(refused({Replace{.site = "h.0.mlp", .vector = NeuronVector::gate, .values = {1, 2}}}),
              HasSubstr("up and down are there"));
  EXPECT_THAT(refused({Replace{.site = "h.0.attn", .values = {1, 2}}}), HasSubstr("is attention"));
  check_plan({.edits = {good, with([](Clamp& c) { c.place = NeuronPlace::linear; }),
                        with([](Clamp& c) { c.neuron = 0; }), row, Cut{"h.0.attn", {}}}},
             neural_blueprint(ungated, true));
}

TEST(PlanJson, ReadsClampsAndReplacementsStrictly) {
  const Json clamp = {{"edit", "clamp"},   {"site", "h.0.mlp"},   {"neuron", 5},
                      {"place", "linear"}, {"mode", "if-active"}, {"value", -0.1}};
  const Json replace = {
      {"edit", "replace"}, {"site", "h.0.mlp"}, {"neuron", 2}, {"vector", "down"}, {"values", {0.1f, -2.0f}}};
  const Json document = {{"lamina_plan", 1}, {"edits", {clamp, replace}}};
  EXPECT_EQ(to_json(plan_from_json(document, "p")).dump(), document.dump());
  for (const auto& [json, key, value] :
       std::vector<std::tuple<Json, std::string, Json>>{{clamp, "neuron", -1},
                                                        {clamp, "neuron", "5"},
                                                        {clamp, "place", "down"},
                                                        {clamp, "mode", "if_active"},
                                                        {clamp, "value", nullptr},
                                                        {clamp, "score", 1},
                                                        {clamp, "vector", "up"},
                                                        {replace, "vector", "post"},
                                                        {replace, "values", 3},
                                                        {replace, "values", nullptr},
                                                        {replace, "values", {1, "2"}},
                                                        {replace, "value", 1},
                                                        {clamp, "site", nullptr},
                                                        {replace, "neuron", nullptr}}) {
    Json bad = json;
    bad[key] = value;
    EXPECT_THAT(refusal_of_json({{"edits", Json::array({bad})}}), HasSubstr("p.json: edit 1")) << bad;
  }
}

TEST(PlanSilenced, LeavesOtherEditsAsTheyAre) {
  const Plan plan = silenced({.edits = {Cut{"h.0.attn", 2.0}, clamp(NeuronPlace::post, ClampMode::max, 1)}});
  EXPECT_TRUE(std::holds_alternative<Silence>(plan.edits[0]));
  EXPECT_TRUE(std::holds_alternative<Clamp>(plan.edits[1]));
}

// One norm in front of two maps, [in, out] and [out, in], and a tied head; two numbers wide.
struct Normed {
  Blueprint blueprint;
  Checkpoint checkpoint;

  explicit Normed(bool centred) {
    Blueprint& b = blueprint;
    b.blocks = 1;
    b.stack = "h";
    b.width = 2;
    b.vocabulary = 3;
    b.embedding = b.head = "embed.weight";
    b.final_norm = "last";
    b.centred_norms = centred;
    b.parts.push_back({.path = "h.0.mlp", .kind = Kind::mlp, .block = 0});
    b.parts.back().norm = FrontNorm{
        .path = "h.0.norm", .readings = {{Reader::mlp, "h.0.in", 0, 3}, {Reader::mlp, "h.0.up", 0, 1}}};
    const Axis residual{"residual", 2}, vocabulary{"vocabulary", 3}, inner{"inner", 3}, one{"one", 1};
    b.slots = {{.name = "embed.weight", .axes = {vocabulary, residual}},
               {.name = "h.0.norm.weight", .axes = {residual}, .part = 0},
               {.name = "h.0.in.weight", .axes = {residual, inner}, .part = 0},
               {.name = "h.0.up.weight", .axes = {one, residual}, .part = 0},
               {.name = "last.weight", .axes = {residual}}};
    checkpoint.config = {{"num_hidden_layers", 1}, {"tie_word_embeddings", true}, {"model_type", "small"}};
    add("embed.weight", {3, 2}, {1, 2, 3, 4, 5, 6});
    add("h.0.norm.weight", {2}, {2, 4});
    add("h.0.in.weight", {2, 3}, {1, 2, 3, 4, 5, 6});
    add("h.0.up.weight", {1, 2}, {1, 2});
    add("last.weight", {2}, {1, 3});
  }
  void add(const std::string& name, const Shape& shape, const std::vector<float>& values) {
    Stored stored{.name = name, .dtype = DType::f32, .shape = shape};
    const Bytes bytes = std::as_bytes(std::span(values));
    own(stored, {bytes.begin(), bytes.end()});
    checkpoint.tensors.push_back(std::move(stored));
  }
};

std::vector<double> all_of(const Checkpoint& checkpoint, std::string_view name) {
  const Stored* stored = checkpoint.find(name);
  if (!stored) return {};
  return Numbers(*stored).run(0, static_cast<int64_t>(stored->elements()));
}

const Plan kFrozen{.edits = {FreezeNorm{"h.0.mlp", Reader::mlp, 2}, FreezeNorm{"last", Reader::head, 0.5}}};

TEST(PlanFold, MultipliesByTheGainAndDividesByTheScale) {
  const Normed model(false);
  const Checkpoint after = apply(model.checkpoint, model.blueprint, kFrozen);
  EXPECT_THAT(all_of(after, "h.0.in.weight"), ElementsAre(1, 2, 3, 8, 10, 12));
  EXPECT_THAT(all_of(after, "h.0.up.weight"), ElementsAre(1, 4));
  EXPECT_THAT(all_of(after, "lm_head.weight"), ElementsAre(2, 12, 6, 24, 10, 36));
  EXPECT_THAT(all_of(after, "embed.weight"), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(after.tensors.size(), 4U);
  EXPECT_EQ(after.config["tie_word_embeddings"], false);
  EXPECT_EQ(after.config["model_type"], "lamina_small");
  EXPECT_EQ(after.config["lamina_norms_removed"],
            Json({{"attention", Json::array()}, {"mlp", {0}}, {"final", true}}));
}

TEST(PlanFold, TakesTheMeanOffWhereTheNormDoes) {
  const Normed model(true);
  const Checkpoint after = apply(model.checkpoint, model.blueprint, kFrozen);
  EXPECT_THAT(all_of(after, "h.0.in.weight"), ElementsAre(-3.5, -4, -4.5, 3.5, 4, 4.5));
  EXPECT_THAT(all_of(after, "h.0.up.weight"), ElementsAre(-1.5, 1.5));
}

TEST(PlanFold, GivesTheNormsBiasToTheMaps) {
  Normed model(false);
  model.add("h.0.norm.bias", {2}, {1, 1});
  model.add("h.0.in.bias", {3}, {10, 20, 30});
  EXPECT_EQ(refusal([&] { apply(model.checkpoint, model.blueprint, kFrozen); }),
            "h.0.up has no bias that could take up that of h.0.norm, so that the norm cannot be folded away");
  model.add("h.0.up.bias", {1}, {0});
  model.add("last.bias", {2}, {1, 0});
  const Checkpoint after = apply(model.checkpoint, model.blueprint, kFrozen);
  EXPECT_THAT(all_of(after, "h.0.in.bias"), ElementsAre(15, 27, 39));
  EXPECT_THAT(all_of(after, "h.0.up.bias"), ElementsAre(3));
  EXPECT_THAT(all_of(after, "lm_head.bias"), ElementsAre(1, 3, 5));
}

TEST(PlanFold, ReplacesAHeadThatIsStoredBesideTheEmbedding) {
  Normed model(false);
  model.blueprint.optional_slots = {"lm_head.weight"};
  model.add("lm_head.weight", {3, 2}, {1, 2, 3, 4, 5, 6});
  const Checkpoint after = apply(model.checkpoint, model.blueprint, kFrozen);
  EXPECT_THAT(all_of(after, "lm_head.weight"), ElementsAre(2, 12, 6, 24, 10, 36));
  EXPECT_EQ(std::ranges::count(after.tensors, "lm_head.weight", &Stored::name), 1);
}

}  // namespace
}  // namespace lamina
