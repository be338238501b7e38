#include "lamina/eval/patching.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "lamina/base/error.h"
#include "lamina/base/random.h"

namespace lamina {

namespace {

// Of one length and, within each list, of different first letters: byte vocabularies line up too.
constexpr std::array<std::string_view, 16> kNames = {"Anna", "Beth", "Carl", "Dave", "Eric", "Fred",
                                                     "Greg", "Hugh", "Ivan", "John", "Kate", "Luke",
                                                     "Mary", "Nick", "Paul", "Rose"};
constexpr std::array<std::string_view, 8> kPlaces = {"store", "beach", "house", "river",
                                                     "hotel", "field", "court", "plaza"};
constexpr std::array<std::string_view, 8> kObjects = {"book", "ball", "ring", "cake",
                                                      "drum", "lamp", "note", "coat"};

// A prompt's tokens with what comes next for either name: where the two continuations part.
struct Prompt {
  std::vector<int32_t> ids;
  int32_t first = 0, second = 0;
};
std::optional<Prompt> prompt(const Tokenizer& tokenizer, const std::string& text, std::string_view first,
                             std::string_view second) {
  const std::vector<int32_t> a = tokenizer.encode(text + " " + std::string(first)),
                             b = tokenizer.encode(text + " " + std::string(second));
  const auto [at_a, at_b] = std::ranges::mismatch(a, b);
  if (at_a == a.end() || at_b == b.end()) return std::nullopt;
  return Prompt{{a.begin(), at_a}, *at_a, *at_b};
}

// The index of the first part of each block, by block.
std::map<int, int> block_starts(const Blueprint& blueprint) {
  std::map<int, int> starts;
  for (Site site : blueprint.present()) starts.try_emplace(blueprint.part(site).block, site.index);
  return starts;
}

// [batch]: the logit of the answer minus the other's, at the last position.
Tensor metric(const Model& model, Stream stream, const PromptPair& pair, Tap& tap) {
  stream.x = stream.x.narrow(1, stream.x.size(1) - 1, 1);
  const Tensor last = model.read_out(stream, tap).squeeze(1);  // [batch, width]
  const Tensor difference = unembedding(model.head(), pair.answer) - unembedding(model.head(), pair.other);
  Tensor value = at::matmul(last, difference.to(last.scalar_type()));
  if (const Tensor& bias = model.head().bias; bias.defined())
    value = value + (bias[pair.answer] - bias[pair.other]).to(value.scalar_type());
  return value;
}

std::vector<double> doubles(const Tensor& tensor) {
  const Tensor wide = tensor.to(at::kDouble).contiguous();
  return {wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel()};
}

}  // namespace

std::vector<PromptPair> object_prompts(const Tokenizer& tokenizer, const PromptOptions& options) {
  SplitMix random(options.seed);
  const auto any = [&](const auto& list) {
    return list[static_cast<size_t>(random.below(std::ssize(list)))];
  };
  // Which tokens differ, and how many there are: prompts of one shape can be averaged position by position.
  using Shape = std::pair<size_t, std::vector<size_t>>;
  std::map<Shape, std::vector<PromptPair>> by_shape;
  std::vector<PromptPair>* fullest = nullptr;
  for (int64_t drawn = 0; drawn < 40 * options.count; ++drawn) {
    const std::string_view a = any(kNames), b = any(kNames), place = any(kPlaces), object = any(kObjects);
    if (a == b) continue;
    const auto told = [&](std::string_view giver) {
      return fmt::format("Then, {} and {} went to the {}. {} gave a {} to", a, b, place, giver, object);
    };
    const auto clean = prompt(tokenizer, told(a), b, a), corrupted = prompt(tokenizer, told(b), b, a);
    if (!clean || !corrupted || clean->ids.size() != corrupted->ids.size() ||
        clean->first != corrupted->first || clean->second != corrupted->second)
      continue;
    Shape shape{clean->ids.size(), {}};
    for (size_t t = 0; t < clean->ids.size(); ++t) {
      if (clean->ids[t] != corrupted->ids[t]) shape.second.push_back(t);
    }
    if (shape.second.empty()) continue;
    std::vector<PromptPair>& same = by_shape[shape];
    same.push_back({clean->ids, corrupted->ids, clean->first, clean->second});
    if (!fullest || same.size() > fullest->size()) fullest = &same;
    if (std::ssize(*fullest) == options.count) break;
  }
  return fullest ? *fullest : std::vector<PromptPair>{};
}

Patching patching(const Model& model, const std::vector<PromptPair>& pairs, Tap& base, const Watch& watch) {
  Patching result{.pairs = std::ssize(pairs)};
  if (pairs.empty()) return result;
  Samples texts;
  for (const PromptPair& pair : pairs) {
    if (pair.clean.size() != pairs.front().clean.size() || pair.corrupted.size() != pair.clean.size())
      fail("prompts of {} and {} tokens cannot be patched position by position; make them of one length",
           pairs.front().clean.size(),
           pair.corrupted.size() == pair.clean.size() ? pair.clean.size() : pair.corrupted.size());
    texts.push_back(pair.clean);
    texts.push_back(pair.corrupted);
  }
  check_samples(model, texts);
  const std::map<int, int> starts = block_starts(model.blueprint());
  const size_t positions = pairs.front().clean.size();
  for (const auto& [block, first] : starts)
    result.rows.push_back({.block = block,
                           .activation = std::vector<double>(positions),
                           .attribution = std::vector<double>(positions)});
  const auto count = static_cast<double>(pairs.size());
  double done = 0;
  const auto streams_of = [&](const std::vector<int32_t>& ids) {
    std::map<int, Stream> streams;
    Stream stream = model.begin({.ids = as_batch(ids)});
    for (Site site : model.blueprint().present()) {
      const auto start = starts.find(model.blueprint().part(site).block);
      if (start->second == site.index) streams[start->first] = stream;
      model.step(stream, site, base);
    }
    streams[std::numeric_limits<int>::max()] = stream;
    return streams;
  };
  for (const PromptPair& pair : pairs) {
    if (watch.stop.stop_requested()) throw Stopped{};
    std::map<int, Stream> clean, corrupted;
    double clean_metric = 0, corrupted_metric = 0;
    {
      const InferenceMode evaluating;
      clean = streams_of(pair.clean);
      corrupted = streams_of(pair.corrupted);
      clean_metric = metric(model, clean.rbegin()->second, pair, base).item<double>();
      corrupted_metric = metric(model, corrupted.rbegin()->second, pair, base).item<double>();
    }
    result.clean += clean_metric / count;
    result.corrupted += corrupted_metric / count;
    if (clean_metric > 0) ++result.answered;

    std::vector<Tensor> gradients;
    {
      const InferenceMode recording(false);  // whatever the caller's mode
      Stream stream = model.begin({.ids = as_batch(pair.corrupted)});
      stream.x = stream.x.detach().clone().set_requires_grad(true);
      std::vector<Tensor> before;
      for (Site site : model.blueprint().present()) {
        if (starts.at(model.blueprint().part(site).block) == site.index) {
          stream.x.retain_grad();
          before.push_back(stream.x);
        }
        model.step(stream, site, base);
      }
      // Into these alone: weights that are being trained keep the gradients that they have.
      metric(model, stream, pair, base).sum().backward({}, std::nullopt, false, at::TensorList(before));
      for (const Tensor& x : before) gradients.push_back(x.grad().detach());
    }

    const InferenceMode evaluating;
    size_t first_changed = 0;
    while (first_changed + 1 < positions && pair.clean[first_changed] == pair.corrupted[first_changed])
      ++first_changed;
    size_t row = 0;
    for (const auto& [block, first] : starts) {
      const Stream &good = clean.at(block), &bad = corrupted.at(block);
      const Tensor change = good.x - bad.x;  // [1, positions, width]
      const std::vector<double> attributed =
          doubles((gradients[row].to(at::kDouble) * change.to(at::kDouble)).sum(2).squeeze(0));
      // What stands before the first token that differs is the same in both runs: patching it does nothing.
      const auto patched = static_cast<int64_t>(positions - first_changed);
      Stream many = bad;
      many.x = bad.x.repeat({patched, 1, 1});
      for (int64_t p = 0; p < patched; ++p) {
        const int64_t at = static_cast<int64_t>(first_changed) + p;
        many.x[p][at].copy_(good.x[0][at]);
      }
      walk_from(model, many, first, base);
      const std::vector<double> reached = doubles(metric(model, many, pair, base));
      Patching::Row& sums = result.rows[row];
      for (size_t p = 0; p < positions; ++p) {
        sums.attribution[p] += attributed[p] / count;
        if (p >= first_changed) sums.activation[p] += (reached[p - first_changed] - corrupted_metric) / count;
      }
      ++row;
      watch.report({"patching", ++done, count * static_cast<double>(starts.size()), ""});
    }
  }
  const double whole = result.clean - result.corrupted;
  for (Patching::Row& row : result.rows) {
    for (size_t p = 0; p < positions; ++p) {
      row.activation[p] /= whole;
      row.attribution[p] /= whole;
      row.error += std::abs(row.attribution[p] - row.activation[p]);
    }
    result.error += row.error / static_cast<double>(result.rows.size());
  }
  return result;
}

}  // namespace lamina
