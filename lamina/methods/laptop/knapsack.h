// What to remove, as a knapsack in its covering form: save at least so much, lose as little as possible
// (LAPTOP-Diff, arXiv 2404.11098, takes the sum of single losses for the loss of a plan). Candidates come in
// groups of which exactly one option is taken: a candidate alone is a group of two, "stay" and "go"; a stage
// that a stock config must be able to express is one group with an option for every expressible state.
// Invariant: a choice that is returned holds its budgets in whole numbers, whatever was rounded on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace lamina::laptop {

struct Option {
  std::vector<int> candidates = {};  // removed, ascending
  double loss = 0;                   // >= 0
  std::vector<int64_t> saved = {};   // >= 0, one an axis: parameters, multiply-adds, nanoseconds
};
using Group = std::vector<Option>;  // option 0 loses least

struct Cover {
  std::vector<Group> groups = {};   // none empty
  std::vector<int64_t> least = {};  // to be saved, one an axis; 0 or less: no budget there
};

// Every candidate a group of its own. `saved[axis][candidate]`. Throws Error when lengths differ, a loss is
// negative or not a number, or a saving is negative.
Cover each_alone(std::span<const double> losses, const std::vector<std::vector<int64_t>>& saved,
                 std::vector<int64_t> least);

struct Choice {
  std::vector<int> taken = {};  // the option of each group
  double loss = 0;              // the sum
  std::vector<int64_t> saved = {};
  bool operator==(const Choice&) const = default;
};
Choice choice_of(const Cover& cover, std::vector<int> taken);
bool holds(const Cover& cover, const Choice& choice);
std::vector<int> removed(const Cover& cover, const Choice& choice);  // candidates, ascending

// From every group's option 0, the step that loses least (`loss`), or least for what it saves (`ratio`: on
// several axes the sum of the shares of their budgets), until the budgets hold; what is then superfluous goes
// back, the dearest first. Nothing when no choice holds them.
enum class Order { loss, ratio };
std::optional<Choice> greedy(const Cover& cover, Order order);

// Dynamic programming over one axis: one pass, and every budget can be asked for. Savings are rounded down
// to whole buckets, so that a plan never saves less than it says; where the bucket divides all savings (the
// greatest common divisor is tried first) nothing is rounded, and the answers are optimal.
class Frontier {
 public:
  struct Options {
    size_t axis = 0;
    int64_t buckets = int64_t{1} << 18;  // at most
  };
  Frontier(const Cover& cover, Options options);

  bool exact() const { return exact_; }
  int64_t bucket() const { return bucket_; }
  int64_t largest() const { return largest_; }  // saving, when all goes that can
  // Of least loss among those found that save `least`; nothing when none does.
  std::optional<Choice> at(int64_t least) const;
  // At `count` budgets spread evenly up to the largest, those that follow the same plan said once. Rising.
  std::vector<Choice> sampled(int64_t count) const;

 private:
  Choice back(int64_t bucket) const;

  Cover cover_;
  size_t axis_ = 0;
  int64_t bucket_ = 1, largest_ = 0;
  bool exact_ = true;
  std::vector<double> loss_;                  // by bucket: the least loss that fills exactly so many
  std::vector<int64_t> cheapest_;             // by bucket: of those from here on, the one that loses least
  std::vector<std::vector<uint16_t>> taken_;  // by group and bucket
};

// Depth-first branch and bound; the bound is the fractional solution over surrogate budgets (weighted sums of
// the axes), so several budgets at once are one search. Beside the best it gives the next best, of those
// from which nothing can go back without breaking a budget.
struct ExactOptions {
  int64_t best = 1;                       // so many
  int64_t nodes = int64_t{20} * 1000000;  // looked at, at most
};
struct Exact {
  std::vector<Choice> best = {};  // rising in loss; empty: no choice holds the budgets
  bool proven = true;             // false: the nodes ran out, and there may be better ones
  int64_t nodes = 0;
};
Exact exact(const Cover& cover, const ExactOptions& options = {});

// The same problem seen from what stays, of candidates alone and one axis: at most `capacity` may stay, and
// what stays should matter most. Savings are rounded up to buckets here.
std::optional<Choice> packed(const Cover& cover, int64_t capacity);

// From a choice to better ones by a loss that is measured, not added up: one group changed, then two, budgets
// held, the neighbours with the smallest sum first; every improvement is taken. `truth` is asked once a
// choice.
struct RefineOptions {
  int64_t evaluations = 100;  // of `truth`, at most
  int64_t neighbours = 200;   // of a choice, looked at in the order of their sums
  int flips = 2;              // groups changed at once, 1 or 2
};
struct Refined {
  Choice choice = {};
  double truth = 0;
  int64_t evaluations = 0;
  bool converged = false;  // no neighbour looked at is better
};
Refined refine(const Cover& cover, const Choice& start, const std::function<double(const Choice&)>& truth,
               const RefineOptions& options = {});

}  // namespace lamina::laptop
