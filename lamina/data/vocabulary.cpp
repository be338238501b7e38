#include "lamina/data/vocabulary.h"

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

Vocabulary::Vocabulary(const Json& vocab, std::string_view what) {
  if (!vocab.is_object()) fail("{}: \"vocab\" is not an object of tokens and their ids", what);
  if (vocab.empty()) fail("{}: the vocabulary is empty", what);
  ids_.reserve(vocab.size());
  int64_t largest = 0;
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_integer()) fail("{}: the id of the token {} is not an integer", what, in_quotes(token));
    const auto number = id.get<int64_t>();
    if (number < 0 || number > max_id) {
      fail("{}: the id {} of the token {} is outside 0 to {}", what, number, in_quotes(token), max_id);
    }
    largest = std::max(largest, number);
    ids_.emplace(token, static_cast<int32_t>(number));
  }
  // A few far-off ids would otherwise ask for a table as large as the largest.
  const auto tokens = static_cast<int64_t>(ids_.size());
  if (largest > 4 * tokens + (1 << 16)) {
    fail("{}: the largest token id is {}, but there are only {} tokens; is the vocabulary damaged?", what,
         thousands(largest), thousands(tokens));
  }
  tokens_.resize(static_cast<size_t>(largest) + 1);
  for (const auto& [token, id] : ids_) {
    const std::string*& place = tokens_[static_cast<size_t>(id)];
    if (place) {
      const auto [first, second] = std::minmax(*place, token);
      fail("{}: the tokens {} and {} have the same id {}", what, in_quotes(first), in_quotes(second), id);
    }
    place = &token;
  }
}

std::optional<int32_t> Vocabulary::id_of(std::string_view token) const {
  const auto it = ids_.find(token);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

std::optional<std::string_view> Vocabulary::token(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size() || !tokens_[static_cast<size_t>(id)])
    return std::nullopt;
  return *tokens_[static_cast<size_t>(id)];
}

}  // namespace lamina
