#include "lamina/methods/unmask/encode.h"

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/random.h"
#include "lamina/base/text.h"

namespace lamina::unmask {

namespace {

constexpr std::pair<Answer, std::string_view> kAnswers[] = {{Answer::first, "first"}, {Answer::last, "last"}};

// A word's tokens as they are inside a sentence.
class WordEncoder {
 public:
  explicit WordEncoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
    constexpr std::string_view kMetaspace = "\xE2\x96\x81";
    // SentencePiece puts its own space in front of any text; of the others a word keeps the one it has.
    const auto alone = tokenizer.encode("x", {.special_tokens = false});
    const auto token = alone.empty() ? std::nullopt : tokenizer.token(alone.front());
    space_ = !(token && token->starts_with(kMetaspace));
    const auto bos = tokenizer.bos();
    const auto whole = tokenizer.encode("x", {.special_tokens = true});
    if (bos && !whole.empty() && whole.front() == *bos) bos_.push_back(*bos);
  }
  const std::vector<int32_t>& bos() const { return bos_; }
  const std::vector<int32_t>& operator()(const std::string& word) {
    const auto [it, added] = known_.try_emplace(word);
    if (added)
      it->second =
          tokenizer_.encode(space_ ? " " + word : word, {.special_tokens = false, .parse_special = false});
    return it->second;
  }

