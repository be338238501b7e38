#include "lamina/family/family.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"
#include "lamina/family/llama.h"

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Json tiny(std::string_view name = "LlamaForCausalLM") {
  for (const Architecture& architecture : architectures()) {
    if (architecture.name == name) return architecture.tiny();
  }
  fail("{} is not listed", name);
}

// The tiny Llama's config with some keys changed; null takes a key out.
Json with(const Json& changes, Json config = tiny()) {
  for (const auto& [key, value] : changes.items()) {
    if (value.is_null())
      config.erase(key);
    else
      config[key] = value;
  }
  return config;
}

// Shapes alone: a declaration never looks at values.
Checkpoint made_for(const Json& config) {
  Checkpoint checkpoint;
  checkpoint.path = "model";
  checkpoint.config = config;
  for (const Slot& slot : architecture_of(config, "model").blueprint(config, "model").slots) {
    Stored& stored = checkpoint.tensors.emplace_back();
    stored.name = slot.name;
    for (const Axis& axis : slot.axes) stored.shape.push_back(axis.size());
  }
  return checkpoint;
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

std::string refusal_of(const Json& changes) {
  const std::string message = refusal([&] { llama::read_config(with(changes), "config.json"); });
  EXPECT_THAT(message, testing::StartsWith("config.json: ")) << changes.dump();
  return message;
}

TEST(Architecture, IsNamedByArchitecturesOrModelType) {
  EXPECT_EQ(
      architecture_of({{"architectures", {"MistralForCausalLM"}}, {"model_type", "llama"}}, "c").model_type,
      "mistral");
  EXPECT_EQ(architecture_of({{"model_type", "qwen2"}}, "c").name, "Qwen2ForCausalLM");
  EXPECT_EQ(architecture_of({{"architectures", nullptr}, {"model_type", "llama"}}, "c").name,
            "LlamaForCausalLM");
  EXPECT_THAT(refusal([] { architecture_of(Json::object(), "c"); }),
              HasSubstr("neither \"architectures\" nor \"model_type\""));
  EXPECT_THAT(refusal([] { architecture_of({{"model_type", "gpt9"}}, "c"); }),
              HasSubstr("\"gpt9\" is not known here; LlamaForCausalLM, "));
  EXPECT_THAT(refusal([] { architecture_of({{"architectures", {"GPT9"}}, {"model_type", "llama"}}, "c"); }),
              HasSubstr("\"GPT9\" is not known"));
  EXPECT_THAT(refusal([] { architecture_of({{"architectures", {3}}}, "c"); }), HasSubstr("is not known"));
  EXPECT_THAT(refusal([] { architecture_of({{"model_type", 3}}, "c"); }), HasSubstr("model_type"));
}

TEST(Config, NumbersOfBlocks) {
  for (const Json& value : {Json(0), Json(-1), Json(1'000'000'000), Json(2.5), Json("4"), Json::array(),
                            Json(true), Json(uint64_t{1} << 63)}) {
    EXPECT_THAT(refusal_of({{"num_hidden_layers", value}}), HasSubstr("num_hidden_layers")) << value.dump();
  }
  EXPECT_THAT(refusal_of({{"num_hidden_layers", nullptr}}), HasSubstr("num_hidden_layers"));
}

TEST(Config, EverySizeIsNeeded) {
  for (const char* key : {"hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"}) {
    EXPECT_THAT(refusal_of({{key, nullptr}}), HasSubstr(key));
    for (const Json& value : {Json(0), Json(-5), Json(int64_t{1} << 62), Json("many")})
      EXPECT_THAT(refusal_of({{key, value}}), HasSubstr(key)) << value.dump();
  }
}

TEST(Config, HeadsMustFit) {
  EXPECT_THAT(refusal_of({{"num_key_value_heads", 4}}), HasSubstr("6 heads cannot share 4 key-value heads"));
  EXPECT_THAT(refusal_of({{"num_key_value_heads", 12}}),
              HasSubstr("6 heads cannot share 12 key-value heads"));
  EXPECT_THAT(refusal_of({{"num_key_value_heads", 0}}), HasSubstr("num_key_value_heads"));
  EXPECT_THAT(refusal_of({{"head_dim", nullptr}, {"num_attention_heads", 5}, {"num_key_value_heads", 5}}),
              HasSubstr("5 heads do not divide a width of 48"));
  EXPECT_THAT(refusal_of({{"head_dim", 7}}), HasSubstr("cannot be rotated in pairs"));
  EXPECT_THAT(refusal_of({{"head_dim", 0}}), HasSubstr("head_dim"));
  EXPECT_THAT(refusal_of({{"head_dim", nullptr}, {"hidden_size", 2}}), HasSubstr("head"));
}

TEST(Config, ListsOfBlocksHaveOneEntryABlock) {
  EXPECT_THAT(refusal_of({{"layer_types", {"full_attention"}}}),
              HasSubstr("layer_types does not have one entry for each of the 4 blocks"));
  EXPECT_THAT(refusal_of({{"layer_types", "full_attention"}}), HasSubstr("layer_types"));
  EXPECT_THAT(refusal_of({{"layer_types",
                           {"full_attention", "full_attention", "linear_attention", "full_attention"}}}),
              HasSubstr("\"linear_attention\""));
}

TEST(Config, NumbersAreFiniteAndPositive) {
  for (const char* text : {R"({"rms_norm_eps": NaN})", R"({"rms_norm_eps": Infinity})",
                           R"({"rms_norm_eps": -Infinity})", R"({"rms_norm_eps": 1e999})"}) {
    EXPECT_THROW(parse_json(text, "config.json"), Error) << text;
  }
  for (const char* key : {"rms_norm_eps", "rope_theta"}) {
    for (const Json& value : {Json(0), Json(-1e-5), Json("1e-5")})
      EXPECT_THAT(refusal_of({{key, value}}), HasSubstr(key)) << value.dump();
  }
}

TEST(Config, RopeOfTheOldAndTheNewStyle) {
  const Json scaling = {{"rope_type", "llama3"},
                        {"factor", 32.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  Json parameters = scaling, legacy = scaling;
  parameters["rope_theta"] = 500000.0;
  legacy["type"] = legacy["rope_type"];  // files before rope_type
  legacy.erase("rope_type");
  const Json old_style = with({{"rope_theta", 500000.0}, {"rope_scaling", scaling}});
  const Json new_style =
      with({{"rope_theta", nullptr}, {"rope_scaling", nullptr}, {"rope_parameters", parameters}});
  for (const Json& config :
       {old_style, new_style, with({{"rope_theta", 500000.0}, {"rope_scaling", legacy}})}) {
    const llama::Config read = llama::read_config(config, "c");
    EXPECT_EQ(read.rope_theta, 500000.0);
    ASSERT_TRUE(read.rope_scaling.has_value());
    EXPECT_EQ(read.rope_scaling->kind, llama::RopeScaling::Kind::llama3);
    EXPECT_EQ(read.rope_scaling->factor, 32.0);
    EXPECT_EQ(read.rope_scaling->original_context, 8192);
  }
  EXPECT_FALSE(
      llama::read_config(with({{"rope_scaling", {{"rope_type", "default"}}}}), "c").rope_scaling.has_value());
  EXPECT_EQ(llama::read_config(with({{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}}), "c")
                .rope_scaling->factor,
            2.0);
}

TEST(Config, RopeThatIsNotKnown) {
  EXPECT_THAT(refusal_of({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}}}),
              HasSubstr("\"yarn\""));
  EXPECT_THAT(refusal_of({{"rope_scaling", 4}}), HasSubstr("an object was expected"));
  EXPECT_THAT(refusal_of({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 0}}}}), HasSubstr("factor"));
  EXPECT_THAT(refusal_of({{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}}}),
              HasSubstr("original_max_position_embeddings"));
  EXPECT_THAT(refusal_of({{"rope_scaling",
                           {{"rope_type", "llama3"},
                            {"low_freq_factor", 4.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 8}}}}),
              HasSubstr("high_freq_factor must be above"));
}

