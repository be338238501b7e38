// LAPTOP-Diff's layer pruning (arXiv 2404.11098): score each part by what the output loses without it, take
// the sum of single losses for the loss of a plan, and solve the knapsack. After it, and ours: several
// budgets at once, expressible layouts as groups of states, the best plans ranked again by their true loss.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lamina/methods/laptop/criteria.h"
#include "lamina/methods/laptop/knapsack.h"
#include "lamina/methods/laptop/score.h"
#include "lamina/plan/plan.h"

namespace lamina::laptop {

// What goes with parts, in whole numbers, one an axis. Adds up over groups of states, not always within one:
// the wrapper of a transformer goes with its last block.
struct Prices {
  std::vector<std::string> axes = {};  // "params", "macs", "ms"
  std::vector<int64_t> whole = {};     // of the model
  std::function<std::vector<int64_t>(std::span<const Site>)> saved = {};
};

// Parts that are decided about together: each state is a set that may go.
struct State {
  std::vector<Site> sites = {};
  // What it saves where that is not what `Prices` says of the sites: a stock config keeps the projections of
  // a transformer without blocks. One an axis; empty: as the prices say.
  std::vector<int64_t> saved = {};
};
struct Bundle {
  std::vector<State> states = {};
};
// No constraint: each part alone. Of a wrapper's blocks, which weigh the same, none, the one that matters
// least, the two, ... all of them with their wrapper.
std::vector<Bundle> free_bundles(const Blueprint& blueprint, std::span<const Site> candidates,
                                 std::span<const double> values);

// `values` by candidate; a state loses the sum of its parts'. Candidates in options are indices into
// `candidates`. Of states that save no more than another
// and lose no less only that one is offered. Throws Error when a state holds another part.
Cover cover_of(std::span<const Bundle> bundles, std::span<const Site> candidates,
               std::span<const double> values, const Prices& prices, std::vector<int64_t> least);

std::vector<Site> sites_of(std::span<const Site> candidates, std::span<const int> removed);
// Cuts in the order of the walk, with the value of each as its score.
Plan plan_of(const Blueprint& blueprint, std::span<const Site> candidates, std::span<const int> removed,
             std::span<const double> values);

// The handcrafted cuts of BK-SDM (arXiv 2305.15798): of every down stage but its first layer, of every up
// stage the second of three go; "bk-small" also loses the middle, "bk-tiny" the middle and the innermost
// stage on both sides. As cuts of parts: convolutions between stages stay. Throws Error for another name, or
// when a stage has other than two and three layers.
std::vector<Site> handcrafted(const Blueprint& blueprint, std::string_view name);

// Drawn until the budgets hold: random parts in random order.
std::optional<Choice> random_choice(const Cover& cover, uint64_t seed);

}  // namespace lamina::laptop
