#include "lamina/data/special_tokens.h"

#include <algorithm>
#include <vector>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace {

constexpr IntegerRange kId{0, int64_t{1} << 30};
constexpr const char* kNamed[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};
constexpr const char* kLists[] = {"additional_special_tokens", "extra_special_tokens"};

Json named_settings(const Json& token, const std::string& content) {
  Json settings = token.is_object() ? token : Json{{"content", content}};
  if (!json_has(settings, "normalized")) settings["normalized"] = false;
  settings["special"] = true;
  return settings;
}

}  // namespace

std::string token_content(const Json& token, std::string_view what) {
  if (token.is_string()) return token.get<std::string>();
  return json_string(token, "content", what);
}

Json token_settings(const Json& config, const Json& special_tokens_map, std::string_view what) {
  Json settings = config.is_null() ? Json::object() : config;
  if (!settings.is_object()) fail("{}: tokenizer_config.json is no JSON object", what);
  if (json_has(settings, "added_tokens_decoder") || special_tokens_map.is_null()) return settings;
  if (!special_tokens_map.is_object()) fail("{}: special_tokens_map.json is no JSON object", what);
  for (const auto& [key, token] : special_tokens_map.items()) settings[key] = token;
  return settings;
}

SpecialTokens::SpecialTokens(const Json& vocabulary, std::string_view what)
    : vocabulary_(vocabulary), what_(what) {
  for (const auto& [token, id] : vocabulary.items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < kId.min || id.get<int64_t>() > kId.max)
      fail("{}: the vocabulary gives {} the id {}", what, in_quotes(token, 40), id.dump());
    next_ = std::max(next_, id.get<int64_t>() + 1);
  }
}

bool SpecialTokens::has(const std::string& content) const {
  return std::ranges::any_of(list_, [&](const Json& known) { return known.at("content") == content; });
}

void SpecialTokens::add(int64_t id, const Json& settings) {
  Json token = {{"id", id}, {"content", token_content(settings, what_)}};
  for (const char* key : {"single_word", "lstrip", "rstrip", "normalized", "special"}) {
    if (json_has(settings, key)) token[key] = settings.at(key);
  }
  next_ = std::max(next_, id + 1);
  const auto same = std::ranges::find_if(
      list_, [&](const Json& known) { return known.at("content") == token.at("content"); });
  if (same == list_.end())
    list_.push_back(std::move(token));
  else
    *same = std::move(token);
}

void SpecialTokens::add_named(const Json& config) {
  std::vector<Json> named;
  const auto name = [&](const Json& token) {
    const std::string content = token_content(token, what_);
    const bool known =
        has(content) || std::ranges::any_of(named, [&](const Json& other) {
          return other.is_object() == token.is_object() && token_content(other, what_) == content;
        });
    if (!known) named.push_back(token);
  };
  for (const char* key : kNamed) {
    if (json_has(config, key)) name(config.at(key));
  }
  for (const char* key : kLists) {
    if (!json_has(config, key) || !config.at(key).is_array()) continue;
    for (const Json& token : config.at(key)) name(token);
  }
  for (const Json& token : named) {
    const std::string content = token_content(token, what_);
    const bool stands = has(content) || vocabulary_.contains(content);
    add(stands ? id_of(content) : next_, named_settings(token, content));
  }
}

int64_t SpecialTokens::id_of(const std::string& content) const {
  for (const Json& token : list_) {
    if (token.at("content") == content) return token.at("id").get<int64_t>();
  }
  const auto it = vocabulary_.find(content);
  if (it == vocabulary_.end())
    fail("{}: {} stands neither in the vocabulary nor among the added tokens", what_, in_quotes(content, 40));
  return it->get<int64_t>();
}

Json SpecialTokens::list() const {
  std::vector<Json> tokens(list_.begin(), list_.end());
  std::ranges::sort(tokens, {}, [](const Json& token) { return token.at("id").get<int64_t>(); });
  return tokens;
}

}  // namespace lamina
