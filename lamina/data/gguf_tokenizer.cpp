#include "lamina/data/gguf_tokenizer.h"

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/unicode.h"
#include "lamina/data/vocabulary.h"

namespace lamina {

namespace {

constexpr const char* space_mark = "\xE2\x96\x81";  // ▁

// ---- pre-tokenizers by llama.cpp's name

constexpr const char* llama3_words =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* qwen2_words =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* tekken_words =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* gpt4o_words =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* deepseek3_words =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

Json byte_level(std::string_view use) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use == "words"}};
}

Json split(const char* regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

Json digits() {
  return {{"type", "Digits"}, {"individual_digits", true}};
}

Json sequence(Json parts) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}};
}

Json gpt2() {
  return byte_level("words");
}
Json digits_then_gpt2() {
  return sequence(Json::array({digits(), byte_level("words")}));
}
template <const char* const& regex>
Json words_then_bytes() {
  return sequence(Json::array({split(regex), byte_level("bytes")}));
}
Json deepseek_coder() {
  return sequence(Json::array({split("[\\r\\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"),
                               split("[一-龥ࠀ-一가-퟿]+"), digits(), byte_level("bytes")}));
}
Json deepseek3() {
  return sequence(Json::array({split("\\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"),
                               split(deepseek3_words), byte_level("bytes")}));
}
// llama.cpp's fallback for files that do not say; no HF model has it.
Json llama_cpp_default() {
  return sequence(Json::array(
      {split("[\\p{P}\\$\\+<=>\\^~\\|]+"), byte_level("words"), split("\\p{N}+"), split("[0-9][0-9][0-9]")}));
}

struct PreTokenizerName {
  std::string_view name;
  Json (*pre_tokenizer)();
  bool nfc = false;            // the normalizer
  bool ignore_merges = false;  // a piece that is a token stays one, whatever the merges say
  bool add_bos = false;        // when the file does not say
};

constexpr PreTokenizerName pre_tokenizers[] = {
    {.name = "gpt-2", .pre_tokenizer = gpt2},
    {.name = "phi-2", .pre_tokenizer = gpt2},
    {.name = "mpt", .pre_tokenizer = gpt2},
    {.name = "olmo", .pre_tokenizer = gpt2},
    {.name = "jina-en", .pre_tokenizer = gpt2},
    {.name = "smollm", .pre_tokenizer = digits_then_gpt2},
    {.name = "starcoder", .pre_tokenizer = digits_then_gpt2},
    {.name = "refact", .pre_tokenizer = digits_then_gpt2},
    {.name = "codeshell", .pre_tokenizer = digits_then_gpt2},
    {.name = "command-r", .pre_tokenizer = digits_then_gpt2, .nfc = true},
    {.name = "llama-bpe",
     .pre_tokenizer = words_then_bytes<llama3_words>,
     .ignore_merges = true,
     .add_bos = true},
    {.name = "llama3",
     .pre_tokenizer = words_then_bytes<llama3_words>,
     .ignore_merges = true,
     .add_bos = true},
    {.name = "llama-v3",
     .pre_tokenizer = words_then_bytes<llama3_words>,
     .ignore_merges = true,
     .add_bos = true},
    {.name = "dbrx", .pre_tokenizer = words_then_bytes<llama3_words>},
    {.name = "smaug-bpe", .pre_tokenizer = words_then_bytes<llama3_words>},
    {.name = "qwen2", .pre_tokenizer = words_then_bytes<qwen2_words>, .nfc = true},
    {.name = "deepseek-r1-qwen", .pre_tokenizer = words_then_bytes<qwen2_words>, .nfc = true},
    {.name = "stablelm2", .pre_tokenizer = words_then_bytes<qwen2_words>},
    {.name = "tekken", .pre_tokenizer = words_then_bytes<tekken_words>, .ignore_merges = true},
    {.name = "gpt-4o", .pre_tokenizer = words_then_bytes<gpt4o_words>},
    {.name = "deepseek-coder", .pre_tokenizer = deepseek_coder},
    {.name = "deepseek-v3", .pre_tokenizer = deepseek3},
    {.name = "default", .pre_tokenizer = llama_cpp_default},
};

