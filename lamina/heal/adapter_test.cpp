#include "lamina/heal/adapter.h"

#include <gmock/gmock.h>

#include "lamina/base/file.h"
#include "lamina/base/random.h"
#include "lamina/tensor/autograd.h"
#include "lamina/tensor/tensor_file.h"
#include "tests/laws/tiny.h"

namespace lamina {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

const Architecture& named(std::string_view name) {
  for (const Architecture& architecture : architectures()) {
    if (architecture.name == name) return architecture;
  }
  fail("no {}", name);
}

// The architecture's tiny model with three classes in place of the LM head.
Json classifier_config(const Architecture& architecture) {
  Json config = architecture.tiny();
  config["architectures"] = {architecture.classifier};
  config["id2label"] = {{"0", "O"}, {"1", "B-X"}, {"2", "I-X"}};
  return config;
}

Opened tiny_opened(const fs::path& folder, std::string_view name, bool classifier, at::ScalarType dtype) {
  const Architecture& architecture = named(name);
  if (!fs::exists(folder))
    tiny::write(tiny::random_checkpoint(architecture, {.dtype = dtype,
                                                       .config = classifier ? classifier_config(architecture)
                                                                            : architecture.tiny()}),
                folder);
  return open(folder);
}

// Every number that is trained moves: an adapter whose B is zero says nothing.
Student moved(const Opened& opened, std::vector<std::string> targets = {},
              at::ScalarType dtype = at::kDouble) {
  Student student(opened,
                  {.dtype = dtype,
                   .lora = LoraOptions{.rank = 3, .alpha = 5, .targets = std::move(targets)},
                   .whole = opened.blueprint.labels > 0 ? std::vector{opened.blueprint.head_path() + ".*"}
                                                        : std::vector<std::string>{}});
  SplitMix random(5);
  const c10::NoGradGuard writing;
  for (Parameter& parameter : student.parameters()) {
    const Tensor numbers = at::empty(parameter.value.sizes(), at::kDouble);
    for (int64_t i = 0; i < numbers.numel(); ++i) numbers.data_ptr<double>()[i] = random.uniform() - 0.5;
    parameter.value.copy_(numbers);
  }
  return student;
}

class AdapterTest : public testing::Test {
 protected:
  tests::Folder folder;
  Opened opened(std::string_view name = "LlamaForCausalLM", bool classifier = true,
                at::ScalarType dtype = at::kDouble) {
    return tiny_opened(folder / fmt::format("{} {}", name, classifier), name, classifier, dtype);
  }
  const fs::path adapter = folder / "adapter";
  void write(const Opened& base, std::vector<std::string> targets = {}) {
    write_adapter(moved(base, std::move(targets)), "some/base", adapter);
  }
  Json config() { return parse_json(read_file(adapter / "adapter_config.json"), "config"); }
  void write(const Json& config) { write_file(adapter / "adapter_config.json", config.dump()); }
  // The adapter's tensors, changed and written back.
  void change(const std::function<void(std::vector<std::pair<std::string, Tensor>>&)>& edit) {
    std::vector<std::pair<std::string, Tensor>> tensors;
    {
      const TensorFile file(adapter / "adapter_model.safetensors");
      for (const Stored& stored : file.all())
        tensors.emplace_back(stored.name, load(stored, scalar_type(stored.dtype)).clone());
    }
    edit(tensors);
    AtomicFile file(adapter / "adapter_model.safetensors");
    save_tensors(file, tensors);
  }
  std::string reading() {
    return tests::refusal([&] { read_adapter(adapter); });
  }
  std::string merging(const Opened& base) {
    return tests::refusal([&] { with_adapter(base, read_adapter(adapter)); });
  }
};

TEST_F(AdapterTest, MergesWhatTheStudentHadLearnt) {
  const std::vector<int32_t> ids = tiny::tokens(7, 40, 3);
  for (const Architecture* architecture : tiny::listed()) {
    for (const bool classifier : {false, true}) {
      const Opened base = opened(architecture->name, classifier);
      const Student student = moved(base);
      fs::remove_all(adapter);
      write_adapter(student, "some/base", adapter);
      const Opened merged = with_adapter(base, read_adapter(adapter));
      const Tensor expected = tiny::logits(student.now(), ids), given = tiny::logits(merged, ids);
      EXPECT_LT(tiny::greatest_difference(expected, given), 1e-12) << architecture->name << classifier;
      EXPECT_GT(tiny::greatest_difference(expected, tiny::logits(base, ids)), 1e-3);
    }
  }
}

// A narrow model keeps what the products say: they are not rounded to its type.
TEST_F(AdapterTest, MergesInFloat32) {
  const Opened base = opened("LlamaForCausalLM", true, at::kBFloat16);
  const Student student = moved(base, {}, at::kFloat);
  write_adapter(student, "some/base", adapter);
  const Opened merged = with_adapter(base, read_adapter(adapter));
  const Stored* stored = merged.checkpoint.find("model.layers.0.self_attn.q_proj.weight");
  ASSERT_NE(stored, nullptr);
  EXPECT_EQ(stored->dtype, DType::f32);
  const std::vector<int32_t> ids = tiny::tokens(7, 40, 3);
  EXPECT_LT(tiny::greatest_difference(tiny::logits(student.now(DType::f32), ids), tiny::logits(merged, ids)),
            1e-5);
  EXPECT_EQ(merged.checkpoint.find("model.embed_tokens.weight")->dtype, DType::bf16);
}

TEST_F(AdapterTest, SaysWhatPeftWantsToKnow) {
  write(opened(), {"*.q_proj", "*.v_proj"});
  Json json = config();
  EXPECT_EQ(json["task_type"], "TOKEN_CLS");
  EXPECT_EQ(json["modules_to_save"], Json({"score"}));
  EXPECT_EQ(json["fan_in_fan_out"], false);
  EXPECT_EQ(json["base_model_name_or_path"], "some/base");
  EXPECT_NE(TensorFile(adapter / "adapter_model.safetensors").find("base_model.model.score.weight"),
            std::nullopt);
  // Square maps too are told by what they read and write.
  write(opened("GPT2LMHeadModel", false), {"*.attn.c_proj"});
  json = config();
  EXPECT_EQ(json["task_type"], "CAUSAL_LM");
  EXPECT_TRUE(json["modules_to_save"].is_null());
  EXPECT_EQ(json["fan_in_fan_out"], true);
  EXPECT_TRUE(json["target_modules"][0].get<std::string>().starts_with("transformer.h.0."));
}

TEST_F(AdapterTest, OfRankStabilizedTraining) {
  write(opened());
  Json json = config();
  EXPECT_DOUBLE_EQ(read_adapter(adapter).scale, 5.0 / 3);
  json["use_rslora"] = true;
  write(json);
  EXPECT_DOUBLE_EQ(read_adapter(adapter).scale, 5 / std::sqrt(3.0));
}

TEST_F(AdapterTest, IsToldFromAModel) {
  write(opened());
  EXPECT_TRUE(is_adapter(adapter));
  EXPECT_FALSE(is_adapter(opened().checkpoint.path));
  EXPECT_FALSE(is_adapter(folder / "nowhere"));
  EXPECT_THAT(tests::refusal([&] { read_adapter(folder / "nowhere"); }), HasSubstr("no such file"));
}

TEST_F(AdapterTest, DamagedFiles) {
  write(opened());
  const std::string text = read_file(adapter / "adapter_config.json");
  for (const char* bad : {"", "{", "[]", "null", "{\"peft_type\": 1}", "{\"peft_type\": \"LORA\", \"r\": 0}",
                          "{\"peft_type\": \"LORA\", \"r\": 3.5}", "{\"peft_type\": \"LORA\"}"}) {
    write_file(adapter / "adapter_config.json", bad);
    EXPECT_THAT(reading(), HasSubstr("adapter_config.json")) << bad;
  }
  write_file(adapter / "adapter_config.json", text);
  const std::string tensors = read_file(adapter / "adapter_model.safetensors");
  for (const size_t kept : {size_t{0}, size_t{5}, tensors.size() / 2, tensors.size() - 1}) {
    write_file(adapter / "adapter_model.safetensors", tensors.substr(0, kept));
    EXPECT_THAT(reading(), HasSubstr("adapter_model.safetensors")) << kept;
  }
  fs::remove(adapter / "adapter_model.safetensors");
  EXPECT_THAT(reading(), HasSubstr("adapter_model.safetensors"));
}

TEST_F(AdapterTest, OtherKinds) {
  write(opened());
  const Json whole = config();
  const auto with = [&](const char* key, const Json& value) {
    Json json = whole;
    json[key] = value;
    write(json);
    return reading();
  };
  EXPECT_THAT(with("peft_type", "IA3"), HasSubstr("LORA is read here"));
  EXPECT_THAT(with("use_dora", true), HasSubstr("DoRA"));
  EXPECT_THAT(with("rank_pattern", {{"q_proj", 8}}), HasSubstr("rank_pattern"));
  EXPECT_THAT(with("alpha_pattern", {{"q_proj", 8}}), HasSubstr("alpha_pattern"));
  EXPECT_THAT(with("r", 4), HasSubstr("says that the rank is 4"));
  EXPECT_THAT(with("lora_alpha", "much"), HasSubstr("lora_alpha"));
  write(whole);
  change([](auto& tensors) { tensors.front().first += ".lora_magnitude_vector"; });
  EXPECT_THAT(reading(), HasSubstr("not read here"));
}

TEST_F(AdapterTest, TensorsThatAreNone) {
  const auto refused = [&](const auto& edit, auto says) {
    write(opened());
    change(edit);
    EXPECT_THAT(reading(), says);
  };
  refused([](auto& tensors) { tensors.front().second[0][0] = NAN; }, HasSubstr("not finite"));
  refused([](auto& tensors) { tensors.front().second = tensors.front().second.to(at::kLong); },
          HasSubstr("no weights"));
  refused([](auto& tensors) { tensors.erase(tensors.begin()); }, HasSubstr("without .lora_A.weight"));
  refused([](auto& tensors) { tensors.front().first = "model.x"; }, HasSubstr("does not begin with"));
  refused([](auto& tensors) { tensors.clear(); }, HasSubstr("holds no tensor"));
  refused([](auto& tensors) { tensors.front().second = tensors.front().second.flatten(); },
          HasSubstr("the rank is 3"));
}

TEST_F(AdapterTest, AnotherModel) {
  write(opened());
  EXPECT_THAT(merging(opened("GPT2LMHeadModel")), HasSubstr("is it the adapter of another model?"));
  EXPECT_THAT(merging(opened("LlamaForCausalLM", false)), HasSubstr("\"score.weight\" has no place in"));
  Json config = classifier_config(named("LlamaForCausalLM"));
  config["id2label"]["3"] = "B-Y";
  tiny::write(tiny::random_checkpoint(named("LlamaForCausalLM"), {.config = config}), folder / "four");
  EXPECT_THAT(merging(open(folder / "four")), HasSubstr("where the model's has [4, "));
  config["intermediate_size"] = config["intermediate_size"].get<int>() + 8;
  tiny::write(tiny::random_checkpoint(named("LlamaForCausalLM"), {.config = config}), folder / "wide");
  EXPECT_THAT(merging(open(folder / "wide")), HasSubstr("where the model's goes from"));
  change([](auto& tensors) {
    for (auto& [name, tensor] : tensors) {
      if (name.ends_with("layers.0.self_attn.q_proj.lora_A.weight"))
        name = "base_model.model.model.embed_tokens.lora_A.weight";
      if (name.ends_with("layers.0.self_attn.q_proj.lora_B.weight"))
        name = "base_model.model.model.embed_tokens.lora_B.weight";
    }
  });
  EXPECT_THAT(merging(opened()), HasSubstr("is no linear map"));
}

}  // namespace
}  // namespace lamina
