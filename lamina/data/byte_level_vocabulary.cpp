#include "lamina/data/byte_level_vocabulary.h"

#include <algorithm>
#include <charconv>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace {

constexpr std::string_view kEndOfText = "<|endoftext|>";
constexpr const char* kNamedTokens[] = {"bos_token", "eos_token",  "unk_token",
                                        "pad_token", "mask_token", "additional_special_tokens"};

// "bos_token": a text, or an added token with its text inside.
std::string content_of(const Json& token, std::string_view what) {
  if (token.is_string()) return token.get<std::string>();
  return json_string(token, "content", what);
}

// The tokens that are found in a text before it is split: those the settings list by id, then those they
// name. One that stands nowhere yet gets the next free id, as transformers gives it.
class AddedTokens {
 public:
  AddedTokens(const Json& vocabulary, std::string_view what) : vocabulary_(vocabulary), what_(what) {
    for (const auto& [token, id] : vocabulary.items())
      next_ = std::max(next_, json_integer(vocabulary, token, what, {0, int64_t{1} << 30}) + 1);
  }

  void add(int64_t id, const Json& settings) {
    Json token = {{"id", id}};
    for (const char* key : {"content", "single_word", "lstrip", "rstrip", "normalized", "special"}) {
      if (json_has(settings, key)) token[key] = settings.at(key);
    }
    next_ = std::max(next_, id + 1);
    list.push_back(std::move(token));
  }

  void add_named(const Json& token) {
    const std::string content = content_of(token, what_);
    if (std::ranges::any_of(list, [&](const Json& known) { return known.at("content") == content; })) return;
    Json settings = token.is_object() ? token : Json{{"content", content}, {"normalized", false}};
    settings["special"] = true;
    const auto in_vocabulary = vocabulary_.find(content);
    add(in_vocabulary == vocabulary_.end() ? next_ : in_vocabulary->get<int64_t>(), settings);
  }

  int64_t id_of(const std::string& content) const {
    const auto found = std::ranges::find_if(list, [&](const Json& t) { return t.at("content") == content; });
    return found->at("id").get<int64_t>();
  }

  Json list = Json::array();

 private:
  const Json& vocabulary_;
  std::string_view what_;
  int64_t next_ = 0;
};

}  // namespace

Json merge_lines(std::string_view text, std::string_view what) {
  Json merges = Json::array();
  int number = 0;
  for (std::string& line : split(text, '\n')) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    if (std::ranges::count(line, ' ') != 1)
      fail("{}: line {} of merges.txt is {} where two tokens were expected", what, number,
           in_quotes(line, 40));
    merges.push_back(std::move(line));
  }
  return merges;
}

Tokenizer gpt2_tokenizer(const VocabularyFiles& files, std::string_view what) {
  if (!files.vocabulary.is_object() || files.vocabulary.empty())
    fail("{}: vocab.json holds no object of tokens and ids", what);
  Json config = files.config.is_null() ? Json::object() : files.config;
  if (!config.is_object()) fail("{}: tokenizer_config.json is no JSON object", what);
  for (const char* key : kNamedTokens) {
    if (!json_has(config, key) && json_has(files.special_tokens, key))
      config[key] = files.special_tokens.at(key);
  }
  for (const char* key : {"bos_token", "eos_token", "unk_token"}) {
    if (!config.contains(key)) config[key] = kEndOfText;
  }

  AddedTokens added(files.vocabulary, what);
  if (json_has(config, "added_tokens_decoder")) {
    const Json& decoder = config.at("added_tokens_decoder");
    if (!decoder.is_object()) fail("{}: added_tokens_decoder is no JSON object", what);
    for (const auto& [key, settings] : decoder.items()) {
      int64_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size() || id < 0 || !json_has(settings, "content"))
        fail("{}: added_tokens_decoder has the key {} where an id was expected, with its token", what,
             in_quotes(key, 40));
      added.add(id, settings);
    }
  }
  for (const char* key : kNamedTokens) {
    if (!json_has(config, key)) continue;
    if (config.at(key).is_array()) {
      for (const Json& token : config.at(key)) added.add_named(token);
    } else {
      added.add_named(config.at(key));
    }
  }

  const bool prefix_space = json_bool_or(config, "add_prefix_space", false, what);
  const auto byte_level = [](bool space) {
    return Json{
        {"type", "ByteLevel"}, {"add_prefix_space", space}, {"trim_offsets", true}, {"use_regex", true}};
  };
  Json document = {{"version", "1.0"},
                   {"truncation", nullptr},
                   {"padding", nullptr},
                   {"added_tokens", added.list},
                   {"normalizer", nullptr},
                   {"pre_tokenizer", byte_level(prefix_space)},
                   {"post_processor", byte_level(true)},
                   {"decoder", byte_level(true)},
                   {"model",
                    {{"type", "BPE"},
                     {"dropout", nullptr},
                     {"unk_token", nullptr},
                     {"continuing_subword_prefix", ""},
                     {"end_of_word_suffix", ""},
                     {"fuse_unk", false},
                     {"byte_fallback", false},
                     {"ignore_merges", false},
                     {"vocab", files.vocabulary},
                     {"merges", merge_lines(files.merges, what)}}}};
  if (json_bool_or(config, "add_bos_token", false, what) && json_has(config, "bos_token")) {
    const std::string bos = content_of(config.at("bos_token"), what);
    const Json token = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}},
               text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
               other = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
    document["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single", Json::array({token, text})},
        {"pair", Json::array({token, text, other})},
        {"special_tokens",
         {{bos, {{"id", bos}, {"ids", Json::array({added.id_of(bos)})}, {"tokens", Json::array({bos})}}}}}};
  }
  return Tokenizer::from_json(document, config, what);
}

}  // namespace lamina