 private:
  const Tokenizer& tokenizer_;
  bool space_ = true;
  std::vector<int32_t> bos_;
  std::map<std::string, std::vector<int32_t>> known_;
};

struct Piece {
  int64_t word = 0;
  std::vector<int32_t> ids;
};

int64_t size_of(const Piece& piece) {
  return std::ssize(piece.ids);
}

// The words [begin, end) that each window holds.
struct Stretch {
  size_t begin = 0, end = 0;
};
std::vector<Stretch> stretches(const std::vector<Piece>& pieces, int64_t capacity, int64_t overlap) {
  std::vector<Stretch> result;
  for (size_t begin = 0;;) {
    size_t end = begin;
    int64_t tokens = 0;
    while (end < pieces.size() && tokens + size_of(pieces[end]) <= capacity) tokens += size_of(pieces[end++]);
    result.push_back({begin, end});
    if (end == pieces.size()) return result;
    // Back from the end until enough is shared, but on by a word at least.
    size_t next = end;
    for (int64_t shared = 0; next > begin + 1 && shared + size_of(pieces[next - 1]) <= overlap;)
      shared += size_of(pieces[--next]);
    begin = next;
  }
}

std::vector<Window> windows_of(int64_t sentence, const std::vector<Piece>& pieces,
                               const std::vector<int32_t>& bos, const EncodeOptions& options) {
  const std::vector<Stretch> all = stretches(pieces, options.length - std::ssize(bos), options.overlap);
  // Of each word the window in which it is farthest from an end that is not the sentence's own.
  std::vector<size_t> best(pieces.size());
  std::vector<int64_t> reach(pieces.size(), -1);
  constexpr int64_t kFar = std::numeric_limits<int64_t>::max();
  for (size_t w = 0; w < all.size(); ++w) {
    int64_t total = 0, before = 0;
    for (size_t i = all[w].begin; i < all[w].end; ++i) total += size_of(pieces[i]);
    for (size_t i = all[w].begin; i < all[w].end; ++i) {
      const int64_t left = all[w].begin == 0 ? kFar : before,
                    right = all[w].end == pieces.size() ? kFar : total - before - size_of(pieces[i]);
      if (const int64_t here = std::min(left, right); here > reach[i]) {
        reach[i] = here;
        best[i] = w;
      }
      before += size_of(pieces[i]);
    }
  }
  std::vector<Window> result;
  for (size_t w = 0; w < all.size(); ++w) {
    Window window{.sentence = sentence, .ids = bos};
    for (size_t i = all[w].begin; i < all[w].end; ++i) {
      const int64_t first = std::ssize(window.ids);
      window.ids.insert(window.ids.end(), pieces[i].ids.begin(), pieces[i].ids.end());
      if (best[i] == w)
        window.words.push_back({.word = pieces[i].word,
                                .at = options.answer == Answer::first ? first : std::ssize(window.ids) - 1});
    }
    if (!window.words.empty()) result.push_back(std::move(window));
  }
  return result;
}

// Windows [0, count) in the order of an epoch: shuffled, then by length within stretches of many batches, the
// batches shuffled again. `ahead`: samples of the first batch that the epoch before has taken already.
struct OrderOptions {
  int64_t batch = 1;
  uint64_t seed = 0;
  int64_t epoch = 0;
};
std::vector<int64_t> epoch_order(const std::vector<int64_t>& lengths, const OrderOptions& options) {
  constexpr int64_t kBatchesSorted = 50;
  const int64_t count = std::ssize(lengths), batch = options.batch;
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), int64_t{0});
  SplitMix random(SplitMix(options.seed).next() ^ static_cast<uint64_t>(options.epoch));
  const auto shuffle = [&](auto& list) {
    for (size_t i = list.size(); i > 1; --i)
      std::swap(list[i - 1], list[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  };
  shuffle(order);
  // Batches begin at multiples of their size over the whole run, not at the epoch's first sample.
  const int64_t head = (batch - options.epoch * count % batch) % batch;
  const auto at = [&](int64_t i) { return order.begin() + std::min(i, count); };
  for (int64_t first = head; first < count; first += batch * kBatchesSorted)
    std::stable_sort(at(first), at(first + batch * kBatchesSorted), [&](int64_t a, int64_t b) {
      return lengths[static_cast<size_t>(a)] < lengths[static_cast<size_t>(b)];
    });
  std::vector<int64_t> begins;
  for (int64_t first = head; first + batch <= count; first += batch) begins.push_back(first);
  const int64_t tail = head + batch * std::ssize(begins);
  shuffle(begins);
  std::vector<int64_t> result(order.begin(), at(head));
  for (int64_t begin : begins) result.insert(result.end(), at(begin), at(begin + batch));
  if (tail < count) result.insert(result.end(), at(tail), order.end());
  return result;
}

// What both kinds of samples share: windows in an order of their own each epoch.
class WindowBatches : public Batches {
 public:
  WindowBatches(std::vector<Window> windows, int64_t batch, uint64_t seed)
      : windows_(std::move(windows)), batch_(batch), seed_(seed) {
    if (windows_.empty()) fail("there is no sentence to learn from");
    for (const Window& window : windows_) lengths_.push_back(std::ssize(window.ids));
  }
  int64_t samples_per_epoch() const override { return std::ssize(windows_); }

 protected:
  size_t window_of(int64_t sample) const {
    const int64_t count = std::ssize(windows_), epoch = sample / count;
    const std::lock_guard lock(mutex_);
    if (epoch != epoch_) {
      order_ = epoch_order(lengths_, {.batch = batch_, .seed = seed_, .epoch = epoch});
      epoch_ = epoch;
    }
    return static_cast<size_t>(order_[static_cast<size_t>(sample % count)]);
  }
  std::vector<size_t> windows_at(int64_t first, int64_t count) const {
    std::vector<size_t> found;
    for (int64_t i = 0; i < count; ++i) found.push_back(window_of(first + i));
    return found;
  }
  Padded padded_at(const std::vector<size_t>& which, int64_t repeat, int32_t pad) const {
    std::vector<const Window*> list;
    for (size_t w : which) list.push_back(&windows_[w]);
    return padded(list, repeat, pad);
  }
  const std::vector<Window>& all() const { return windows_; }
  uint64_t seed() const { return seed_; }
  void digest_windows(Sha256& hash) const {
    for (const Window& window : windows_) {
      hash.add(std::as_bytes(std::span(window.ids)));
      for (const Window::Word& word : window.words) hash.add(fmt::format("{} {};", word.word, word.at));
    }
    hash.add(fmt::format("batches of {} of like length, seed {}", batch_, seed_));
  }

 private:
  std::vector<Window> windows_;
  std::vector<int64_t> lengths_;
  int64_t batch_;
  uint64_t seed_;
  mutable std::mutex mutex_;
  mutable int64_t epoch_ = -1;
  mutable std::vector<int64_t> order_;
};

class Labelled : public WindowBatches {
 public:
  Labelled(std::vector<Window> windows, const std::vector<std::vector<int32_t>>& classes,
           const LabelledOptions& options)
      : WindowBatches(std::move(windows), options.batch, options.seed), options_(options) {
    for (const Window& window : all()) {
      std::vector<int32_t>& own = classes_.emplace_back();
      for (const Window::Word& word : window.words)
        own.push_back(classes.at(static_cast<size_t>(window.sentence)).at(static_cast<size_t>(word.word)));
    }
  }
  Batch at(int64_t first, int64_t count) const override {
    const std::vector<size_t> which = windows_at(first, count);
    Padded rows = padded_at(which, options_.repeat, options_.pad);
    const Tensor targets = at::full(rows.inputs.ids.sizes(), kNotLearnt, at::kLong);
    auto* want = targets.data_ptr<int64_t>();
    for (size_t row = 0; row < which.size(); ++row) {
      for (size_t w = 0; w < rows.at[row].size(); ++w)
        want[static_cast<int64_t>(row) * targets.size(1) + rows.at[row][w]] = classes_[which[row]][w];
    }
    return {.inputs = std::move(rows.inputs), .targets = targets, .first = first};
  }
  std::string digest() const override {
    Sha256 hash;
    digest_windows(hash);
    for (const auto& own : classes_) hash.add(std::as_bytes(std::span(own)));
    hash.add(fmt::format("{} copies more", options_.repeat));
    return hash.hex();
  }

 private:
  LabelledOptions options_;
  std::vector<std::vector<int32_t>> classes_;  // of each window's words
};

class Adaptation : public WindowBatches {
 public:
  Adaptation(std::vector<Window> windows, const AdaptOptions& options)
      : WindowBatches(std::move(windows), options.batch, options.seed), options_(options) {
    if (options.masked && !(options.share > 0 && options.share < 1))
      fail("a share of {} of the tokens can not be hidden; it is between 0 and 1", options.share);
    if (options.masked && (options.mask < 0 || options.mask >= options.vocabulary))
      fail("there is no token {} to hide others behind; the vocabulary has {}", options.mask,
           options.vocabulary);
  }
  Batch at(int64_t first, int64_t count) const override {
    const std::vector<size_t> which = windows_at(first, count);
    Padded rows = padded_at(which, 0, options_.pad);
    const Tensor& ids = rows.inputs.ids;
    const Tensor targets = at::full(ids.sizes(), kNotLearnt, at::kLong);
    auto* read = ids.data_ptr<int64_t>();
    auto* want = targets.data_ptr<int64_t>();
    for (size_t row = 0; row < which.size(); ++row) {
      // Of the sample alone, so that batches and ranks change nothing.
      SplitMix random(SplitMix(seed() + 0x6d6e7470).next() ^
                      static_cast<uint64_t>(first + static_cast<int64_t>(row)));
      const int64_t start = static_cast<int64_t>(row) * ids.size(1),
                    tokens = std::ssize(all()[which[row]].ids);
      for (int64_t t = 1; t < tokens; ++t) {
        if (options_.masked && random.uniform() >= options_.share) continue;
        want[start + t - 1] = all()[which[row]].ids[static_cast<size_t>(t)];
        if (!options_.masked) continue;
        if (const double fate = random.uniform(); fate < 0.8)
          read[start + t] = options_.mask;
        else if (fate < 0.9)
          read[start + t] = random.below(options_.vocabulary);
      }
    }
    return {.inputs = std::move(rows.inputs), .targets = targets, .first = first};
  }
  std::string digest() const override {
    Sha256 hash;
    digest_windows(hash);
    hash.add(options_.masked ? fmt::format("{} hidden behind {}", options_.share, options_.mask) : "causal");
    return hash.hex();
  }

 private:
  AdaptOptions options_;
};

}  // namespace

