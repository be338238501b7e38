#include "lamina/data/added_tokens.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/unicode.h"

namespace lamina {

std::vector<AddedToken> read_added_tokens(const Json& list, const Vocabulary& model, std::string_view what) {
  if (list.is_null()) return {};
  if (!list.is_array()) fail("{}: \"added_tokens\" is not a list", what);
  std::vector<AddedToken> tokens;
  std::unordered_map<int32_t, std::string> content_of;
  for (const Json& entry : list) {
    AddedToken token;
    token.content = json_string(entry, "content", fmt::format("{}: an added token", what));
    if (token.content.empty()) continue;
    // Bounds the time of a search, which may look this far ahead from every byte of a text.
    constexpr size_t longest = 1000;
    if (token.content.size() > longest) {
      fail("{}: the added token {} is longer than {} bytes", what, in_quotes(token.content), longest);
    }
    const auto in_model = model.id_of(token.content);
    token.id = static_cast<int32_t>(json_integer(entry, "id", what, {0, Vocabulary::max_id}));
    if (in_model) token.id = *in_model;
    token.special = json_bool_or(entry, "special", false, what);
    token.single_word = json_bool_or(entry, "single_word", false, what);
    token.lstrip = json_bool_or(entry, "lstrip", false, what);
    token.rstrip = json_bool_or(entry, "rstrip", false, what);
    token.normalized = json_bool_or(entry, "normalized", !token.special, what);
    const auto [known, is_new] = content_of.emplace(token.id, token.content);
    const auto taken = in_model ? std::nullopt : model.token(token.id);
    if (taken || (!is_new && known->second != token.content)) {
      fail("{}: the added token {} has the id {}, which is taken by {}", what, in_quotes(token.content),
           token.id, in_quotes(taken ? *taken : std::string_view(known->second)));
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void AddedTokenFinder::add(std::string_view content, const AddedToken& token) {
  if (content.empty()) return;
  uint32_t node = 0;
  for (const char byte : content) {
    const uint64_t edge = uint64_t{node} << 8 | static_cast<unsigned char>(byte);
    const auto [it, is_new] = edges_.emplace(edge, static_cast<uint32_t>(ends_.size()));
    if (is_new) ends_.push_back(0);
    node = it->second;
  }
  if (ends_[node] != 0) return;  // the first of two equal ones stays
  tokens_.push_back(token);
  ends_[node] = static_cast<uint32_t>(tokens_.size());
  first_bytes_[static_cast<unsigned char>(content[0])] = true;
}

std::optional<AddedTokenFinder::Found> AddedTokenFinder::longest_at(std::string_view text, size_t at) const {
  std::optional<Found> found;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto edge = edges_.find(uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (ends_[node] != 0) found = Found{&tokens_[ends_[node] - 1], at, i + 1};
  }
  return found;
}

std::optional<AddedTokenFinder::Found> AddedTokenFinder::find(std::string_view text, size_t from,
                                                              Search search) const {
  if (tokens_.empty()) return std::nullopt;
  for (size_t at = from; at < text.size();) {
    if (!first_bytes_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    std::optional<Found> found = longest_at(text, at);
    if (!found) {
      ++at;
      continue;
    }
    const AddedToken& token = *found->token;
    const auto word_before = [&] {
      return found->begin > 0 && is_word(last_code_point(text.substr(0, found->begin)).value);
    };
    const auto word_after = [&] {
      return found->end < text.size() && is_word(first_code_point(text.substr(found->end)).value);
    };
    if ((token.special && !search.special) || (token.single_word && (word_before() || word_after()))) {
      at = found->end;  // a match that is passed over still hides those inside it
      continue;
    }
    if (token.lstrip) {
      const std::string_view before = text.substr(from, found->begin - from);
      found->begin = from + strip_right(before).size();
    }
    if (token.rstrip) found->end = text.size() - strip_left(text.substr(found->end)).size();
    return found;
  }
  return std::nullopt;
}

}  // namespace lamina
