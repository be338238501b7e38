#include "lamina/family/family.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <limits>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/family/gpt2.h"
#include "lamina/family/llama.h"
#include "lamina/plan/plan.h"
#include "tests/help.h"

namespace lamina {
namespace {

using tests::refusal;

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
              HasSubstr("none of \"architectures\", \"model_type\""));
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
    if (opened.blueprint.speaks()) {
      EXPECT_EQ(opened.blueprint.parts.size(), 8U);
    }
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

// ---- GGUF: what its header says of the model

class GgufModel : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / fmt::format("lamina_family_{}.gguf", ::getpid());
  }
  void TearDown() override { std::filesystem::remove(path_); }

  using Pairs = std::vector<std::pair<std::string, gguf::Value>>;

  static Pairs pairs_of(std::string_view architecture) {
    const auto key = [&](std::string_view name) { return fmt::format("{}.{}", architecture, name); };
    const bool lists = architecture == "deci";
    const auto per_block = [&](uint32_t value) {
      return lists ? gguf::make_u32s({value, value}) : gguf::make_u32(value);
    };
    return {{"general.architecture", gguf::make_string(std::string(architecture))},
            {key("embedding_length"), gguf::make_u32(4)},
            {key("block_count"), gguf::make_u32(2)},
            {key("feed_forward_length"), per_block(6)},
            {key("attention.head_count"), per_block(2)},
            {key("attention.head_count_kv"), per_block(1)}};
  }

  // A model with two blocks of width 4, one key changed; null takes the key out.
  void put(std::string_view architecture, std::string_view key, std::optional<gguf::Value> value,
           std::string_view one_more_tensor = "") {
    gguf::File file;
    file.metadata = pairs_of(architecture);
    std::erase_if(file.metadata, [&](const auto& pair) { return pair.first == key; });
    if (value) file.metadata.emplace_back(key, *value);
    const auto tensor = [&](std::string name, Shape shape) {
      file.tensors.push_back({.name = std::move(name), .dtype = DType::f32, .shape = std::move(shape)});
    };
    tensor("token_embd.weight", {8, 4});
    tensor("output_norm.weight", {4});
    for (int block : {0, 1}) {
      const auto name = [&](std::string_view part) { return fmt::format("blk.{}.{}.weight", block, part); };
      for (const char* norm : {"attn_norm", "ffn_norm"}) tensor(name(norm), {4});
      for (const char* square : {"attn_q", "attn_output"}) tensor(name(square), {4, 4});
      for (const char* narrow : {"attn_k", "attn_v"}) tensor(name(narrow), {2, 4});
      for (const char* wide : {"ffn_gate", "ffn_up"}) tensor(name(wide), {6, 4});
      tensor(name("ffn_down"), {4, 6});
    }
    if (!one_more_tensor.empty()) tensor(std::string(one_more_tensor), {4});
    gguf::lay_out(file);
    write_file(path_, gguf::write_header(file) +
                          std::string(file.tensors.back().offset + file.tensors.back().bytes, '\x2A'));
  }

  std::string refusal_here() const {
    const std::string message = refusal([&] { open(path_); });
    EXPECT_THAT(message, HasSubstr(path_.string()));
    return message;
  }

  std::filesystem::path path_;
};

TEST_F(GgufModel, Opens) {
  for (const char* architecture : {"llama", "deci"}) {
    put(architecture, "", std::nullopt);
    EXPECT_EQ(open(path_).blueprint.present().size(), 4U) << architecture;
  }
}

