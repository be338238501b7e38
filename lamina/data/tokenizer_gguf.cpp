#include "lamina/data/tokenizer_gguf.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/gguf_tokenizer.h"
#include "lamina/data/tokenizer.h"

namespace lamina {

namespace {

constexpr int64_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

std::optional<int32_t> id_of_named(const Json& config, const char* key, const Tokenizer& tokenizer) {
  if (!config.is_object() || !json_has(config, key)) return std::nullopt;
  const Json& value = config.at(key);  // a text, or an added token with its text inside
  if (value.is_object()) return tokenizer.id_of(json_string(value, "content", "tokenizer_config.json"));
  return value.is_string() ? tokenizer.id_of(value.get<std::string>()) : std::nullopt;
}

}  // namespace

std::vector<std::pair<std::string, gguf::Value>> tokenizer_to_gguf(const Json& document, const Json& config,
                                                                   int64_t vocabulary,
                                                                   std::string_view what) {
  const Tokenizer tokenizer = Tokenizer::from_json(document, config, what);
  const Json& model = document.at("model");
  if (json_string_or(model, "type", "BPE", what) != "BPE" ||
      json_bool_or(model, "byte_fallback", false, what)) {
    fail(
        "{}: only byte-level BPE tokenizers are written to a GGUF; convert the folder with llama.cpp's own "
        "script instead",
        what);
  }
  const auto pre = gguf_pre_tokenizer_name(document);
  if (!pre)
    fail(
        "{}: llama.cpp has no name for this pre-tokenizer that is known here; convert the folder with "
        "llama.cpp's own script instead",
        what);

  std::vector<std::string> tokens;
  std::vector<int64_t> types;
  for (int32_t id = 0; id < static_cast<int32_t>(std::max<int64_t>(vocabulary, tokenizer.size())); ++id) {
    const auto token = tokenizer.token(id);
    tokens.push_back(token ? std::string(*token) : fmt::format("[PAD{}]", id));
    types.push_back(!token ? kUnused : tokenizer.is_special(id) ? kControl : kNormal);
  }
  if (static_cast<int64_t>(tokens.size()) > vocabulary)
    fail("{}: has {} tokens, the embedding {} rows", what, tokens.size(), vocabulary);
  if (json_has(document, "added_tokens")) {
    for (const Json& added : document.at("added_tokens")) {
      const int64_t id = json_integer(added, "id", what, {0, vocabulary - 1});
      if (!json_bool_or(added, "special", false, what)) types[static_cast<size_t>(id)] = kUserDefined;
    }
  }
  std::vector<std::string> merges;
  for (const Json& merge : model.at("merges"))
    merges.push_back(merge.is_array() ? merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>()
                                      : merge.get<std::string>());

  std::vector<std::pair<std::string, gguf::Value>> metadata = {
      {"tokenizer.ggml.model", gguf::make_string("gpt2")},
      {"tokenizer.ggml.pre", gguf::make_string(std::string(*pre))},
      {"tokenizer.ggml.tokens", gguf::make_strings(tokens)},
      {"tokenizer.ggml.token_type", gguf::make_i32s(types)},
      {"tokenizer.ggml.merges", gguf::make_strings(merges)},
  };
  for (const auto& [key, name] : {std::pair{"bos_token", "bos"},
                                  {"eos_token", "eos"},
                                  {"unk_token", "unknown"},
                                  {"pad_token", "padding"}}) {
    if (const auto id = id_of_named(config, key, tokenizer))
      metadata.emplace_back(fmt::format("tokenizer.ggml.{}_token_id", name),
                            gguf::make_u32(static_cast<uint32_t>(*id)));
  }
  const std::vector<int32_t> nothing = tokenizer.encode("");
  metadata.emplace_back("tokenizer.ggml.add_bos_token", gguf::make_bool(!nothing.empty() && tokenizer.bos() &&
                                                                        nothing.front() == *tokenizer.bos()));
  metadata.emplace_back("tokenizer.ggml.add_space_prefix", gguf::make_bool(false));
  if (const auto chat = tokenizer.chat_template())
    metadata.emplace_back("tokenizer.chat_template", gguf::make_string(*chat));
  return metadata;
}

}  // namespace lamina
