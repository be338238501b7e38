#include "lamina/data/prompt_tokenizer.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/text.h"
#include "lamina/data/clip_vocabulary.h"
#include "lamina/data/special_tokens.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kLongest = 1 << 16;

Json json_if_there(const fs::path& path) {
  return fs::exists(path) ? parse_json(read_file(path), path.string()) : Json();
}

bool is_clip(const Json& config, std::string_view what) {
  return json_string_or(config, "tokenizer_class", "", what).starts_with("CLIPTokenizer");
}

// transformers writes 1e30 for no limit.
int64_t length_in(const Json& config, const Json& document, std::string_view what) {
  const double most = json_number_or(config, "model_max_length", 0, what);
  if (most >= 1 && most <= kLongest) return static_cast<int64_t>(most);
  const Json padding = document.value("padding", Json()), truncation = document.value("truncation", Json());
  const Json strategy = padding.is_object() ? padding.value("strategy", Json()) : Json();
  if (json_has(strategy, "Fixed")) return json_integer(strategy, "Fixed", what, {1, kLongest});
  if (json_has(truncation, "max_length")) return json_integer(truncation, "max_length", what, {1, kLongest});
  fail("{}: nothing says how long a prompt is; set \"model_max_length\" in tokenizer_config.json", what);
}

int32_t pad_in(const Tokenizer& tokenizer, const Json& config, const Json& document, std::string_view what) {
  if (const auto pad = tokenizer.pad()) return *pad;
  const Json padding = document.value("padding", Json());
  if (json_has(padding, "pad_id"))
    return static_cast<int32_t>(json_integer(padding, "pad_id", what, {0, tokenizer.size() - 1}));
  if (is_clip(config, what) && tokenizer.eos()) return *tokenizer.eos();
  fail("{}: nothing says what short prompts are filled up with; set \"pad_token\" in tokenizer_config.json",
       what);
}

Tokenizer opened(const fs::path& folder) {
  const std::string what = folder.string();
  const Json config = json_if_there(folder / "tokenizer_config.json"),
             map = json_if_there(folder / "special_tokens_map.json");
  if (fs::exists(folder / "tokenizer.json")) {
    Json document = json_if_there(folder / "tokenizer.json");
    const Json settings = token_settings(config, map, what);
    // Tokens that the settings name and the document does not list are found in a text all the same.
    const Json model = document.is_object() ? document.value("model", Json()) : Json();
    const Json vocabulary = model.is_object() ? model.value("vocab", Json()) : Json();
    if (vocabulary.is_object()) {
      SpecialTokens tokens(vocabulary, what);
      const Json listed = document.value("added_tokens", Json());
      if (listed.is_array()) {
        for (const Json& token : listed) tokens.add(json_integer(token, "id", what), token);
      }
      tokens.add_named(settings);
      document["added_tokens"] = tokens.list();
    }
    return Tokenizer::from_json(document, settings, what);
  }
  const fs::path vocabulary = folder / "vocab.json", merges = folder / "merges.txt";
  if (!fs::exists(vocabulary) || !fs::exists(merges))
    fail("{}: holds neither a tokenizer.json nor a vocab.json with its merges.txt", what);
  if (json_has(config, "tokenizer_class") && !is_clip(config, what))
    fail("{}: is a {}, of which only the tokenizer.json is read here; save it with one", what,
         json_string(config, "tokenizer_class", what));
  const std::string text = read_file(merges);
  return clip_tokenizer({.vocabulary = json_if_there(vocabulary),
                         .merges = text,
                         .config = config,
                         .special_tokens = map,
                         .added = json_if_there(folder / "added_tokens.json")},
                        what);
}

}  // namespace

std::vector<int32_t> PromptTokenizer::ids(std::string_view prompt) const {
  const auto before = tokenizer.before(), after = tokenizer.after();
  const std::vector<int32_t> text = tokenizer.encode(prompt, {.special_tokens = false});
  const size_t room = static_cast<size_t>(length) - before.size() - after.size();
  std::vector<int32_t> ids(before.begin(), before.end());
  ids.insert(ids.end(), text.begin(), text.begin() + static_cast<ptrdiff_t>(std::min(room, text.size())));
  ids.insert(ids.end(), after.begin(), after.end());
  ids.resize(static_cast<size_t>(length), pad);
  return ids;
}

PromptTokenizer prompt_tokenizer(Tokenizer tokenizer, std::string_view what) {
  const Json config = tokenizer.to_tokenizer_config(), document = tokenizer.to_tokenizer_json();
  const int64_t length = length_in(config, document, what);
  const size_t around = tokenizer.before().size() + tokenizer.after().size();
  if (length <= static_cast<int64_t>(around))
    fail("{}: a prompt of {} tokens has no room beside the {} that stand around it", what, length, around);
  for (const Json* json : {&config, &document}) {
    const Json padding = json->value("padding", Json());
    const std::string side =
        json_string_or(*json, "padding_side", json_string_or(padding, "direction", "right", what), what);
    if (side != "right" && side != "Right")
      fail("{}: prompts are filled up on the {}; only right is known here", what, side);
  }
  const int32_t pad = pad_in(tokenizer, config, document, what);
  return {.tokenizer = std::move(tokenizer), .length = length, .pad = pad};
}

PromptTokenizer open_prompt_tokenizer(const fs::path& folder) {
  return prompt_tokenizer(opened(folder), folder.string());
}

}  // namespace lamina
