// Sentences of words as token windows, and the other way: which token of which window answers for a word.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/data/tokenizer.h"
#include "lamina/heal/batches.h"
#include "lamina/label/conll.h"

namespace lamina::unmask {

// Which of a word's tokens its tag is read from.
enum class Answer { first, last };
std::string_view answer_name(Answer answer);
Answer answer_from_name(std::string_view name);  // throws Error

struct EncodeOptions {
  int64_t length = 128;  // tokens in a window, the copies of a repetition not counted
  int64_t overlap = 32;  // tokens that two windows of a long sentence share at least
  Answer answer = Answer::first;
};

// A sentence, or a piece of one that is longer than a window.
struct Window {
  int64_t sentence = 0;
  std::vector<int32_t> ids = {};
  struct Word {
    int64_t word = 0;  // of the sentence
    int64_t at = 0;    // into ids
  };
  std::vector<Word> words = {};  // that this window answers for: each word of a sentence once, in order
};

// Words become tokens one by one, a space in front where the tokenizer keeps spaces in words (transformers'
// is_split_into_words with add_prefix_space); the tokenizer's BOS stands in front of each window. Each word
// of a long sentence is answered by the window in which it stands farthest from an end. A word of more tokens
// than a window holds keeps the first; one without a token is in no window. Throws Error where `length` does
// not fit the options.
std::vector<Window> windows(std::span<const label::Sentence> sentences, const Tokenizer& tokenizer,
                            const EncodeOptions& options);

// One batch, padded on the right with `pad`; each window `repeat` + 1 times in a row (Kukic et al., 2026),
// `at` then meaning the last copy.
struct Padded {
  Inputs inputs;                         // ids and padding [windows, tokens]; no padding where none is needed
  std::vector<std::vector<int64_t>> at;  // of each window's words
};
Padded padded(std::span<const Window* const> windows, int64_t repeat, int32_t pad);

// Training samples: one a window; every epoch in another order, windows of like length near each other so
// that little is padded. Targets are class ids at the tokens that answer, kNotLearnt elsewhere.
struct LabelledOptions {
  int64_t repeat = 0;
  int32_t pad = 0;
  int64_t batch = 16;  // what stands together in one batch has like lengths
  uint64_t seed = 0;
};
std::unique_ptr<Batches> labelled_batches(std::vector<Window> windows,
                                          const std::vector<std::vector<int32_t>>& classes,
                                          const LabelledOptions& options);

// Running text of the same sentences, for adaptation before the labels: `causal` predicts every token;
// `masked` hides a share of them and predicts each hidden one from the position before (MNTP: BehnamGhader et
// al., 2024, arXiv 2404.05961): 80 % become `mask`, 10 % another token, 10 % stay.
struct AdaptOptions {
  bool masked = true;
  double share = 0.2;
  int32_t mask = 0, pad = 0;
  int32_t vocabulary = 0;
  int64_t batch = 16;
  uint64_t seed = 0;
};
std::unique_ptr<Batches> adaptation_batches(std::vector<Window> windows, const AdaptOptions& options);

}  // namespace lamina::unmask
