// A tokenizer as a model's folder describes it (tokenizer.json) or as a GGUF file holds it. Ids are equal to
// those of HF tokenizers. Immutable and cheap to copy; safe to use from many threads.
//
// Input that is not UTF-8 is first repaired as Python's bytes.decode("utf-8", "replace") does. "truncation"
// and "padding" of a tokenizer.json are kept in the document and not applied, as transformers does by
// default.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/format/gguf.h"

namespace lamina {

struct EncodeOptions {
  bool special_tokens = true;  // put what the tokenizer's post-processor adds around the text (BOS, EOS, ...)
  bool parse_special = true;   // read "<|im_end|>" in the text as that token; false: as the text that it is
};

struct DecodeOptions {
  bool skip_special = false;
};

class Tokenizer {
 public:
  // `tokenizer_config` may be null. Throws Error naming `what` for anything that the tokens would depend on
  // and that is damaged or not supported.
  static Tokenizer from_json(const Json& tokenizer_json, const Json& tokenizer_config, std::string_view what);
  static Tokenizer from_gguf(const gguf::File& file, std::string_view what);

  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;
  // Ids that stand for nothing are left out, as HF tokenizers does.
  std::string decode(std::span<const int32_t> ids, DecodeOptions options = {}) const;

  // What the post-processor adds around a text.
  std::span<const int32_t> before() const;
  std::span<const int32_t> after() const;

  int32_t size() const;                                     // one more than the largest id
  std::optional<std::string_view> token(int32_t id) const;  // as it stands in the vocabulary: "Ġthe"
  std::optional<int32_t> id_of(std::string_view token) const;
  bool is_special(int32_t id) const;
  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;
  std::optional<int32_t> pad() const;
  std::optional<std::string> chat_template() const;

  // The files of a model's folder. transformers' AutoTokenizer opens them and gives the same ids.
  Json to_tokenizer_json() const;
  Json to_tokenizer_config() const;
  Json special_tokens_map() const;

 private:
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

// Decodes tokens as they are generated: text comes out as soon as its characters are whole.
class TokenStream {
 public:
  explicit TokenStream(Tokenizer tokenizer, DecodeOptions options = {})
      : tokenizer_(std::move(tokenizer)), options_(options) {}

  std::string push(int32_t id);  // the new text; empty while a character is incomplete
  std::string finish();          // what was held back, incomplete characters as U+FFFD

 private:
  std::string show(std::string_view text);

  Tokenizer tokenizer_;
  DecodeOptions options_;
  std::vector<int32_t> window_;  // the last tokens: the text of a token can depend on the one before
  std::string prefix_;           // the text of the window that is out already
  size_t held_ = 0;              // tokens at the end of the window whose text is not out
};

}  // namespace lamina