TEST_F(GgufModel, RefusesEveryDamagedHeader) {
  struct Case {
    const char* architecture;
    std::string key;
    std::optional<gguf::Value> value;
    const char* says;
  };
  const auto signed_number = [](int64_t value) { return gguf::Value{gguf::Type::i64, value}; };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Case cases[] = {
      {"llama", "general.architecture", std::nullopt, "general.architecture"},
      {"llama", "general.architecture", gguf::make_string("gpt9"), "\"gpt9\" is not known here"},
      {"llama", "general.architecture", gguf::make_string("\xff\x1b"), "is not known here"},
      {"llama", "general.architecture", gguf::make_u32(3), "where a text was expected"},
      {"llama", "split.count", gguf::make_u32(3), "one part of a GGUF split into 3"},
      {"llama", "split.count", gguf::make_string("3"), "split.count"},
      {"llama", "llama.block_count", std::nullopt, "llama.block_count"},
      {"llama", "llama.block_count", gguf::make_u32(0), "is 0, outside"},
      {"llama", "llama.block_count", gguf::make_u32(4'000'000'000), "is 4000000000, outside"},
      {"llama", "llama.block_count", gguf::make_u32(3), "model.layers.2."},
      {"llama", "llama.block_count", gguf::make_u32(1), "model.layers.1."},
      {"llama", "llama.block_count", gguf::make_string("2"), "where an integer was expected"},
      {"llama", "llama.embedding_length", signed_number(-4), "is -4, outside"},
      {"llama", "llama.embedding_length", gguf::make_u32(8), "has the shape"},
      {"llama", "llama.feed_forward_length", gguf::make_u32s({6, 6}), "type array where an integer"},
      {"llama", "llama.feed_forward_length", signed_number(int64_t{1} << 62), "outside"},
      {"llama", "llama.attention.head_count", gguf::make_u32(0), "is 0, outside"},
      {"llama", "llama.attention.head_count", gguf::make_u32(3), "cannot be rotated in pairs"},
      {"llama", "llama.attention.head_count_kv", signed_number(0), "num_key_value_heads"},
      {"llama", "llama.attention.head_count_kv", signed_number(-1), "num_key_value_heads"},
      {"llama", "llama.attention.head_count_kv", gguf::make_u32(3), "cannot share 3 key-value heads"},
      {"llama", "llama.attention.key_length", signed_number(-2), "head_dim"},
      {"llama", "llama.attention.key_length", signed_number(int64_t{1} << 62), "head_dim"},
      {"llama", "llama.attention.key_length", gguf::make_u32(4), "has the shape"},
      {"llama", "llama.context_length", signed_number(-1), "max_position_embeddings"},
      {"llama", "llama.attention.layer_norm_rms_epsilon", gguf::make_f32(nan), "rms_norm_eps"},
      {"llama", "llama.attention.layer_norm_rms_epsilon", gguf::make_f32(-1), "rms_norm_eps"},
      {"llama", "llama.rope.freq_base", gguf::make_f32(nan), "rope_theta"},
      {"llama", "llama.rope.scaling.type", gguf::make_string("yarn"), "\"yarn\" of a GGUF is not known"},
      {"llama", "llama.expert_count", gguf::make_u32(8), "mixture of experts"},
      {"deci", "deci.attention.head_count", gguf::make_u32(2), "not a list of one number for each of the 2"},
      {"deci", "deci.attention.head_count", gguf::make_u32s({2}),
       "not a list of one number for each of the 2"},
      {"deci", "deci.attention.head_count", gguf::make_u32s({2, 1}), "block 1 has 1 heads"},
      {"deci", "deci.attention.head_count", gguf::make_u32s({0, 0}), "num_attention_heads"},
      {"deci", "deci.attention.head_count", gguf::make_i32s({2, -1}), "block 1 has -1 heads"},
      {"deci", "deci.attention.head_count_kv", gguf::make_strings({"1", "1"}), "not a list of one number"},
      {"deci", "deci.feed_forward_length", gguf::make_i32s({-6, -6}), "intermediate_size"},
      {"deci", "deci.feed_forward_length", gguf::make_u32s({6, 5}), "block 1 has 5 neurons"},
      {"deci", "deci.feed_forward_length", gguf::make_u32s({6, 0}),
       "narrower than the other blocks' and not zero"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.key + ": " + c.says);
    put(c.architecture, c.key, c.value);
    EXPECT_THAT(refusal_here(), HasSubstr(c.says));
  }
  for (const char* name : {"blk.2.attn_norm.weight", "blk.-1.attn_norm.weight", "blk.x.attn_norm.weight",
                           "blk..attn_norm.weight", "blk.99999999999999999999.attn_norm.weight", "other"}) {
    put("llama", "", std::nullopt, name);
    EXPECT_THAT(refusal_here(), HasSubstr("has no place in")) << name;
  }
}

TEST(Open, SaysWhatAPathIs) {
  EXPECT_THAT(refusal([] { open("no/such/model"); }),
              HasSubstr("no/such/model: there is no such file or folder"));
}

// As the published gpt2 spells it: no root, and the buffers of its time.
Checkpoint published_gpt2() {
  Checkpoint checkpoint = made_for(tiny("GPT2LMHeadModel"));
  for (Stored& tensor : checkpoint.tensors) tensor.name.erase(0, std::string_view("transformer.").size());
  for (int block = 0; block < 4; ++block) {
    checkpoint.tensors.push_back(
        {.name = fmt::format("h.{}.attn.bias", block), .dtype = DType::u8, .shape = {1, 1, 64, 64}});
    checkpoint.tensors.push_back({.name = fmt::format("h.{}.attn.masked_bias", block)});
  }
  return checkpoint;
}

TEST(Gpt2, TheNamesAreTheFilesOwn) {
  const Opened rooted = declare(made_for(tiny("GPT2LMHeadModel")));
  EXPECT_EQ(rooted.blueprint.stack, "transformer.h");
  EXPECT_EQ(rooted.blueprint.parts[3].path, "transformer.h.1.mlp");
  EXPECT_EQ(rooted.blueprint.parts[3].neurons->up, "transformer.h.1.mlp.c_fc");
  const Opened bare = declare(published_gpt2());
  EXPECT_EQ(bare.blueprint.stack, "h");
  EXPECT_EQ(bare.blueprint.parts[3].path, "h.1.mlp");
  EXPECT_EQ(bare.blueprint.parts[3].neurons->down, "h.1.mlp.c_proj");
  EXPECT_EQ(bare.blueprint.final_norm, "ln_f");
  EXPECT_EQ(bare.blueprint.parameters(), rooted.blueprint.parameters()) << "buffers are no parameters";
}

TEST(Gpt2, AMixOfSpellingsIsRefused) {
  Checkpoint mixed = published_gpt2();
  mixed.tensors.front().name.insert(0, "transformer.");
  EXPECT_THAT(refusal([&] { declare(mixed); }), HasSubstr("transformer.wpe.weight is missing"));
  Checkpoint other = made_for(tiny("GPT2LMHeadModel"));
  other.tensors.push_back({.name = "h.0.attn.bias"});
  EXPECT_THAT(refusal([&] { declare(other); }), HasSubstr("h.0.attn.bias has no place"));
}

TEST(Gpt2, BuffersGoWithTheirAttention) {
  const Opened bare = declare(published_gpt2());
  const Checkpoint cut = apply(bare.checkpoint, bare.blueprint, {.edits = {Cut{"h.2.attn", {}}}});
  EXPECT_EQ(cut.find("h.2.attn.bias"), nullptr);
  EXPECT_EQ(cut.find("h.2.attn.masked_bias"), nullptr);
  EXPECT_NE(cut.find("h.1.attn.bias"), nullptr);
  EXPECT_EQ(declare(cut).blueprint.present().size(), 7U);
  Checkpoint left = cut;
  left.tensors.push_back({.name = "h.2.attn.masked_bias"});
  EXPECT_THAT(refusal([&] { declare(left); }), HasSubstr("h.2.attn.masked_bias has no place"));
}

TEST(Gpt2, ConfigSaysWhatIsNotKnown) {
  const auto refused = [](const Json& changes) {
    return refusal([&] { gpt2::read_config(with(changes, tiny("GPT2LMHeadModel")), "config.json"); });
  };
  EXPECT_THAT(refused({{"activation_function", "swish"}}), HasSubstr("\"swish\" is not known here"));
  EXPECT_THAT(refused({{"n_head", 5}}), HasSubstr("5 heads do not divide a width of 48"));
  for (const char* key :
       {"scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"})
    EXPECT_THAT(refused({{key, true}}), HasSubstr(key));
  for (const char* key : {"n_embd", "n_layer", "n_head", "vocab_size"}) {
    EXPECT_THAT(refused({{key, nullptr}}), HasSubstr(key));
    EXPECT_THAT(refused({{key, -1}}), HasSubstr(key));
  }
  EXPECT_THAT(refused({{"layer_norm_epsilon", 0}}), HasSubstr("layer_norm_epsilon"));
}

TEST(Gpt2, ConfigDefaults) {
  const gpt2::Config read = gpt2::read_config(with({{"n_inner", nullptr},
                                                    {"n_positions", nullptr},
                                                    {"n_ctx", 32},
                                                    {"activation_function", nullptr},
                                                    {"tie_word_embeddings", nullptr}},
                                                   tiny("GPT2LMHeadModel")),
                                              "c");
  EXPECT_EQ(read.neurons, 4 * 48);
  EXPECT_EQ(read.positions, 32);
  EXPECT_EQ(read.activation, gpt2::Activation::gelu_tanh);
  EXPECT_TRUE(read.tied);
  EXPECT_TRUE(read.scaled);
}

}  // namespace
}  // namespace lamina
