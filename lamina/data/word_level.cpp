#include "lamina/data/word_level.h"

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace {

const Json& vocab_of(const Json& component, std::string_view what) {
  const auto it = component.find("vocab");
  if (it == component.end()) fail("{}: the WordLevel model has no \"vocab\"", what);
  return *it;
}

}  // namespace

WordLevel::WordLevel(const Json& component, std::string_view what)
    : vocabulary_(vocab_of(component, what), what), what_(what) {
  if (!json_has(component, "unk_token")) fail("{}: the WordLevel model has no \"unk_token\"", what);
  unknown_word_ = json_string(component, "unk_token", what);
  unknown_ = vocabulary_.id_of(unknown_word_);
}

class WordLevel::Encoder : public PieceEncoder {
 public:
  Encoder(const WordLevel& model, EncoderHints hints) : model_(model) {
    ids_.reserve(hints.text_bytes / 6 + 16);  // a word and a space
  }

  void add(std::string_view piece) override {
    const auto id = model_.vocabulary_.id_of(piece);
    if (!id && !model_.unknown_)
      fail("{}: neither the word {} nor the unk_token {} is in the vocabulary", model_.what_,
           in_quotes(piece), in_quotes(model_.unknown_word_));
    ids_.push_back(id ? *id : *model_.unknown_);
  }

 private:
  const WordLevel& model_;
};

std::unique_ptr<PieceEncoder> WordLevel::encoder(EncoderHints hints) const {
  return std::make_unique<Encoder>(*this, hints);
}

}  // namespace lamina
