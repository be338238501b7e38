#include "lamina/cli/text_of.h"

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/cli/texts.h"
#include "lamina/data/text_set.h"
#include "lamina/data/unicode.h"

namespace lamina::cli {

namespace fs = std::filesystem;

Tokenizer tokenizer_of(const Checkpoint& checkpoint) {
  if (checkpoint.gguf) return Tokenizer::from_gguf(*checkpoint.gguf, checkpoint.path.string());
  const fs::path path = checkpoint.path / "tokenizer.json",
                 config = checkpoint.path / "tokenizer_config.json";
  if (!fs::exists(path))
    fail("{}: has no tokenizer.json, which this needs; save the model with a fast tokenizer",
         checkpoint.path.string());
  Json settings = fs::exists(config) ? parse_json(read_file(config), config.string()) : Json();
  // Newer folders keep the template in a file of its own.
  if (const fs::path chat = checkpoint.path / "chat_template.jinja";
      settings.is_object() && fs::exists(chat) && !json_has(settings, "chat_template")) {
    settings["chat_template"] = read_file(chat);
  }
  return Tokenizer::from_json(parse_json(read_file(path), path.string()), settings, path.string());
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
