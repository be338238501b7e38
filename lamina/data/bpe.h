// Byte-pair encoding (Sennrich et al. 2016): a piece starts as single characters, and again and again the
// adjacent pair that stands first in the list of merges becomes one token. Equal to the BPE of HF tokenizers,
// id for id.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/data/token_model.h"

namespace lamina {

class Bpe : public TokenModel {
 public:
  Bpe(const Json& component, std::string_view what);

  std::unique_ptr<PieceEncoder> encoder(EncoderHints hints) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  class Encoder;

  struct Merge {
    uint32_t rank = 0;  // its line in the list of merges
    int32_t id = 0;     // the token that it makes
  };
  // Pairs of ids to merges: open addressing, since every step of every piece asks it.
  class MergeTable {
   public:
    explicit MergeTable(size_t merges);
    void insert(int32_t left, int32_t right, Merge merge);  // a later line replaces an earlier one
    const Merge* find(int32_t left, int32_t right) const;

   private:
    struct Slot {
      uint64_t pair = empty;
      Merge merge;
    };
    static constexpr uint64_t empty = ~uint64_t{0};
    size_t slot_of(uint64_t pair) const;
    std::vector<Slot> slots_;  // a power of two
  };

  std::optional<int32_t> character_id(std::string_view character, bool is_first, bool is_last) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  std::optional<int32_t> unknown_;
  std::string word_prefix_, word_suffix_;  // "continuing_subword_prefix", "end_of_word_suffix"
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
  bool byte_fallback_ = false;
  std::array<std::optional<int32_t>, 256> byte_tokens_;  // "<0x00>" to "<0xFF>"
  std::array<std::optional<int32_t>, 0x800> short_ids_;  // of characters below U+0800, where no affix is set
  bool words_begin_at_space_mark_ = false;
};

}  // namespace lamina
