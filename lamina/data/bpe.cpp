#include "lamina/data/bpe.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/data/component.h"
#include "lamina/data/unicode.h"
#include "lamina/data/word_level.h"

namespace lamina {

namespace {

constexpr std::string_view space_mark = "\xE2\x96\x81";  // ▁
constexpr uint32_t no_rank = std::numeric_limits<uint32_t>::max();

const Json& merges_of(const Json& component, std::string_view what) {
  const auto it = component.find("merges");
  if (it == component.end() || !it->is_array()) fail("{}: the BPE model has no list \"merges\"", what);
  if (it->size() >= no_rank) fail("{}: {} merges are too many", what, it->size());
  return *it;
}

const Json& vocab_of(const Json& component, std::string_view what) {
  const auto it = component.find("vocab");
  if (it == component.end()) fail("{}: the BPE model has no \"vocab\"", what);
  return *it;
}

struct MergeLine {
  std::string_view left, right;
};

// A merge is "left right" or ["left", "right"].
MergeLine merge_line(const Json& merge, size_t line, std::string_view what) {
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
  }
  fail("{}: merge {} is {} where two tokens were expected", what, line, in_quotes(merge.dump()));
}

// True if ▁ follows another character somewhere in `token`.
bool has_inner_space_mark(std::string_view token) {
  for (size_t at = token.find(space_mark); at != std::string_view::npos;
       at = token.find(space_mark, at + 1)) {
    if (at != 0 && !token.substr(0, at).ends_with(space_mark)) return true;
  }
  return false;
}

}  // namespace

Bpe::MergeTable::MergeTable(size_t merges) : slots_(std::bit_ceil(2 * merges + 2)) {}