const PreTokenizerName& pre_tokenizer_named(std::string_view name, std::string_view what) {
  for (const PreTokenizerName& known : pre_tokenizers) {
    if (known.name == name) return known;
  }
  std::vector<std::string_view> names;
  for (const PreTokenizerName& known : pre_tokenizers) names.push_back(known.name);
  fail("{}: the pre-tokenizer {} (tokenizer.ggml.pre) is not supported; the supported ones are {}", what,
       in_quotes(name), fmt::join(names, ", "));
}

// ---- what the file holds

enum class TokenKind : int64_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct GgufVocabulary {
  std::vector<std::string> tokens;
  std::vector<TokenKind> kinds;  // as many as tokens
  std::optional<int64_t> bos, eos, unknown, pad;

  const std::string& token(int64_t id) const { return tokens[static_cast<size_t>(id)]; }
};

template <class Element>
const std::vector<Element>* list(const gguf::File& file, std::string_view key, size_t size,
                                 std::string_view what) {
  const gguf::Value* value = file.find(key);
  if (!value) return nullptr;
  const auto* array = std::get_if<gguf::Array>(&value->data);
  const auto* items = array ? std::get_if<std::vector<Element>>(&array->items) : nullptr;
  if (!items) fail("{}: {} is not a list of the expected type", what, key);
  if (items->size() != size) fail("{}: {} has {} entries for {} tokens", what, key, items->size(), size);
  return items;
}

GgufVocabulary read_vocabulary(const gguf::File& file, std::string_view what) {
  GgufVocabulary vocabulary{.tokens = file.strings("tokenizer.ggml.tokens"),
                            .kinds = {},
                            .bos = {},
                            .eos = {},
                            .unknown = {},
                            .pad = {}};
  const auto count = static_cast<int64_t>(vocabulary.tokens.size());
  if (count == 0 || count > Vocabulary::max_id) {
    fail("{}: tokenizer.ggml.tokens holds {} tokens, outside 1 to {}", what, count, Vocabulary::max_id);
  }
  std::unordered_map<std::string_view, size_t> seen;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    if (!is_utf8(token)) fail("{}: the token {} ({}) is not UTF-8", what, id, in_quotes(token));
    const auto [first, is_new] = seen.emplace(token, id);
    if (!is_new)
      fail("{}: the tokens {} and {} have the same text {}", what, first->second, id, in_quotes(token));
  }
  const auto id_under = [&](std::string_view key) -> std::optional<int64_t> {
    const int64_t id = file.integer_or(key, -1);
    if (id < 0 || id >= count) return std::nullopt;  // converters write 2^32-1 for "none"
    return id;
  };
  vocabulary.bos = id_under("tokenizer.ggml.bos_token_id");
  vocabulary.eos = id_under("tokenizer.ggml.eos_token_id");
  vocabulary.unknown = id_under("tokenizer.ggml.unknown_token_id");
  vocabulary.pad = id_under("tokenizer.ggml.padding_token_id");

  vocabulary.kinds.assign(vocabulary.tokens.size(), TokenKind::normal);
  if (const auto* kinds = list<int64_t>(file, "tokenizer.ggml.token_type", vocabulary.tokens.size(), what)) {
    std::transform(kinds->begin(), kinds->end(), vocabulary.kinds.begin(),
                   [](int64_t kind) { return static_cast<TokenKind>(kind); });
  } else {
    for (const auto id : {vocabulary.bos, vocabulary.eos}) {
      if (id) vocabulary.kinds[static_cast<size_t>(*id)] = TokenKind::control;
    }
  }
  return vocabulary;
}

// ---- the two models