std::string_view answer_name(Answer answer) {
  return std::ranges::find(kAnswers, answer, &std::pair<Answer, std::string_view>::first)->second;
}

Answer answer_from_name(std::string_view name) {
  for (const auto& [answer, its] : kAnswers) {
    if (its == name) return answer;
  }
  fail("{} is no token of a word that can answer for it; first and last are", in_quotes(name));
}

std::vector<Window> windows(std::span<const label::Sentence> sentences, const Tokenizer& tokenizer,
                            const EncodeOptions& options) {
  WordEncoder encode(tokenizer);
  const int64_t capacity = options.length - std::ssize(encode.bos());
  if (capacity < 1) fail("a window of {} tokens has no room for a word", options.length);
  if (options.overlap < 0 || options.overlap >= capacity)
    fail("windows of {} tokens cannot share {}; they share less than they hold", options.length,
         options.overlap);
  std::vector<Window> all;
  for (size_t s = 0; s < sentences.size(); ++s) {
    std::vector<Piece> pieces;
    for (size_t w = 0; w < sentences[s].words.size(); ++w) {
      std::vector<int32_t> ids = encode(sentences[s].words[w]);
      if (std::ssize(ids) > capacity) ids.resize(static_cast<size_t>(capacity));
      if (!ids.empty()) pieces.push_back({.word = static_cast<int64_t>(w), .ids = std::move(ids)});
    }
    if (pieces.empty()) continue;
    for (Window& window : windows_of(static_cast<int64_t>(s), pieces, encode.bos(), options))
      all.push_back(std::move(window));
  }
  return all;
}

