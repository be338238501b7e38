// The tokens of a model, by id and by text. Every id stands for at most one text and every text for one id;
// ids may leave small holes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lamina/base/json.h"

namespace lamina {

class Vocabulary {
 public:
  static constexpr int32_t max_id =
      (1 << 24) - 1;  // far above any real vocabulary; keeps tables of ids bounded

  // An object of text to id, as "vocab" of a tokenizer.json. Throws Error on duplicate, negative and far-off
  // ids.
  Vocabulary(const Json& vocab, std::string_view what);
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  size_t size() const { return tokens_.size(); }  // one more than the largest id
  std::optional<int32_t> id_of(std::string_view token) const;
  std::optional<std::string_view> token(int32_t id) const;  // nothing for a hole

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::vector<const std::string*> tokens_;  // by id: the keys of ids_, or null for a hole
};

}  // namespace lamina
