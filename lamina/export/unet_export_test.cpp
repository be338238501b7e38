// U-Nets through the forms: what each holds, what it is called, and what is refused with which sentence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "lamina/export/export.h"
#include "lamina/export/lora.h"
#include "lamina/family/unet_layout.h"
#include "lamina/family/unet_names.h"
#include "lamina/format/safetensors.h"
#include "tests/help.h"
#include "tests/unet_config.h"

namespace lamina {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using tests::four_stages;
using tests::refusal;
namespace fs = std::filesystem;

// Numbers that tell tensors apart.
Opened small(const Json& config = four_stages()) {
  const Blueprint blueprint = unet::blueprint(config, "config");
  Checkpoint checkpoint;
  checkpoint.path = "small";
  checkpoint.config = config;
  checkpoint.config_text = config.dump();
  checkpoint.shards.emplace_back().name = "diffusion_pytorch_model.safetensors";
  float number = 1;
  for (const Slot& slot : blueprint.slots) {
    Stored tensor{.name = slot.name};
    for (const Axis& axis : slot.axes) tensor.shape.push_back(axis.size());
    std::vector<float> values(tensor.elements(), number++);
    auto made = std::make_shared<std::vector<std::byte>>(values.size() * sizeof(float));
    std::memcpy(made->data(), values.data(), made->size());
    tensor.bytes = *made;
    tensor.made = made;
    checkpoint.tensors.push_back(std::move(tensor));
  }
  return declare(std::move(checkpoint));
}

Plan cut(const Opened& model, std::string_view list) {
  return plan_from_list(list, model.blueprint);
}

bool zero(const Checkpoint& checkpoint, const char* name) {
  return checkpoint.find(name)->zero;
}

TEST(UnetExport, PartsAreNamedByLabel) {
  const Opened model = small();
  EXPECT_EQ(cut(model, "d0.a1,mid").edits.size(), 4U);
  EXPECT_EQ(cut(model, "u3").edits.size(), 6U);
  EXPECT_EQ(cut(model, "up_blocks.3.resnets.0").edits.size(), 1U);
  EXPECT_THAT(refusal([&] { cut(model, "d9"); }), HasSubstr("d9"));
}

TEST(UnetExport, ProofKeepsEveryShapeAndTheStockNames) {
  const Opened model = small();
  const Plan plan = cut(model, "d0.a1,u2.r1,mid");
  ASSERT_TRUE(can_write(Form::hf_zeroed, model, plan).possible);
  const Checkpoint proof = shaped(Form::hf_zeroed, model, plan);
  EXPECT_EQ(proof.config, model.checkpoint.config);
  EXPECT_EQ(proof.tensors.size(), model.checkpoint.tensors.size());
  EXPECT_TRUE(zero(proof, "down_blocks.0.attentions.1.proj_out.weight"));
  EXPECT_TRUE(zero(proof, "up_blocks.2.resnets.1.conv2.bias"));
  EXPECT_FALSE(zero(proof, "up_blocks.2.resnets.1.conv_shortcut.weight"));
}

TEST(UnetExport, CompactIsAStockConfigOrARefusalThatNamesTheNearest) {
  const Opened model = small();
  const Plan possible = cut(model, "d0.a1,mid");
  const Checkpoint compact = shaped(Form::hf_compact, model, possible);
  EXPECT_EQ(compact.config.at("_class_name"), "UNet2DConditionModel");
  EXPECT_TRUE(compact.config.at("mid_block_type").is_null());
  EXPECT_FALSE(compact.config.contains("lamina_removed"));
  EXPECT_TRUE(zero(compact, "down_blocks.0.attentions.1.proj_out.weight"));
  EXPECT_NO_THROW(declare(compact));

  const Answer answer = can_write(Form::hf_compact, model, cut(model, "d0.r1,d0.a1,u3.r1,u3.a1"));
  EXPECT_FALSE(answer.possible);
  EXPECT_THAT(answer.note, HasSubstr("d0.r1"));
  EXPECT_THAT(answer.note, HasSubstr("\"wiring\": \"stock\""));
  EXPECT_THAT(answer.note, HasSubstr("keeps d0.r1 u3.r1"));
  EXPECT_THAT(answer.note, HasSubstr("proof and extended would do"));
  EXPECT_THAT(can_write(Form::gguf, model, possible).note, HasSubstr("language models"));
}

TEST(UnetExport, AnotherWiringIsWrittenOnlyWhereThePlanSaysSo) {
  const Opened model = small();
  Plan plan = cut(model, "d0.r1,d0.a1,u3.r1,u3.a1");
  plan.provenance["wiring"] = "stock";
  ASSERT_TRUE(can_write(Form::hf_compact, model, plan).possible);
  const Checkpoint compact = shaped(Form::hf_compact, model, plan);
  EXPECT_EQ(compact.config.at("layers_per_block"), Json({1, 2, 2, 2}));
  EXPECT_EQ(compact.find("up_blocks.3.resnets.1.conv1.weight")->bytes.data(),
            model.checkpoint.find("up_blocks.3.resnets.2.conv1.weight")->bytes.data());
  EXPECT_NO_THROW(declare(compact));
  EXPECT_THAT(can_write(Form::hf_zeroed, model, plan).note, HasSubstr("compact alone"));
  plan.provenance["wiring"] = "any";
  EXPECT_THAT(refusal([&] { can_write(Form::hf_compact, model, plan); }), HasSubstr("exact and stock"));
}

TEST(UnetExport, ExtendedHasNamesThatStockLoadersLookUpInVain) {
  const Opened model = small();
  const Opened extended = declare(shaped(Form::hf_perlayer, model, cut(model, "d0.r1,mid.r0")));
  EXPECT_EQ(extended.checkpoint.config.at("_class_name"), "LaminaUNet2DConditionModel");
  EXPECT_EQ(extended.checkpoint.config.at("down_block_types").at(3), "LaminaDownBlock2D");
  EXPECT_THAT(can_write(Form::hf_perlayer, extended, {}).note, HasSubstr("lamina alone"));
  // Zeroes where parts are gone make it whole again.
  const Checkpoint back = shaped(Form::hf_zeroed, extended, {});
  EXPECT_EQ(back.config, model.checkpoint.config);
  EXPECT_EQ(back.tensors.size(), model.checkpoint.tensors.size());
  EXPECT_TRUE(zero(back, "mid_block.resnets.0.conv2.weight"));
  EXPECT_NO_THROW(declare(back));
}

TEST(UnetExport, ACutOfACutIsSaidLikeOneCut) {
  const Opened model = small();
  const Opened once = declare(shaped(Form::hf_perlayer, model, cut(model, "d1.a0")));
  const Opened twice = declare(shaped(Form::hf_compact, once, cut(once, "d1.a1")));
  EXPECT_EQ(twice.checkpoint.config, shaped(Form::hf_compact, model, cut(model, "d1.a0,d1.a1")).config);
}

TEST(UnetExport, APipelineIsWrittenWhole) {
  const Opened model = small();
  const tests::Folder in, out;
  fs::create_directories(in / "unet");
  write_folder(model.checkpoint, in / "unet", {});
  write_file(in / "model_index.json",
             R"({"_class_name": "P", "unet": ["diffusers", "UNet2DConditionModel"]})");
  write_file(in / "note.txt", "kept");
  const Pipeline pipeline = open_pipeline(in.path());
  const Opened unet = open(in / "unet");
  const std::vector<Written> written =
      write_forms(unet, cut(unet, "u3.a1"), {{Form::hf_compact, {}}, {Form::hf_perlayer, {}}}, out.path(),
                  {.pipeline = &pipeline, .component = "unet"});
  EXPECT_EQ(written[0].component, "unet");
  EXPECT_EQ(read_file(out / "hf-compact/note.txt"), "kept");
  EXPECT_EQ(read_file(out / "hf-compact/model_index.json"), pipeline.index_text);
  EXPECT_THAT(read_file(out / "hf-perlayer/model_index.json"), HasSubstr("LaminaUNet2DConditionModel"));
  EXPECT_NO_THROW(open(out / "hf-perlayer/unet"));
}

TEST(UnetNames, InTheOriginalSpelling) {
  const unet::Config c = unet::read_config(unet::published_config("sd1.5"), "config");
  const auto name = [&](const char* ours) { return unet::original_name(ours, c); };
  EXPECT_EQ(name("conv_in.weight"), "input_blocks.0.0.weight");
  EXPECT_EQ(name("down_blocks.1.attentions.0.proj_in.bias"), "input_blocks.4.1.proj_in.bias");
  EXPECT_EQ(name("down_blocks.0.downsamplers.0.conv.weight"), "input_blocks.3.0.op.weight");
  EXPECT_EQ(name("down_blocks.3.resnets.1.time_emb_proj.bias"), "input_blocks.11.0.emb_layers.1.bias");
  EXPECT_EQ(name("mid_block.resnets.1.norm2.weight"), "middle_block.2.out_layers.0.weight");
  EXPECT_EQ(name("up_blocks.0.upsamplers.0.conv.weight"), "output_blocks.2.1.conv.weight");
  EXPECT_EQ(name("up_blocks.1.upsamplers.0.conv.weight"), "output_blocks.5.2.conv.weight");
  EXPECT_EQ(name("up_blocks.3.resnets.2.conv_shortcut.weight"), "output_blocks.11.0.skip_connection.weight");
  EXPECT_EQ(name("time_embedding.linear_2.bias"), "time_embed.2.bias");
  for (const char* odd : {"down_blocks.7.resnets.0", "down_blocks.", "encoder.weight", "up_blocks.x"})
    EXPECT_THAT(refusal([&] { name(odd); }), HasSubstr("no module"));
}

class Lora : public testing::Test {
 protected:
  LoraReport remapped(const std::vector<std::string>& keys, Form form, const Plan& plan) {
    safetensors::Header header;
    for (const std::string& key : keys)
      header.tensors.push_back({.name = key, .dtype = DType::f32, .shape = {1}});
    safetensors::lay_out(header.tensors);
    write_file(folder_ / "in.safetensors",
               safetensors::write_header(header) + std::string(sizeof(float) * keys.size(), '\0'));
    const LoraReport report =
        remap_lora(folder_ / "in.safetensors", model_, plan, form, folder_ / "out.safetensors");
    const std::string text = read_file(folder_ / "out.safetensors");
    names_.clear();
    for (const auto& info : safetensors::parse_header(as_bytes(text), "out").tensors)
      names_.push_back(info.name);
    return report;
  }
  Plan bk() {
    Plan plan = cut(model_, "d0.r1,d0.a1,u3.r1,u3.a1,mid");
    plan.provenance["wiring"] = "stock";
    return plan;
  }

