#include "lamina/cli/text_of.h"

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/cli/texts.h"
#include "lamina/data/byte_level_vocabulary.h"
#include "lamina/data/text_set.h"
#include "lamina/data/unicode.h"
#include "lamina/plan/plan.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

Json json_if_there(const fs::path& path) {
  return fs::exists(path) ? parse_json(read_file(path), path.string()) : Json();
}

// Other tokenizers come in the same two files; only what says that it is GPT-2's is read so.
bool is_gpt2(const Checkpoint& checkpoint, const Json& settings) {
  const std::string type =
      json_has(settings, "tokenizer_class")
          ? json_string(settings, "tokenizer_class", checkpoint.path.string())
          : stock_name(json_string_or(checkpoint.config, "model_type", "", checkpoint.what()));
  return type == "GPT2Tokenizer" || type == "GPT2TokenizerFast" || type == "gpt2";
}

}  // namespace

Tokenizer tokenizer_of(const Checkpoint& checkpoint) {
  if (checkpoint.gguf) return Tokenizer::from_gguf(*checkpoint.gguf, checkpoint.path.string());
  const fs::path path = checkpoint.path / "tokenizer.json", vocabulary = checkpoint.path / "vocab.json",
                 merges = checkpoint.path / "merges.txt";
  Json settings = json_if_there(checkpoint.path / "tokenizer_config.json");
  // Newer folders keep the template in a file of its own.
  if (const fs::path chat = checkpoint.path / "chat_template.jinja";
      settings.is_object() && fs::exists(chat) && !json_has(settings, "chat_template")) {
    settings["chat_template"] = read_file(chat);
  }
  if (fs::exists(path))
    return Tokenizer::from_json(parse_json(read_file(path), path.string()), settings, path.string());
  if (fs::exists(vocabulary) && fs::exists(merges) && is_gpt2(checkpoint, settings)) {
    const std::string text = read_file(merges);
    return gpt2_tokenizer({.vocabulary = json_if_there(vocabulary),
                           .merges = text,
                           .config = settings,
                           .special_tokens = json_if_there(checkpoint.path / "special_tokens_map.json")},
                          checkpoint.path.string());
  }
  fail("{}: has no tokenizer.json, which this needs; save the model with a fast tokenizer",
       checkpoint.path.string());
}

NamedText text_from(const fs::path& path) {
  const std::string text = read_text_file(path);
  return {repair_utf8(path.filename().native()), text, sha256_hex(MappedFile::open(path)->bytes())};
}

NamedText embedded_calibration() {
  const std::string_view text = embedded(texts(), "../../texts/calibration.txt");
  return {"the embedded calibration text", std::string(text), sha256_hex(text)};
}

NamedText embedded_heldout() {
  const std::string_view text = embedded(texts(), "../../texts/heldout.txt");
  return {"the embedded held-out text", std::string(text), sha256_hex(text)};
}

}  // namespace lamina::cli
