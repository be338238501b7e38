#include "lamina/data/byte_tokenizer.h"

#include "lamina/data/byte_level.h"
#include "lamina/data/byte_level_vocabulary.h"

namespace lamina {

namespace {

constexpr const char* kEnd = "<|endoftext|>";
constexpr std::string_view kMerges = "#version: 0.2\n";

Json vocabulary() {
  Json json = Json::object();
  for (int byte = 0; byte < 256; ++byte) json[byte_letters().letter[static_cast<size_t>(byte)]] = byte;
  json[kEnd] = 256;
  return json;
}

Json config() {
  return {{"add_prefix_space", false},
          {"bos_token", kEnd},
          {"eos_token", kEnd},
          {"unk_token", kEnd},
          {"tokenizer_class", "GPT2Tokenizer"}};
}

}  // namespace

Tokenizer byte_tokenizer() {
  return gpt2_tokenizer({.vocabulary = vocabulary(), .merges = kMerges, .config = config()},
                        "the tokenizer of bytes");
}

std::vector<std::pair<std::string, std::string>> byte_tokenizer_files(int64_t context) {
  Json settings = config();
  settings["model_max_length"] = context;
  const Tokenizer tokenizer = byte_tokenizer();
  const auto text = [](const Json& json) { return json.dump(2) + "\n"; };
  return {{"vocab.json", vocabulary().dump() + "\n"},
          {"merges.txt", std::string(kMerges)},
          {"tokenizer.json", text(tokenizer.to_tokenizer_json())},
          {"tokenizer_config.json", text(settings)},
          {"special_tokens_map.json", text({{"bos_token", kEnd}, {"eos_token", kEnd}, {"unk_token", kEnd}})}};
}

}  // namespace lamina
