#include "lamina/heal/scene_tokens.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"

namespace lamina {

namespace {

constexpr std::string_view kBegin = "<|startoftext|>", kEnd = "<|endoftext|>", kUnknown = "<unk>";

// Words first; the end has the largest id, as in CLIP.
Json tokenizer_json() {
  Json vocabulary = Json::object(), added = Json::array();
  for (const std::string& word : scene::vocabulary()) vocabulary[word] = vocabulary.size();
  for (const std::string_view special : {kUnknown, kBegin, kEnd}) {
    added.push_back({{"id", vocabulary.size()},
                     {"content", special},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocabulary[std::string(special)] = vocabulary.size();
  }
  const auto special = [](std::string_view name) {
    return Json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
  };
  const auto text = [](std::string_view name) { return Json{{"Sequence", {{"id", name}, {"type_id", 0}}}}; };
  Json ids = Json::object();
  for (const std::string_view name : {kBegin, kEnd})
    ids[std::string(name)] = {{"id", name}, {"ids", {vocabulary[std::string(name)]}}, {"tokens", {name}}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", {{"type", "Lowercase"}}},
          {"pre_tokenizer", {{"type", "Whitespace"}}},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single", {special(kBegin), text("A"), special(kEnd)}},
            {"pair", {special(kBegin), text("A"), special(kEnd), text("B"), special(kEnd)}},
            {"special_tokens", std::move(ids)}}},
          {"decoder", nullptr},
          {"model", {{"type", "WordLevel"}, {"vocab", std::move(vocabulary)}, {"unk_token", kUnknown}}}};
}

Json tokenizer_config() {
  return {{"tokenizer_class", "PreTrainedTokenizerFast"},
          {"model_max_length", kSceneTokens},
          {"bos_token", kBegin},
          {"eos_token", kEnd},
          {"pad_token", kEnd},
          {"unk_token", kUnknown},
          {"clean_up_tokenization_spaces", false}};
}

class SceneTokens : public CaptionTokens {
 public:
  Tensor operator()(const std::vector<std::string>& captions) const override {
    Tensor rows = at::full({static_cast<int64_t>(captions.size()), kSceneTokens},
                           static_cast<int64_t>(tokenizer_.eos().value()), at::kLong);
    auto* data = rows.data_ptr<int64_t>();
    for (size_t i = 0; i < captions.size(); ++i) {
      const std::vector<int32_t> ids = tokenizer_.encode(captions[i]);
      if (std::ssize(ids) > kSceneTokens)
        fail("a caption has {} tokens; {} is the most", ids.size(), kSceneTokens);
      std::ranges::copy(ids, data + static_cast<int64_t>(i) * kSceneTokens);
    }
    return rows;
  }
  std::string digest() const override { return sha256_hex(tokenizer_json().dump()).substr(0, 16); }

 private:
  Tokenizer tokenizer_ = scene_tokenizer();
};

}  // namespace

Tokenizer scene_tokenizer() {
  return Tokenizer::from_json(tokenizer_json(), tokenizer_config(), "the tokenizer of scenes");
}

std::map<std::string, std::string> scene_tokenizer_files() {
  const auto text = [](const Json& json) { return json.dump(2) + "\n"; };
  return {{"tokenizer.json", text(tokenizer_json())},
          {"tokenizer_config.json", text(tokenizer_config())},
          {"special_tokens_map.json",
           text({{"bos_token", kBegin}, {"eos_token", kEnd}, {"pad_token", kEnd}, {"unk_token", kUnknown}})}};
}

std::unique_ptr<CaptionTokens> scene_tokens() {
  return std::make_unique<SceneTokens>();
}

}  // namespace lamina