// Merges for a vocabulary of scores (SentencePiece's BPE): every way to split a token into two others, the
// best score first, as transformers converts such models.
Json merges_by_score(const GgufVocabulary& vocabulary, const std::vector<double>& scores) {
  struct Merge {
    double score;
    size_t left_length, right_length;  // characters
    size_t token, left_id, right_id;
    std::string_view left, right;

    bool operator<(const Merge& other) const {
      const auto key = [](const Merge& m) { return std::tie(m.score, m.left_length, m.right_length); };
      if (key(*this) != key(other)) return key(*this) > key(other);
      return std::tie(token, left_id, right_id) < std::tie(other.token, other.left_id, other.right_id);
    }
  };
  std::unordered_map<std::string_view, size_t> ids;
  const auto takes_part = [&](size_t id) {
    return vocabulary.kinds[id] == TokenKind::normal || vocabulary.kinds[id] == TokenKind::user_defined;
  };
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (takes_part(id)) ids.emplace(vocabulary.tokens[id], id);
  }
  std::vector<Merge> merges;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (!takes_part(id)) continue;
    const std::string_view token = vocabulary.tokens[id];
    const size_t length = count_code_points(token);
    // A sane token is short; the splits of a long one would take quadratic time.
    if (length > 512) continue;
    size_t left_length = 0;
    for (size_t cut = 0; cut < token.size();) {
      cut += first_code_point(token.substr(cut)).length;
      ++left_length;
      const auto left = ids.find(token.substr(0, cut));
      const auto right = ids.find(token.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      merges.push_back({scores[id], left_length, length - left_length, id, left->second, right->second,
                        left->first, right->first});
    }
  }
  std::sort(merges.begin(), merges.end());
  // "left right" is what every version of the tokenizers library reads, but cannot hold a token with a space.
  const bool in_pairs = std::any_of(merges.begin(), merges.end(), [](const Merge& merge) {
    return merge.left.find(' ') != std::string_view::npos || merge.right.find(' ') != std::string_view::npos;
  });
  Json out = Json::array();
  for (const Merge& merge : merges) {
    if (in_pairs) {
      out.push_back(Json::array({merge.left, merge.right}));
    } else {
      out.push_back(fmt::format("{} {}", merge.left, merge.right));
    }
  }
  return out;
}

Json replace(const char* pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{"String", pattern}}}, {"content", content}};
}

// The parts of a tokenizer.json that depend on the kind of model.
struct Parts {
  Json normalizer, pre_tokenizer, decoder, merges;
  bool ignore_merges = false;
  bool byte_fallback = false;
  bool add_bos = false;  // when the file does not say
};