size_t Bpe::MergeTable::slot_of(uint64_t pair) const {
  size_t slot = (pair * 0x9E3779B97F4A7C15u >> 20) & (slots_.size() - 1);
  while (slots_[slot].pair != empty && slots_[slot].pair != pair) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

void Bpe::MergeTable::insert(int32_t left, int32_t right, Merge merge) {
  const uint64_t pair = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  slots_[slot_of(pair)] = {pair, merge};
}

const Bpe::Merge* Bpe::MergeTable::find(int32_t left, int32_t right) const {
  const uint64_t pair = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  const Slot& slot = slots_[slot_of(pair)];
  return slot.pair == empty ? nullptr : &slot.merge;
}

Bpe::Bpe(const Json& component, std::string_view what)
    : vocabulary_(vocab_of(component, what), what), merges_(merges_of(component, what).size()) {
  if (json_number_or(component, "dropout", 0, what) > 0) {
    fail("{}: the BPE model has a dropout, which would make its tokens random; set it to null", what);
  }
  word_prefix_ = json_string_or(component, "continuing_subword_prefix", "", what);
  word_suffix_ = json_string_or(component, "end_of_word_suffix", "", what);
  fuse_unknown_ = json_bool_or(component, "fuse_unk", false, what);
  ignore_merges_ = json_bool_or(component, "ignore_merges", false, what);
  byte_fallback_ = json_bool_or(component, "byte_fallback", false, what);
  if (json_has(component, "unk_token")) {
    const std::string name = json_string(component, "unk_token", what);
    unknown_ = vocabulary_.id_of(name);
    if (!unknown_) fail("{}: the unk_token {} is not in the vocabulary", what, in_quotes(name));
  }

  words_begin_at_space_mark_ = !ignore_merges_ && word_prefix_.empty() && word_suffix_.empty() &&
                               vocabulary_.id_of(space_mark).has_value();
  uint32_t rank = 0;
  for (const Json& merge : merges_of(component, what)) {
    const MergeLine line = merge_line(merge, rank, what);
    const auto id_of = [&](std::string_view token) {
      const auto id = vocabulary_.id_of(token);
      if (!id) fail("{}: merge {} names {}, which is not in the vocabulary", what, rank, in_quotes(token));
      return *id;
    };
    if (line.right.size() < word_prefix_.size()) {
      fail("{}: merge {} has {} on its right, shorter than the prefix {}", what, rank, in_quotes(line.right),
           in_quotes(word_prefix_));
    }
    const std::string merged = std::string(line.left).append(line.right.substr(word_prefix_.size()));
    merges_.insert(id_of(line.left), id_of(line.right), {rank, id_of(merged)});
    if (words_begin_at_space_mark_ && has_inner_space_mark(merged)) words_begin_at_space_mark_ = false;
    ++rank;
  }

  for (size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
    byte_tokens_[byte] = vocabulary_.id_of(fmt::format("<0x{:02X}>", byte));
  }
  for (char32_t c = 0; c < short_ids_.size(); ++c) short_ids_[c] = vocabulary_.id_of(utf8(c));
}

std::optional<int32_t> Bpe::character_id(std::string_view character, bool is_first, bool is_last) const {
  const bool prefixed = !is_first && !word_prefix_.empty();
  const bool suffixed = is_last && !word_suffix_.empty();
  if (prefixed || suffixed) {
    return vocabulary_.id_of((prefixed ? word_prefix_ : "") + std::string(character) +
                             (suffixed ? word_suffix_ : ""));
  }
  if (character.size() <= 2) return short_ids_[first_code_point(character).value];
  return vocabulary_.id_of(character);
}

class Bpe::Encoder : public PieceEncoder {
 public:
  Encoder(const Bpe& bpe, EncoderHints hints)
      : bpe_(bpe), cache_(std::bit_ceil(std::clamp<size_t>(hints.text_bytes / 8, 16, 1 << 15))) {
    ids_.reserve(hints.text_bytes / 4 + 16);
  }

  void add(std::string_view piece) override {
    if (!bpe_.words_begin_at_space_mark_) return add_word(piece);
    // No merge crosses from another character to a ▁, so words can be taken one by one: short, and often seen
    // before.
    size_t begin = 0;
    while (begin < piece.size()) {
      size_t end = begin;
      while (piece.substr(end).starts_with(space_mark)) end += space_mark.size();
      end = std::min(piece.find(space_mark, end), piece.size());
      add_word(piece.substr(begin, end - begin));
      begin = end;
    }
  }

 private:
  // Words that were met before, with their ids; two words that fall into one place take turns.
  struct Cached {
    static constexpr size_t max_bytes = 30, max_ids = 7;
    uint8_t bytes = 0;
    uint8_t count = 0;
    std::array<char, max_bytes> word;
    std::array<int32_t, max_ids> ids;
  };

  void add_word(std::string_view word) {
    if (word.size() > Cached::max_bytes) return merge_word(word);
    Cached& cached = cache_[std::hash<std::string_view>()(word) & (cache_.size() - 1)];
    if (std::string_view(cached.word.data(), cached.bytes) == word) {
      ids_.insert(ids_.end(), cached.ids.begin(), cached.ids.begin() + cached.count);
      return;
    }
    const size_t before = ids_.size();
    merge_word(word);
    const size_t count = ids_.size() - before;
    if (count > Cached::max_ids) return;
    cached.bytes = static_cast<uint8_t>(word.size());
    cached.count = static_cast<uint8_t>(count);
    std::copy(word.begin(), word.end(), cached.word.begin());
    std::copy(ids_.end() - static_cast<ptrdiff_t>(count), ids_.end(), cached.ids.begin());
  }

  void merge_word(std::string_view word) {
    if (bpe_.ignore_merges_) {
      if (const auto id = bpe_.vocabulary_.id_of(word)) return ids_.push_back(*id);
    }
    split_characters(word);
    if (symbols_.size() <= few_symbols) {
      merge_few();
    } else {
      merge_many();
    }
  }

  void split_characters(std::string_view word) {
    symbols_.clear();
    bool after_unknown = false;
    for (size_t at = 0; at < word.size();) {
      const size_t length = first_code_point(word.substr(at)).length;
      const std::string_view character = word.substr(at, length);
      const bool is_first = at == 0;
      at += length;
      if (const auto id = bpe_.character_id(character, is_first, at == word.size())) {
        symbols_.push_back(*id);
        after_unknown = false;
      } else if (bpe_.byte_fallback_ && has_byte_tokens(character)) {
        for (const char byte : character)
          symbols_.push_back(*bpe_.byte_tokens_[static_cast<unsigned char>(byte)]);
        after_unknown = false;
      } else if (bpe_.unknown_) {  // without an unknown token the character is dropped
        if (!after_unknown || !bpe_.fuse_unknown_) symbols_.push_back(*bpe_.unknown_);
        after_unknown = true;
      }
    }
  }

  bool has_byte_tokens(std::string_view character) const {
    return std::all_of(character.begin(), character.end(), [&](char byte) {
      return bpe_.byte_tokens_[static_cast<unsigned char>(byte)].has_value();
    });
  }

  Merge merge_of(int32_t left, int32_t right) const {
    const Merge* merge = bpe_.merges_.find(left, right);
    return merge ? *merge : Merge{no_rank, 0};
  }

  // Quadratic, but the fastest for a word: looks over all pairs for the first in the list of merges.
  static constexpr size_t few_symbols = 48;
  void merge_few() {
    size_t count = symbols_.size();
    std::array<Merge, few_symbols> pairs;  // pairs[i] merges symbols i and i + 1
    for (size_t i = 0; i + 1 < count; ++i) pairs[i] = merge_of(symbols_[i], symbols_[i + 1]);
    while (count > 1) {
      const auto pairs_end = pairs.begin() + static_cast<ptrdiff_t>(count - 1);
      const auto best = std::min_element(pairs.begin(), pairs_end,
                                         [](const Merge& a, const Merge& b) { return a.rank < b.rank; });
      if (best->rank == no_rank) break;
      const auto at = static_cast<size_t>(best - pairs.begin());
      symbols_[at] = best->id;
      symbols_.erase(symbols_.begin() + static_cast<ptrdiff_t>(at) + 1);
      std::copy(best + 1, pairs_end, best);
      --count;
      if (at > 0) pairs[at - 1] = merge_of(symbols_[at - 1], symbols_[at]);
      if (at + 1 < count) pairs[at] = merge_of(symbols_[at], symbols_[at + 1]);
    }
    ids_.insert(ids_.end(), symbols_.begin(), symbols_.end());
  }

  // n log n, for long pieces: a queue of candidate merges over a linked list of symbols.
  void merge_many() {
    struct Link {
      uint32_t previous, next;
    };
    struct Candidate {
      uint32_t rank, at;
      int32_t left, right;
      bool operator<(const Candidate& other) const {  // the queue hands out its largest
        return rank != other.rank ? rank > other.rank : at > other.at;
      }
    };
    if (symbols_.size() >= no_rank) fail("a piece of text of {} characters is too long", symbols_.size());
    const auto count = static_cast<uint32_t>(symbols_.size());
    constexpr int32_t gone = -1;
    std::vector<Link> links(count);
    for (uint32_t i = 0; i < count; ++i) links[i] = {i - 1, i + 1};
    std::priority_queue<Candidate> queue;
    const auto offer = [&](uint32_t at) {
      const uint32_t next = links[at].next;
      const Merge merge = merge_of(symbols_[at], symbols_[next]);
      if (merge.rank != no_rank) queue.push({merge.rank, at, symbols_[at], symbols_[next]});
    };
    for (uint32_t i = 0; i + 1 < count; ++i) offer(i);
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      const uint32_t next = links[best.at].next;
      // Stale if one of the two has been merged meanwhile.
      if (symbols_[best.at] != best.left || next >= count || symbols_[next] != best.right) continue;
      symbols_[best.at] = merge_of(best.left, best.right).id;
      symbols_[next] = gone;
      links[best.at].next = links[next].next;
      if (links[next].next < count) links[links[next].next].previous = best.at;
      if (best.at > 0) offer(links[best.at].previous);
      if (links[best.at].next < count) offer(best.at);
    }
    std::copy_if(symbols_.begin(), symbols_.end(), std::back_inserter(ids_),
                 [](int32_t id) { return id != gone; });
  }

  const Bpe& bpe_;
  std::vector<Cached> cache_;
  std::vector<int32_t> symbols_;
};

std::unique_ptr<PieceEncoder> Bpe::encoder(EncoderHints hints) const {
  return std::make_unique<Encoder>(*this, hints);
}

std::unique_ptr<const TokenModel> make_token_model(const Json& component, std::string_view what) {
  using Model = std::unique_ptr<const TokenModel>;
  constexpr ComponentType<Model> types[] = {
      {"BPE",
       [](const Json& bpe, std::string_view file) -> Model { return std::make_unique<Bpe>(bpe, file); }},
      {"WordLevel",
       [](const Json& words, std::string_view file) -> Model {
         return std::make_unique<WordLevel>(words, file);
       }},
  };
  // Files older than tokenizers 0.10 write no type for BPE.
  if (component.is_object() && !json_has(component, "type") && json_has(component, "merges")) {
    return std::make_unique<Bpe>(component, what);
  }
  return make_component<Model>("model", types, component, what);
}

}  // namespace lamina
