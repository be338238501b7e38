#include "lamina/data/clip_vocabulary.h"

#include <charconv>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/special_tokens.h"

namespace lamina {

namespace {

constexpr std::string_view kBegin = "<|startoftext|>", kEnd = "<|endoftext|>";

// Those that the settings list by id, and those of added_tokens.json, which are special where they are named.
void add_listed(SpecialTokens& tokens, const Json& config, const Json& added, std::string_view what) {
  if (json_has(config, "added_tokens_decoder")) {
    const Json& listed = config.at("added_tokens_decoder");
    if (!listed.is_object()) fail("{}: added_tokens_decoder is no JSON object", what);
    for (const auto& [key, settings] : listed.items()) {
      int64_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size() || id < 0 || !json_has(settings, "content"))
        fail("{}: added_tokens_decoder has the key {} where an id was expected, with its token", what,
             in_quotes(key, 40));
      tokens.add(id, settings);
    }
    return;
  }
  if (added.is_null()) return;
  if (!added.is_object()) fail("{}: added_tokens.json is no JSON object", what);
  for (const auto& [content, id] : added.items()) {
    bool named = false;
    for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"})
      named = named || token_content(config.at(key), what) == content;
    tokens.add(json_integer(added, content, what, {0, int64_t{1} << 30}),
               {{"content", content}, {"normalized", !named}, {"special", named}});
  }
}

Json normalizer() {
  return {{"type", "Sequence"},
          {"normalizers",
           {{{"type", "NFC"}},
            {{"type", "Replace"}, {"pattern", {{"Regex", "\\s+"}}}, {"content", " "}},
            {{"type", "Lowercase"}}}}};
}

Json pre_tokenizer() {
  constexpr std::string_view words =
      "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
  return {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", words}}}, {"behavior", "Removed"}, {"invert", true}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}}}};
}

// The end of a word is the space behind it. transformers does the second step outside of the document.
Json decoder() {
  return {{"type", "Sequence"},
          {"decoders",
           {{{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}},
            {{"type", "Replace"}, {"pattern", {{"String", "</w>"}}}, {"content", " "}},
            {{"type", "Strip"}, {"content", " "}, {"start", 0}, {"stop", 1}}}}};
}

}  // namespace

Tokenizer clip_tokenizer(const VocabularyFiles& files, std::string_view what) {
  if (!files.vocabulary.is_object() || files.vocabulary.empty())
    fail("{}: vocab.json holds no object of tokens and ids", what);
  Json config = token_settings(files.config, files.special_tokens, what);
  if (!json_has(config, "bos_token")) config["bos_token"] = kBegin;
  for (const char* key : {"eos_token", "unk_token", "pad_token"}) {
    if (!json_has(config, key)) config[key] = kEnd;
  }
  SpecialTokens tokens(files.vocabulary, what);
  add_listed(tokens, config, files.added, what);
  tokens.add_named(config);
  const auto with_id = [&](const char* key) {
    const std::string content = token_content(config.at(key), what);
    return Json::array({content, tokens.id_of(content)});
  };
  const Json document = {{"version", "1.0"},
                         {"truncation", nullptr},
                         {"padding", nullptr},
                         {"added_tokens", tokens.list()},
                         {"normalizer", normalizer()},
                         {"pre_tokenizer", pre_tokenizer()},
                         {"post_processor",
                          {{"type", "RobertaProcessing"},
                           {"sep", with_id("eos_token")},
                           {"cls", with_id("bos_token")},
                           {"trim_offsets", false},
                           {"add_prefix_space", false}}},
                         {"decoder", decoder()},
                         {"model",
                          {{"type", "BPE"},
                           {"dropout", nullptr},
                           {"unk_token", token_content(config.at("unk_token"), what)},
                           {"continuing_subword_prefix", ""},
                           {"end_of_word_suffix", "</w>"},
                           {"fuse_unk", false},
                           {"byte_fallback", false},
                           {"ignore_merges", false},
                           {"vocab", files.vocabulary},
                           {"merges", merge_lines(files.merges, what)}}}};
  return Tokenizer::from_json(document, config, what);
}

}  // namespace lamina