TEST(Config, ActivationsAndQuantizationAreNamed) {
  EXPECT_THAT(refusal_of({{"hidden_act", "gelu"}}), HasSubstr("\"gelu\""));
  EXPECT_THAT(refusal_of({{"quantization_config", {{"bits", 4}}}}), HasSubstr("quantized"));
  EXPECT_THAT(refusal_of({{"tie_word_embeddings", "yes"}}), HasSubstr("tie_word_embeddings"));
}

TEST(Config, CodeOfTheModelsOwnIsNeverRun) {
  EXPECT_NO_THROW(llama::read_config(with({{"auto_map", {{"AutoModelForCausalLM", "modeling.Mine"}}}}), "c"));
}

TEST(Config, WindowsOfEachFamily) {
  EXPECT_THAT(llama::read_config(tiny("LlamaForCausalLM"), "c").windows, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(llama::read_config(tiny("MistralForCausalLM"), "c").windows, ElementsAre(5, 5, 5, 5));
  EXPECT_THAT(llama::read_config(tiny("Qwen2ForCausalLM"), "c").windows, ElementsAre(0, 0, 6, 6));
  EXPECT_THAT(
      llama::read_config(with({{"use_sliding_window", false}}, tiny("Qwen2ForCausalLM")), "c").windows,
      ElementsAre(0, 0, 0, 0));
  // transformers' own width where the file does not say; null is no window.
  const auto mistral = [](Json config) { return llama::read_config(config, "c").windows.front(); };
  EXPECT_EQ(mistral(with({{"sliding_window", nullptr}}, tiny("MistralForCausalLM"))), 4096);
  Json null = tiny("MistralForCausalLM");
  null["sliding_window"] = nullptr;
  EXPECT_EQ(mistral(null), 0);
  const Json types = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
  EXPECT_THAT(llama::read_config(with({{"layer_types", types}}, tiny("Qwen2ForCausalLM")), "c").windows,
              ElementsAre(6, 0, 6, 0));
}

TEST(Declare, AcceptsWhatFits) {
  for (const Architecture& architecture : architectures()) {
    const Opened opened = declare(made_for(architecture.tiny()));
    EXPECT_EQ(opened.architecture, &architecture);
    EXPECT_EQ(opened.blueprint.parts.size(), 8U);
  }
}

TEST(Declare, VocabularySmallerThanTheEmbedding) {
  Checkpoint checkpoint = made_for(tiny());
  checkpoint.config["vocab_size"] = 90;
  EXPECT_THAT(
      refusal([&] { declare(checkpoint); }),
      HasSubstr("model.embed_tokens.weight has the shape [97, 48] where config.json asks for [90, 48]"));
}

TEST(Declare, TiedFlagAgainstTheFile) {
  Checkpoint untied = made_for(with({{"tie_word_embeddings", false}}));
  untied.config["tie_word_embeddings"] = true;  // a head stored beside the embedding it is tied to
  EXPECT_TRUE(declare(untied).blueprint.tied());
  const float value = 1;
  for (Stored& stored : untied.tensors) {
    if (stored.name == "lm_head.weight") stored.bytes = std::as_bytes(std::span(&value, 1));
  }
  EXPECT_THAT(refusal([&] { declare(untied); }), HasSubstr("tie_word_embeddings"));
  Checkpoint tied = made_for(with({{"tie_word_embeddings", true}}));
  tied.config["tie_word_embeddings"] = false;
  EXPECT_THAT(refusal([&] { declare(tied); }), HasSubstr("lm_head.weight is missing"));
}

TEST(Declare, RotaryTablesOfOldFilesAreIgnored) {
  Checkpoint checkpoint = made_for(tiny());
  checkpoint.tensors.push_back({.name = "model.layers.0.self_attn.rotary_emb.inv_freq", .shape = {4}});
  EXPECT_NO_THROW(declare(checkpoint));
}

TEST(Declare, BlocksMoreOrFewerThanSaid) {
  Checkpoint more = made_for(tiny());
  more.config["num_hidden_layers"] = 3;
  EXPECT_THAT(refusal([&] { declare(more); }), HasSubstr("model.layers.3."));
  Checkpoint fewer = made_for(tiny());
  fewer.config["num_hidden_layers"] = 5;
  EXPECT_THAT(refusal([&] { declare(fewer); }),
              HasSubstr("model.layers.4.input_layernorm.weight is missing"));
}

TEST(Declare, AbsencesTakeTheirSlotsAndCostAway) {
  const Opened opened = declare(made_for(with({{"drop_attn_list", {0}}, {"drop_mlp_list", {3}}})));
  EXPECT_EQ(opened.blueprint.present().size(), 6U);
  EXPECT_EQ(opened.blueprint.parameters(Site{0}), 0);
  EXPECT_EQ(opened.blueprint.kv_values_per_token(), 3 * 2 * 3 * 8);
  for (const Slot& slot : opened.blueprint.slots) {
    EXPECT_NE(slot.part, 0) << slot.name;
    EXPECT_NE(slot.part, 7) << slot.name;
  }
}

TEST(Open, SaysWhatAPathIs) {
  EXPECT_THAT(refusal([] { open("no/such/model"); }),
              HasSubstr("no/such/model: there is no such file or folder"));
}

}  // namespace
}  // namespace lamina
