// The "model" of a tokenizer.json: turns one piece of text into ids. BPE and WordLevel are those there are;
// WordPiece and Unigram are further subclasses and further lines in the table of `make_token_model`.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/data/vocabulary.h"

namespace lamina {

// The ids of one text as they grow, with the scratch memory of the model: belongs to one call and one thread.
class PieceEncoder {
 public:
  virtual ~PieceEncoder() = default;
  virtual void add(std::string_view piece) = 0;  // valid UTF-8, not empty
  void add(int32_t id) { ids_.push_back(id); }
  std::vector<int32_t> take() { return std::move(ids_); }

 protected:
  std::vector<int32_t> ids_;
};

struct EncoderHints {
  size_t text_bytes = 0;  // how much is to come; sizes the cache
};

// Immutable, and safe to share between threads.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual std::unique_ptr<PieceEncoder> encoder(EncoderHints hints) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
};

std::unique_ptr<const TokenModel> make_token_model(const Json& component, std::string_view what);

}  // namespace lamina
