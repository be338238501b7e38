// The "added_tokens" of a tokenizer.json: texts such as <|im_end|> that are found before the model sees
// anything.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/data/vocabulary.h"

namespace lamina {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;      // left out by decode with skip_special
  bool single_word = false;  // found only between characters that are not of a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;
  bool normalized = true;  // looked for after the normalizer has run, not before
};

// `model` gives the ids of tokens that it knows. Throws Error on ids that clash.
std::vector<AddedToken> read_added_tokens(const Json& list, const Vocabulary& model, std::string_view what);

// Finds the added tokens of a text: leftmost first, and of those that start together the longest.
class AddedTokenFinder {
 public:
  void add(std::string_view content, const AddedToken& token);

  struct Found {
    const AddedToken* token = nullptr;
    size_t begin = 0, end = 0;  // with the white space that it takes
  };
  struct Search {
    bool special = true;  // false: special tokens are text like any other
  };
  // The first one at or after `from`; the text before `from` is spoken for.
  std::optional<Found> find(std::string_view text, size_t from, Search search) const;
  bool empty() const { return tokens_.empty(); }

 private:
  std::optional<Found> longest_at(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<uint64_t, uint32_t> edges_;  // a trie: node << 8 | byte to node; node 0 is the root
  std::vector<uint32_t> ends_ = {0};  // by node: 1 + index of the token that ends there, 0 for none
  bool first_bytes_[256] = {};
};

}  // namespace lamina
