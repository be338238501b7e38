#include "lamina/checkpoint/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"
#include "lamina/format/safetensors.h"
#include "tests/help.h"

namespace lamina {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;
using tests::refusal;

constexpr const char* kText = R"({"_class_name": "StableDiffusionPipeline",
  "unet": ["diffusers", "UNet2DConditionModel"], "feature_extractor": [null, null],
  "requires_safety_checker": true, "scheduler": ["diffusers", "PNDMScheduler"]}
)";

std::string weights(float value) {
  safetensors::Header header;
  header.tensors = {{.name = "a", .dtype = DType::f32, .shape = {1}}};
  safetensors::lay_out(header.tensors);
  return safetensors::write_header(header) + std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

class PipelineFolder : public testing::Test {
 protected:
  void SetUp() override {
    put("model_index.json", kText);
    put("unet/config.json", "{\"_class_name\":   \"UNet2DConditionModel\"}");
    put("unet/diffusion_pytorch_model.safetensors", weights(1));
    put("unet/diffusion_pytorch_model.fp16.safetensors", weights(2));
    put("scheduler/scheduler_config.json", "{}");
    put("README.md", "");
  }

  void put(const std::string& name, std::string_view text) {
    fs::create_directories((own_ / name).parent_path());
    write_file(own_ / name, text);
  }
  std::string refused() {
    return refusal([&] { open_pipeline(own_.path()); });
  }

  tests::Folder own_, out_;
};

TEST_F(PipelineFolder, Opens) {
  const Pipeline pipeline = open_pipeline(own_.path());
  ASSERT_EQ(pipeline.components.size(), 2U);
  EXPECT_EQ(pipeline.components[0].class_name, "UNet2DConditionModel");
  EXPECT_TRUE(pipeline.has("scheduler"));
  EXPECT_FALSE(pipeline.has("feature_extractor"));
  EXPECT_EQ(pipeline.index_text, kText);
  EXPECT_THAT(pipeline.files, ElementsAre("README.md", "model_index.json", "scheduler/scheduler_config.json",
                                          "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors",
                                          "unet/diffusion_pytorch_model.safetensors"));
}

TEST_F(PipelineFolder, OpenThenWriteIsTheIdentity) {
  const Pipeline pipeline = open_pipeline(own_.path());
  write_pipeline(pipeline, {}, out_.path(), {});
  EXPECT_EQ(open_pipeline(out_.path()).files, pipeline.files);
  for (const std::string& file : pipeline.files)
    EXPECT_EQ(read_file(out_ / file), read_file(own_ / file)) << file;
}

TEST_F(PipelineFolder, AReplacedComponentLeavesNothingBehind) {
  put("other/config.json", "{\"_class_name\": \"UNet2DConditionModel\", \"new\": 1}");
  put("other/diffusion_pytorch_model.safetensors", weights(3));
  const Checkpoint other = open_folder(own_ / "other");
  fs::remove_all(own_ / "other");
  const Pipeline pipeline = open_pipeline(own_.path());
  write_pipeline(pipeline, {{"unet", &other}}, out_.path(), {.extra_files = {{"unet/plan.json", "{}"}}});
  EXPECT_THAT(open_pipeline(out_.path()).files,
              ElementsAre("model_index.json", "scheduler/scheduler_config.json", "unet/config.json",
                          "unet/diffusion_pytorch_model.safetensors", "unet/plan.json"));
  EXPECT_EQ(read_file(out_ / "unet/diffusion_pytorch_model.safetensors"), weights(3));
  EXPECT_EQ(read_file(out_ / "model_index.json"), kText);
}

TEST_F(PipelineFolder, WhatSpeaksOfTheModelAsItWasStaysBehind) {
  for (const char* file : {"report.html", "report.json", "repair.json", "scores.csv", "LICENSE", "plan.json"})
    put(file, "{}");
  put("scheduler/README.md", "");
  const Pipeline pipeline = open_pipeline(own_.path());
  const Checkpoint unet = open_folder(own_ / "unet");
  write_pipeline(pipeline, {{"unet", &unet}}, out_.path(), {});
  EXPECT_THAT(open_pipeline(out_.path()).files,
              ElementsAre("LICENSE", "model_index.json", "plan.json", "scheduler/README.md",
                          "scheduler/scheduler_config.json", "unet/config.json",
                          "unet/diffusion_pytorch_model.safetensors"));
}

TEST_F(PipelineFolder, TheIndexNamesTheClassThatTheConfigNames) {
  Checkpoint other = open_folder(own_ / "unet");
  other.config["_class_name"] = "LaminaUNet2DConditionModel";
  const Pipeline pipeline = open_pipeline(own_.path());
  write_pipeline(pipeline, {{"unet", &other}}, out_.path(), {});
  const Pipeline written = open_pipeline(out_.path());
  EXPECT_EQ(written.index.at("unet").at(1), "LaminaUNet2DConditionModel");
  EXPECT_EQ(written.index.at("scheduler"), pipeline.index.at("scheduler"));
}

TEST_F(PipelineFolder, WhatIsNotThereCannotBeReplaced) {
  const Pipeline pipeline = open_pipeline(own_.path());
  const Checkpoint none{};
  EXPECT_THAT(refusal([&] { write_pipeline(pipeline, {{"vae", &none}}, out_.path(), {}); }),
              HasSubstr("\"vae\""));
  EXPECT_THAT(
      refusal([&] { write_pipeline(pipeline, {}, out_.path(), {.extra_files = {{"unet/../../x", ""}}}); }),
      HasSubstr("inside the pipeline"));
}

TEST_F(PipelineFolder, OddIndexesAreRefused) {
  for (const char* name : {"../unet", "a/b", "..", ".", "", ".git", "a\\\\b", "a\\u0000"}) {
    put("model_index.json", fmt::format(R"({{"{}": ["diffusers", "X"]}})", name));
    EXPECT_THAT(refused(), HasSubstr("not the name of a folder")) << name;
  }
  for (const char* value : {"[]", "[null, \"X\"]", "[\"a\"]", "[\"a\", \"b\", \"c\"]", "{}", "[1, 2]"}) {
    put("model_index.json", fmt::format(R"({{"unet": {}}})", value));
    EXPECT_THAT(refused(), HasSubstr("[library, class]")) << value;
  }
  put("model_index.json", R"({"vae": ["diffusers", "AutoencoderKL"]})");
  EXPECT_THAT(refused(), HasSubstr("names \"vae\", but there is no such folder"));
  put("model_index.json", "[]");
  EXPECT_THAT(refused(), HasSubstr("not a JSON object"));
}

TEST_F(PipelineFolder, LinksMayNotLeadOut) {
  write_file(out_ / "secret", "x");
  fs::create_symlink(out_ / "secret", own_ / "unet/link.txt");
  EXPECT_THAT(refused(), HasSubstr("leads out of the pipeline"));
  fs::remove(own_ / "unet/link.txt");
  fs::create_directory_symlink(out_.path(), own_ / "vae");
  EXPECT_THAT(refused(), HasSubstr("not a file"));
  fs::remove(own_ / "vae");
  fs::create_symlink("config.json", own_ / "unet/again.json");
  EXPECT_EQ(open_pipeline(own_.path()).files.size(), 7U);
}

TEST_F(PipelineFolder, TheCacheOfTheHubLinksToItsBlobs) {
  fs::create_directories(out_ / "blobs");
  fs::create_directories(out_ / "snapshots/main/unet");
  write_file(out_ / "blobs/1", R"({"unet": ["diffusers", "X"]})");
  fs::create_symlink("../../blobs/1", out_ / "snapshots/main/model_index.json");
  EXPECT_TRUE(open_pipeline(out_ / "snapshots/main").has("unet"));
}

}  // namespace
}  // namespace lamina
