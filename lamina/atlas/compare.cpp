#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/atlas/atlas.h"
#include "lamina/atlas/impl/atlas_state.h"
#include "lamina/base/error.h"

namespace lamina::atlas {

namespace {

// The tokens at the top of each neuron of a block, in order: [neurons][up to k].
std::vector<std::vector<int32_t>> tops(const Atlas::State& state, int64_t set, int block, size_t k) {
  const IntegerRange range = state.rows_of(set, block);
  std::vector<std::vector<int32_t>> lists(static_cast<size_t>(state.stored.header.neurons));
  Statement all(state.database,
                "SELECT neuron_id, token FROM labels WHERE neuron_id BETWEEN ? AND ? AND pole = 0 ORDER BY "
                "neuron_id, rank");
  for (all.with(range.min, range.max); all.next();) {
    auto& list = lists[static_cast<size_t>(all.integer(0, range) - range.min)];
    if (list.size() < k)
      list.push_back(static_cast<int32_t>(all.integer(1, {0, state.stored.header.vocabulary - 1})));
  }
  for (const auto& list : lists) {
    if (list.empty()) state.database.damaged("a neuron has no labels");
  }
  return lists;
}

double jaccard(std::vector<int32_t> a, std::vector<int32_t> b) {
  std::ranges::sort(a);
  std::ranges::sort(b);
  std::vector<int32_t> both;
  std::ranges::set_intersection(a, b, std::back_inserter(both));
  return static_cast<double>(both.size()) / static_cast<double>(a.size() + b.size() - both.size());
}

void check_alike(const Atlas::State& first, const Atlas::State& second) {
  const Header &a = first.stored.header, &b = second.stored.header;
  const std::string &one = first.database.name(), &two = second.database.name();
  if (a.blocks != b.blocks || a.neurons != b.neurons || a.width != b.width || a.vocabulary != b.vocabulary)
    fail(
        "{} and {} are of models of other shapes ({} blocks x {} neurons, width {}, {} tokens against {} x "
        "{}, "
        "{}, {}); neurons are compared place by place",
        one, two, a.blocks, a.neurons, a.width, a.vocabulary, b.blocks, b.neurons, b.width, b.vocabulary);
  const auto order = [](const Header& header) { return header.norm == "rms" ? "none" : header.norm; };
  if (a.lens != b.lens || order(a) != order(b))  // a positive factor does not change an order
    fail("{} was read with --lens {} --norm {}, and {} with --lens {} --norm {}; map one of them again", one,
         a.lens, a.norm, two, b.lens, b.norm);
  if (first.stored.tokens_sha256 == second.stored.tokens_sha256) return;
  // Fine-tuned models name a few control tokens anew; more than that is another vocabulary.
  int64_t other = 0;
  Statement left(first.database, "SELECT text FROM tokens ORDER BY id"),
      right(second.database, "SELECT text FROM tokens ORDER BY id");
  for (left.with(), right.with(); left.next() && right.next();)
    other += left.text(0) == right.text(0) ? 0 : 1;
  if (other * 20 > a.vocabulary)
    fail("{} and {} have other vocabularies: {} of {} tokens differ", one, two, other, a.vocabulary);
}

}  // namespace

std::vector<Comparison> compare(const Atlas& first, const Atlas& second) {
  const Atlas::State &a = *first.state_, &b = *second.state_;
  check_alike(a, b);
  const Header &ours = a.stored.header, &theirs = b.stored.header;
  std::vector<int> blocks;
  for (int64_t block : ours.decoded_blocks) {
    if (std::ranges::find(theirs.decoded_blocks, block) != theirs.decoded_blocks.end())
      blocks.push_back(static_cast<int>(block));
  }
  if (blocks.empty()) fail("{} and {} hold no block that both mapped", a.database.name(), b.database.name());
  const auto k = static_cast<size_t>(std::min(ours.top, theirs.top));

  const auto of_pair = [&](Set set, Head our_head, Head their_head,
                           std::string heads) -> std::optional<Comparison> {
    const auto left = a.id_of({set.rows, our_head}), right = b.id_of({set.rows, their_head});
    if (!left || !right) return std::nullopt;
    Comparison comparison{.set = set, .heads = std::move(heads), .blocks = {}};
    double total = 0;
    for (int block : blocks) {
      const auto lists = tops(a, *left, block, k), others = tops(b, *right, block, k);
      Comparison::Block entry{.block = block, .neurons = static_cast<int64_t>(lists.size())};
      double sum = 0;
      for (size_t i = 0; i < lists.size(); ++i) {
        entry.same += lists[i][0] == others[i][0] ? 1 : 0;
        sum += jaccard(lists[i], others[i]);
      }
      entry.overlap = sum / static_cast<double>(lists.size());
      comparison.neurons += entry.neurons, comparison.same += entry.same, total += sum;
      comparison.blocks.push_back(entry);
    }
    comparison.overlap = total / static_cast<double>(comparison.neurons);
    return comparison;
  };

  std::vector<Comparison> found;
  const auto keep = [&](std::optional<Comparison> comparison) {
    if (comparison) found.push_back(std::move(*comparison));
  };
  for (Rows rows : {Rows::up, Rows::gate, Rows::down}) {
    keep(of_pair({rows, Head::own}, Head::own, Head::own, "each its own"));
    if (!theirs.head_sha256.empty() && theirs.head_sha256 == ours.model_sha256)
      keep(of_pair({rows, Head::other}, Head::own, Head::other, "the first one's for both"));
    if (!ours.head_sha256.empty() && ours.head_sha256 == theirs.model_sha256)
      keep(of_pair({rows, Head::other}, Head::other, Head::own, "the second one's for both"));
  }
  if (found.empty())
    fail("{} and {} hold no rows that both mapped; map both with the same --rows", a.database.name(),
         b.database.name());
  return found;
}

}  // namespace lamina::atlas
