#include "lamina/data/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/added_tokens.h"
#include "lamina/data/gguf_tokenizer.h"
#include "lamina/data/normalizer.h"
#include "lamina/data/post_processor.h"
#include "lamina/data/pre_tokenizer.h"
#include "lamina/data/token_decoder.h"
#include "lamina/data/token_model.h"
#include "lamina/data/unicode.h"

namespace lamina {

namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";

// A token in a tokenizer_config.json is its text or an object with "content".
std::optional<std::string> token_in_config(const Json& config, std::string_view key, std::string_view what) {
  if (!json_has(config, key)) return std::nullopt;
  const Json& token = config.at(std::string(key));
  return token.is_object() ? json_string(token, "content", what) : json_string(config, key, what);
}

}  // namespace

struct Tokenizer::State {
  Json document, config;
  std::unique_ptr<const TokenModel> model;
  std::vector<AddedToken> added;
  std::unordered_map<int32_t, const AddedToken*> added_by_id;
  std::unordered_map<std::string_view, int32_t> added_ids;
  AddedTokenFinder raw_finder, normalized_finder;
  Normalizer normalizer;  // empty if there is none, as are the next two
  PreTokenizer pre_tokenizer;
  TokenDecoder decoder;
  PostProcessor post_processor;
  std::optional<int32_t> bos, eos, pad;

  State(const Json& tokenizer_json, const Json& tokenizer_config, std::string_view what)
      : document(tokenizer_json), config(tokenizer_config) {
    if (!document.is_object() || !json_has(document, "model")) {
      fail("{}: this is no tokenizer.json: it has no \"model\"", what);
    }
    if (!config.is_null() && !config.is_object()) fail("{}: the tokenizer_config is not a JSON object", what);
    model = make_token_model(document.at("model"), what);
    if (json_has(document, "normalizer")) normalizer = make_normalizer(document.at("normalizer"), what);
    if (json_has(document, "pre_tokenizer"))
      pre_tokenizer = make_pre_tokenizer(document.at("pre_tokenizer"), what);
    if (json_has(document, "post_processor")) {
      post_processor = make_post_processor(document.at("post_processor"), what);
    }
    if (json_has(document, "decoder")) decoder = make_token_decoder(document.at("decoder"), what);

    added = read_added_tokens(document.value("added_tokens", Json()), model->vocabulary(), what);
    for (const AddedToken& token : added) {
      added_by_id.emplace(token.id, &token);
      added_ids.emplace(token.content, token.id);
      if (!token.normalized) {
        raw_finder.add(token.content, token);
      } else {
        normalized_finder.add(normalizer ? normalizer(token.content) : token.content, token);
      }
    }
    const auto id_in_config = [&](std::string_view key) -> std::optional<int32_t> {
      const auto content = token_in_config(config, key, what);
      return content ? id_of(*content) : std::nullopt;
    };
    bos = id_in_config("bos_token");
    eos = id_in_config("eos_token");
    pad = id_in_config("pad_token");
  }

  std::optional<int32_t> id_of(std::string_view token) const {
    const auto it = added_ids.find(token);
    if (it != added_ids.end()) return it->second;
    return model->vocabulary().id_of(token);
  }

  std::optional<std::string_view> token(int32_t id) const {
    const auto it = added_by_id.find(id);
    if (it != added_by_id.end()) return it->second->content;
    return model->vocabulary().token(id);
  }

  void encode_piece(Piece piece, PieceEncoder& encoder) const {
    if (!pre_tokenizer) return encoder.add(piece.text);
    pre_tokenizer(piece, [&](Piece part) { encoder.add(part.text); });
  }

  // Hands on the added tokens of `piece` as ids and what is between them as pieces.
  template <class Between>
  void split_at_added(const AddedTokenFinder& finder, Piece piece, AddedTokenFinder::Search search,
                      PieceEncoder& encoder, const Between& between) const {
    for (size_t done = 0;;) {
      const auto found = finder.find(piece.text, done, search);
      const size_t end = found ? std::max(found->begin, done) : piece.text.size();
      if (done < end) between(Piece{piece.text.substr(done, end - done), piece.at_start && done == 0});
      if (!found) return;
      encoder.add(found->token->id);
      done = found->end;
    }
  }
};

Tokenizer Tokenizer::from_json(const Json& tokenizer_json, const Json& tokenizer_config,
                               std::string_view what) {
  return Tokenizer(std::make_shared<const State>(tokenizer_json, tokenizer_config, what));
}