Padded padded(std::span<const Window* const> windows, int64_t repeat, int32_t pad) {
  int64_t longest = 0, shortest = std::numeric_limits<int64_t>::max();
  for (const Window* window : windows) {
    longest = std::max(longest, std::ssize(window->ids));
    shortest = std::min(shortest, std::ssize(window->ids));
  }
  const int64_t rows = std::ssize(windows), copies = repeat + 1, width = longest * copies;
  Padded result;
  result.inputs.ids = at::full({rows, width}, int64_t{pad}, at::kLong);
  auto* ids = result.inputs.ids.data_ptr<int64_t>();
  Tensor stands;
  if (shortest < longest) stands = at::zeros({rows, width}, at::kBool);
  for (int64_t row = 0; row < rows; ++row) {
    const Window& window = *windows[static_cast<size_t>(row)];
    const int64_t own = std::ssize(window.ids);
    int64_t* to = ids + row * width;
    for (int64_t copy = 0; copy < copies; ++copy) to = std::copy(window.ids.begin(), window.ids.end(), to);
    if (stands.defined()) std::fill_n(stands.data_ptr<bool>() + row * width, own * copies, true);
    std::vector<int64_t>& at = result.at.emplace_back();
    for (const Window::Word& word : window.words) at.push_back(repeat * own + word.at);
  }
  if (stands.defined()) result.inputs.padding = stands;
  return result;
}

std::unique_ptr<Batches> labelled_batches(std::vector<Window> windows,
                                          const std::vector<std::vector<int32_t>>& classes,
                                          const LabelledOptions& options) {
  return std::make_unique<Labelled>(std::move(windows), classes, options);
}

std::unique_ptr<Batches> adaptation_batches(std::vector<Window> windows, const AdaptOptions& options) {
  return std::make_unique<Adaptation>(std::move(windows), options);
}

}  // namespace lamina::unmask