Parts sentencepiece_parts(const gguf::File& file, const GgufVocabulary& vocabulary, std::string_view what) {
  const auto* scores = list<double>(file, "tokenizer.ggml.scores", vocabulary.tokens.size(), what);
  if (!scores) fail("{}: tokenizer.ggml.scores is missing", what);
  const gguf::Value* prefix = file.find("tokenizer.ggml.add_space_prefix");
  const bool* prefix_value = prefix ? std::get_if<bool>(&prefix->data) : nullptr;
  const bool add_prefix = !prefix_value || *prefix_value;

  Json normalizers = Json::array();
  Json decoders = Json::array({replace(space_mark, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (add_prefix) {
    normalizers.push_back({{"type", "Prepend"}, {"prepend", space_mark}});
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  normalizers.push_back(replace(" ", space_mark));
  return {.normalizer = {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}},
          .pre_tokenizer = nullptr,
          .decoder = {{"type", "Sequence"}, {"decoders", std::move(decoders)}},
          .merges = merges_by_score(vocabulary, *scores),
          .ignore_merges = false,
          .byte_fallback = true,
          .add_bos = true};
}

Parts byte_level_parts(const gguf::File& file, std::string_view what) {
  const PreTokenizerName& pre = pre_tokenizer_named(file.string_or("tokenizer.ggml.pre", "default"), what);
  const std::vector<std::string>& merges = file.strings("tokenizer.ggml.merges");
  for (const std::string& merge : merges) {
    if (!is_utf8(merge)) fail("{}: the merge {} is not UTF-8", what, in_quotes(merge));
  }
  return {.normalizer = pre.nfc ? Json{{"type", "NFC"}} : Json(),
          .pre_tokenizer = pre.pre_tokenizer(),
          .decoder = byte_level("words"),
          .merges = merges,
          .ignore_merges = pre.ignore_merges,
          .byte_fallback = false,
          .add_bos = pre.add_bos};
}

// ---- the documents

bool flag(const gguf::File& file, std::string_view key, bool otherwise) {
  const gguf::Value* value = file.find(key);
  const bool* set = value ? std::get_if<bool>(&value->data) : nullptr;
  return set ? *set : otherwise;
}

Json post_processor(const GgufVocabulary& vocabulary, const std::vector<int64_t>& before,
                    const std::vector<int64_t>& after) {
  Json single = Json::array(), pair = Json::array(), special = Json::object();
  const auto put_specials = [&](const std::vector<int64_t>& ids, Json& list, int type) {
    for (const int64_t id : ids) {
      const std::string& token = vocabulary.token(id);
      list.push_back({{"SpecialToken", {{"id", token}, {"type_id", type}}}});
      special[token] = {{"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}};
    }
  };
  const auto put_text = [&](const char* name, Json& list, int type) {
    put_specials(before, list, type);
    list.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    put_specials(after, list, type);
  };
  put_text("A", single, 0);
  put_text("A", pair, 0);
  put_text("B", pair, 1);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

}  // namespace

TokenizerDocuments tokenizer_documents(const gguf::File& file, std::string_view what) {
  const std::string model = file.string("tokenizer.ggml.model");
  const bool is_sentencepiece = model == "llama";
  if (!is_sentencepiece && model != "gpt2") {
    fail(
        "{}: the tokenizer model {} (tokenizer.ggml.model) is not supported; the supported ones are llama "
        "and gpt2",
        what, in_quotes(model));
  }
  GgufVocabulary vocabulary = read_vocabulary(file, what);
  if (is_sentencepiece) {
    const auto otherwise = [&](std::optional<int64_t>& id, std::string_view key, size_t standard) {
      if (!file.find(key) && standard < vocabulary.tokens.size()) id = static_cast<int64_t>(standard);
    };
    otherwise(vocabulary.unknown, "tokenizer.ggml.unknown_token_id", 0);
    otherwise(vocabulary.bos, "tokenizer.ggml.bos_token_id", 1);
    otherwise(vocabulary.eos, "tokenizer.ggml.eos_token_id", 2);
  }
  const Parts parts =
      is_sentencepiece ? sentencepiece_parts(file, vocabulary, what) : byte_level_parts(file, what);
  const bool add_bos = flag(file, "tokenizer.ggml.add_bos_token", parts.add_bos) && vocabulary.bos;
  const bool add_eos = flag(file, "tokenizer.ggml.add_eos_token", false) && vocabulary.eos;

  // Filled through the underlying list: a look-up for each of 10^5 keys would be quadratic.
  Json vocab = Json::object();
  auto& entries = vocab.get_ref<Json::object_t&>();
  entries.reserve(vocabulary.tokens.size());
  Json added = Json::array(), added_decoder = Json::object();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    entries.emplace_back(token, id);
    const TokenKind kind = vocabulary.kinds[id];
    const bool special = kind == TokenKind::control || kind == TokenKind::unknown;
    if ((!special && kind != TokenKind::user_defined) || token.empty()) continue;
    Json entry = {{"id", id},        {"content", token},    {"single_word", false}, {"lstrip", false},
                  {"rstrip", false}, {"normalized", false}, {"special", special}};
    added.push_back(entry);
    entry.erase("id");
    added_decoder.get_ref<Json::object_t&>().emplace_back(std::to_string(id), std::move(entry));
  }

  Json post;
  if (add_bos || add_eos) {
    post = post_processor(vocabulary, add_bos ? std::vector{*vocabulary.bos} : std::vector<int64_t>{},
                          add_eos ? std::vector{*vocabulary.eos} : std::vector<int64_t>{});
  } else if (!is_sentencepiece) {
    post = byte_level("words");
  }
  const Json unknown =
      is_sentencepiece && vocabulary.unknown ? Json(vocabulary.token(*vocabulary.unknown)) : Json();
  TokenizerDocuments documents;
  documents.tokenizer = {{"version", "1.0"},
                         {"truncation", nullptr},
                         {"padding", nullptr},
                         {"added_tokens", std::move(added)},
                         {"normalizer", parts.normalizer},
                         {"pre_tokenizer", parts.pre_tokenizer},
                         {"post_processor", std::move(post)},
                         {"decoder", parts.decoder},
                         {"model",
                          {{"type", "BPE"},
                           {"dropout", nullptr},
                           {"unk_token", unknown},
                           {"continuing_subword_prefix", nullptr},
                           {"end_of_word_suffix", nullptr},
                           {"fuse_unk", is_sentencepiece},
                           {"byte_fallback", parts.byte_fallback},
                           {"ignore_merges", parts.ignore_merges},
                           {"vocab", std::move(vocab)},
                           {"merges", parts.merges}}}};

  Json& config = documents.config = {{"add_bos_token", add_bos}, {"add_eos_token", add_eos}};
  config["added_tokens_decoder"] = std::move(added_decoder);
  const auto put_token = [&](const char* key, const std::optional<int64_t>& id) {
    if (id) config[key] = vocabulary.token(*id);
  };
  put_token("bos_token", vocabulary.bos);
  put_token("eos_token", vocabulary.eos);
  put_token("unk_token", vocabulary.unknown);
  put_token("pad_token", vocabulary.pad);
  const std::string chat_template = file.string_or("tokenizer.chat_template", "");
  if (!is_utf8(chat_template)) fail("{}: tokenizer.chat_template is not UTF-8", what);
  if (!chat_template.empty()) config["chat_template"] = chat_template;
  config["clean_up_tokenization_spaces"] = false;
  const std::string context_key = file.string_or("general.architecture", "llama") + ".context_length";
  if (const int64_t length = file.integer_or(context_key, 0); length > 0) config["model_max_length"] = length;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  return documents;
}

namespace {

// Without what changes no token: offsets, key order, a sequence of one.
nlohmann::json essence(const Json& pre_tokenizer) {
  nlohmann::json plain = nlohmann::json::parse(pre_tokenizer.dump());
  const auto strip = [](nlohmann::json& part) {
    part.erase("trim_offsets");
    if (part.value("type", "") == "ByteLevel" && !part.contains("use_regex")) part["use_regex"] = true;
  };
  if (plain.value("type", "") == "Sequence") {
    for (nlohmann::json& part : plain["pretokenizers"]) strip(part);
    if (plain["pretokenizers"].size() == 1) return plain["pretokenizers"][0];
  }
  strip(plain);
  return plain;
}

}  // namespace

std::optional<std::string_view> gguf_pre_tokenizer_name(const Json& tokenizer) {
  if (!json_has(tokenizer, "pre_tokenizer") || !tokenizer.at("pre_tokenizer").is_object())
    return std::nullopt;
  const bool ignore_merges = json_has(tokenizer, "model") &&
                             json_bool_or(tokenizer.at("model"), "ignore_merges", false, "tokenizer.json");
  const bool nfc = json_has(tokenizer, "normalizer");
  const nlohmann::json wanted = essence(tokenizer.at("pre_tokenizer"));
  for (const PreTokenizerName& known : pre_tokenizers) {
    if (known.nfc == nfc && known.ignore_merges == ignore_merges && essence(known.pre_tokenizer()) == wanted)
      return known.name;
  }
  return std::nullopt;
}

}  // namespace lamina
