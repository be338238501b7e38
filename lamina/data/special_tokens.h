// The tokens that are found in a text before it is split, as transformers puts them together from the files
// beside a vocabulary: those listed by id, then those that the settings name ("bos_token", ...).
#pragma once

#include <string>
#include <string_view>

#include "lamina/base/json.h"

namespace lamina {

class SpecialTokens {
 public:
  // `vocabulary` is an object of token to id. Throws Error naming `what` where an id is none.
  SpecialTokens(const Json& vocabulary, std::string_view what);

  // `settings` as in "added_tokens" of a tokenizer.json; one of the same text is replaced.
  void add(int64_t id, const Json& settings);
  // Those that `config` names and that are not here yet: a text, or an object with its "content". Of two of
  // one text, a text after an object, or an object after a text, wins; else the first. One that stands
  // nowhere gets the next free id.
  void add_named(const Json& config);

  int64_t id_of(const std::string& content) const;  // here, or in the vocabulary; else throws Error
  Json list() const;                                // "added_tokens", by id

 private:
  bool has(const std::string& content) const;
  const Json& vocabulary_;
  std::string_view what_;
  int64_t next_ = 0;
  Json list_ = Json::array();
};

// "bos_token": a text, or an added token with its text inside.
std::string token_content(const Json& token, std::string_view what);

// tokenizer_config.json with what special_tokens_map.json says beside it (either may be null). As in
// transformers, the map goes before, and is not read where the config lists its tokens by id.
Json token_settings(const Json& config, const Json& special_tokens_map, std::string_view what);

}  // namespace lamina