Tokenizer Tokenizer::from_gguf(const gguf::File& file, std::string_view what) {
  const TokenizerDocuments documents = tokenizer_documents(file, what);
  return from_json(documents.tokenizer, documents.config, what);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::string repaired;
  if (!is_utf8(text)) text = repaired = repair_utf8(text);
  const State& state = *state_;
  const AddedTokenFinder::Search search{.special = options.parse_special};
  const auto encoder = state.model->encoder({.text_bytes = text.size()});
  if (options.special_tokens) {
    for (const int32_t id : state.post_processor.before) encoder->add(id);
  }
  state.split_at_added(state.raw_finder, {text, true}, search, *encoder, [&](Piece piece) {
    std::string normalized;
    if (state.normalizer) piece.text = normalized = state.normalizer(std::string(piece.text));
    state.split_at_added(state.normalized_finder, piece, search, *encoder,
                         [&](Piece part) { state.encode_piece(part, *encoder); });
  });
  if (options.special_tokens) {
    for (const int32_t id : state.post_processor.after) encoder->add(id);
  }
  return encoder->take();
}

std::string Tokenizer::decode(std::span<const int32_t> ids, DecodeOptions options) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    if (options.skip_special && is_special(id)) continue;
    if (const auto text = state_->token(id)) tokens.emplace_back(*text);
  }
  std::string text;
  if (state_->decoder) {
    for (const std::string& part : state_->decoder(std::move(tokens))) text += part;
  } else {
    text = fmt::format("{}", fmt::join(tokens, " "));
  }
  return text;
}

std::span<const int32_t> Tokenizer::before() const {
  return state_->post_processor.before;
}

std::span<const int32_t> Tokenizer::after() const {
  return state_->post_processor.after;
}

int32_t Tokenizer::size() const {
  auto size = static_cast<int32_t>(state_->model->vocabulary().size());
  for (const AddedToken& token : state_->added) size = std::max(size, token.id + 1);
  return size;
}

std::optional<std::string_view> Tokenizer::token(int32_t id) const {
  return state_->token(id);
}
std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  return state_->id_of(token);
}
std::optional<int32_t> Tokenizer::bos() const {
  return state_->bos;
}
std::optional<int32_t> Tokenizer::eos() const {
  return state_->eos;
}
std::optional<int32_t> Tokenizer::pad() const {
  return state_->pad;
}

bool Tokenizer::is_special(int32_t id) const {
  const auto it = state_->added_by_id.find(id);
  return it != state_->added_by_id.end() && it->second->special;
}

std::optional<std::string> Tokenizer::chat_template() const {
  if (!json_has(state_->config, "chat_template")) return std::nullopt;
  const Json& value = state_->config.at("chat_template");
  if (value.is_string()) return value.get<std::string>();
  // An older form: a list of templates with names.
  if (value.is_array()) {
    for (const Json& entry : value) {
      if (entry.is_object() && entry.value("name", Json()) == "default" &&
          entry.value("template", Json()).is_string()) {
        return entry.at("template").get<std::string>();
      }
    }
  }
  return std::nullopt;
}

Json Tokenizer::to_tokenizer_json() const {
  return state_->document;
}

Json Tokenizer::to_tokenizer_config() const {
  if (state_->config.is_object()) return state_->config;
  return Json{{"tokenizer_class", "PreTrainedTokenizerFast"}};
}

Json Tokenizer::special_tokens_map() const {
  constexpr const char* keys[] = {"bos_token", "eos_token", "unk_token",  "sep_token",
                                  "pad_token", "cls_token", "mask_token", "additional_special_tokens"};
  Json map = Json::object();
  for (const char* key : keys) {
    if (json_has(state_->config, key)) map[key] = state_->config.at(key);
  }
  return map;
}

std::string TokenStream::push(int32_t id) {
  window_.push_back(id);
  ++held_;
  std::string text = tokenizer_.decode(window_, options_);
  // U+FFFD at the end is most likely a character whose other bytes are to come. Tokens of noise may never end
  // one.
  constexpr size_t most_held = 32;
  if (text.ends_with(replacement) && held_ < most_held) return {};
  return show(text);
}

std::string TokenStream::finish() {
  return held_ == 0 ? "" : show(tokenizer_.decode(window_, options_));
}

std::string TokenStream::show(std::string_view text) {
  std::string fresh = text.starts_with(prefix_) ? std::string(text.substr(prefix_.size()))
                                                : tokenizer_.decode(std::span(window_).last(held_), options_);
  // Keeps the shortest end of the window that does not begin inside a character.
  size_t kept = 1;
  for (size_t length = 1; length <= std::min<size_t>(4, window_.size()); ++length) {
    const auto split = std::span(window_).size() - length;
    const std::string head = tokenizer_.decode(std::span(window_).first(split), options_);
    if (text.substr(0, head.size()) == head && !head.ends_with(replacement)) {
      kept = length;
      break;
    }
  }
  window_.erase(window_.begin(), window_.end() - static_cast<ptrdiff_t>(kept));
  prefix_ = tokenizer_.decode(window_, options_);
  held_ = 0;
  return fresh;
}

}  // namespace lamina
