#include "lamina/export/impl/sidecars.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/data/tokenizer.h"
#include "lamina/data/tokenizer_gguf.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

// A sidecar of a folder, parsed; null when it is not there.
Json sidecar(const Checkpoint& checkpoint, std::string_view name) {
  const auto it = std::ranges::find(checkpoint.sidecars, name, &Sidecar::name);
  if (it == checkpoint.sidecars.end()) return Json();
  if (const auto* text = std::get_if<std::string>(&it->body)) return parse_json(*text, name);
  const fs::path& path = std::get<fs::path>(it->body);
  return parse_json(read_file(path), path.string());
}

}  // namespace

void add_sidecars(Checkpoint& checkpoint) {
  if (!checkpoint.gguf || !checkpoint.gguf->find("tokenizer.ggml.model")) return;
  const Tokenizer tokenizer = Tokenizer::from_gguf(*checkpoint.gguf, checkpoint.path.string());
  const auto add = [&](std::string name, const Json& json) {
    checkpoint.sidecars.push_back({std::move(name), json.dump(2) + "\n"});
  };
  add("tokenizer.json", tokenizer.to_tokenizer_json());
  add("tokenizer_config.json", tokenizer.to_tokenizer_config());
  add("special_tokens_map.json", tokenizer.special_tokens_map());
  if (const auto chat = tokenizer.chat_template())
    checkpoint.sidecars.push_back({"chat_template.jinja", *chat});
  Json generation = {{"_from_model_config", true}};
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (json_has(checkpoint.config, key)) generation[key] = checkpoint.config.at(key);
  }
  add("generation_config.json", generation);
}

std::vector<std::pair<std::string, gguf::Value>> tokenizer_metadata(const Checkpoint& checkpoint) {
  const Json tokenizer = sidecar(checkpoint, "tokenizer.json");
  if (tokenizer.is_null())
    fail(
        "{}: has no tokenizer.json, which a GGUF needs; leave gguf out, or save the model with a fast "
        "tokenizer",
        checkpoint.path.string());
  Json config = sidecar(checkpoint, "tokenizer_config.json");
  const auto chat = std::ranges::find(checkpoint.sidecars, "chat_template.jinja", &Sidecar::name);
  if (config.is_object() && chat != checkpoint.sidecars.end() && !json_has(config, "chat_template")) {
    const auto* path = std::get_if<fs::path>(&chat->body);
    config["chat_template"] = path ? read_file(*path) : std::get<std::string>(chat->body);
  }
  const int64_t vocabulary = json_integer(checkpoint.config, "vocab_size", checkpoint.what());
  return tokenizer_to_gguf(tokenizer, config, vocabulary, (checkpoint.path / "tokenizer.json").string());
}

std::optional<std::string> no_gguf_tokenizer(const Checkpoint& checkpoint) {
  if (checkpoint.gguf) return std::nullopt;
  const auto it = std::ranges::find(checkpoint.sidecars, "tokenizer.json", &Sidecar::name);
  if (it == checkpoint.sidecars.end()) return "the folder has no tokenizer.json, which a GGUF needs";
  const auto* kept = std::get_if<std::string>(&it->body);
  std::string text = kept ? *kept : read_file(std::get<fs::path>(it->body));
  std::erase_if(text, [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; });
  for (const char* other : {"\"byte_fallback\":true", "\"type\":\"Unigram\"", "\"type\":\"WordPiece\""}) {
    if (text.find(other) != std::string::npos)
      return "only byte-level BPE tokenizers are written to a GGUF, and this one is another kind";
  }
  return std::nullopt;
}

}  // namespace lamina
