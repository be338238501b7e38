// A vocabulary of whole words: a piece is one token, or the unknown token. Equal to the WordLevel of HF
// tokenizers, id for id.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "lamina/data/token_model.h"

namespace lamina {

class WordLevel : public TokenModel {
 public:
  // {"vocab": {word: id}, "unk_token": "<unk>"}. As in HF tokenizers the unknown token may be missing from
  // the vocabulary; then a word that is missing from it too is an error when it is met.
  WordLevel(const Json& component, std::string_view what);

  std::unique_ptr<PieceEncoder> encoder(EncoderHints hints) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  class Encoder;

  Vocabulary vocabulary_;
  std::string what_, unknown_word_;
  std::optional<int32_t> unknown_;
};

}  // namespace lamina