  tests::Folder folder_;
  Opened model_ = small();
  std::vector<std::string> names_;
};

TEST_F(Lora, EverySpellingFollowsTheRenaming) {
  const LoraReport report =
      remapped({"unet.up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_q.lora_A.weight",
                "unet.up_blocks.3.attentions.1.transformer_blocks.0.attn1.to_q.lora_B.weight",
                "unet.up_blocks.3.attentions.2.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
                "lora_unet_up_blocks_3_attentions_2_proj_in.alpha",
                "lora_unet_output_blocks_11_1_proj_out.lora_up.weight", "lora_te_text_model_encoder.alpha",
                "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"},
               Form::hf_compact, bk());
  EXPECT_THAT(
      names_,
      ElementsAre("unet.up_blocks.3.attentions.1.transformer_blocks.0.attn1.to_q.lora_A.weight",
                  "unet.up_blocks.3.attentions.1.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
                  "lora_unet_up_blocks_3_attentions_1_proj_in.alpha",
                  "lora_unet_output_blocks_10_1_proj_out.lora_up.weight", "lora_te_text_model_encoder.alpha",
                  "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"));
  EXPECT_THAT(report.dropped, ElementsAre("unet.up_blocks.3.attentions.1.transformer_blocks.0.attn1.to_q"));
  EXPECT_EQ(report.renamed.size(), 4U);
  EXPECT_EQ(report.kept.size(), 1U);
  EXPECT_EQ(report.beside, 1U);
}

TEST_F(Lora, ASilentTransformerStaysSilent) {
  const LoraReport report = remapped({"unet.down_blocks.0.attentions.1.proj_out.lora_A.weight",
                                      "unet.down_blocks.0.attentions.0.proj_out.lora_A.weight"},
                                     Form::hf_compact, cut(model_, "d0.a1"));
  EXPECT_THAT(report.dropped, ElementsAre("unet.down_blocks.0.attentions.1.proj_out"));
  EXPECT_EQ(report.kept.size(), 1U);
}

TEST_F(Lora, OfAnotherModelIsRefused) {
  EXPECT_THAT(refusal([&] { remapped({"transformer.h.0.lora_A.weight"}, Form::hf_compact, {}); }),
              HasSubstr("another model"));
  EXPECT_THAT(refusal([&] { remapped({"unet.down_blocks.9.x.lora_A.weight"}, Form::hf_compact, {}); }),
              HasSubstr("does not have"));
}

}  // namespace
}  // namespace lamina
