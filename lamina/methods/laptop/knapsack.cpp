#include "lamina/methods/laptop/knapsack.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "lamina/base/error.h"

namespace lamina::laptop {

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

const Option& option(const Cover& cover, size_t group, int taken) {
  return cover.groups[group][static_cast<size_t>(taken)];
}

// One group moved to another option.
Choice moved(const Cover& cover, const Choice& choice, size_t group, int to) {
  Choice next = choice;
  const Option &was = option(cover, group, choice.taken[group]), &is = option(cover, group, to);
  next.taken[group] = to;
  next.loss += is.loss - was.loss;
  for (size_t a = 0; a < next.saved.size(); ++a) next.saved[a] += is.saved[a] - was.saved[a];
  return next;
}

// What it saves for the budgets, each as a share of its budget.
double usefulness(const Cover& cover, const Option& from, const Option& to) {
  double sum = 0;
  for (size_t a = 0; a < cover.least.size(); ++a) {
    if (cover.least[a] > 0)
      sum += static_cast<double>(to.saved[a] - from.saved[a]) / static_cast<double>(cover.least[a]);
  }
  return sum;
}

// Back to cheaper options, the dearest group first, while the budgets hold. Sums are made anew at the end.
Choice without_superfluous(const Cover& cover, Choice choice) {
  std::vector<size_t> order(cover.groups.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    return option(cover, a, choice.taken[a]).loss > option(cover, b, choice.taken[b]).loss;
  });
  for (size_t group : order) {
    const double loss = option(cover, group, choice.taken[group]).loss;
    std::vector<int> cheaper;
    for (int o = 0; o < static_cast<int>(cover.groups[group].size()); ++o)
      if (option(cover, group, o).loss < loss || (o == 0 && choice.taken[group] != 0)) cheaper.push_back(o);
    std::ranges::stable_sort(cheaper, {}, [&](int o) { return option(cover, group, o).loss; });
    for (int o : cheaper) {
      const Choice next = moved(cover, choice, group, o);
      if (!holds(cover, next)) continue;
      choice = next;
      break;
    }
  }
  return choice_of(cover, choice.taken);
}

// Whether the budgets hold when each group saves the most it can on each axis: a necessary condition.
bool possible(const Cover& cover) {
  for (size_t a = 0; a < cover.least.size(); ++a) {
    int64_t most = 0;
    for (const Group& group : cover.groups)
      most += std::ranges::max(group, {}, [a](const Option& o) { return o.saved[a]; }).saved[a];
    if (most < cover.least[a]) return false;
  }
  return true;
}

// A step of a group along the lower hull of its options in (saving, loss): what the fractional solution
// takes.
struct Increment {
  int depth = 0;  // of the group, in the order in which groups are decided
  double saving = 0, loss = 0;
  double ratio() const { return loss / saving; }
};

// The hull from the cheapest option on; slopes rise.
std::vector<Increment> hull(const Group& group, int depth, const std::vector<double>& savings) {
  struct Point {
    double saving, loss;
  };
  std::vector<Point> points;
  for (size_t o = 0; o < group.size(); ++o) points.push_back({savings[o], group[o].loss});
  std::ranges::sort(points, [](const Point& a, const Point& b) {
    return a.saving != b.saving ? a.saving < b.saving : a.loss < b.loss;
  });
  const auto slope = [](const Point& a, const Point& b) { return (b.loss - a.loss) / (b.saving - a.saving); };
  std::vector<Point> corners = {{savings[0], group[0].loss}};
  for (const Point& point : points) {
    if (point.saving <= corners.back().saving) continue;
    // What saves more and loses less makes those in front of it useless.
    while (corners.size() > 1 &&
           (corners.back().loss >= point.loss ||
            slope(corners[corners.size() - 2], corners.back()) >= slope(corners.back(), point)))
      corners.pop_back();
    corners.push_back(point);
  }
  std::vector<Increment> increments;
  for (size_t i = 1; i < corners.size(); ++i)
    increments.push_back(
        {depth, corners[i].saving - corners[i - 1].saving, corners[i].loss - corners[i - 1].loss});
  return increments;
}

class BranchAndBound {
 public:
  BranchAndBound(const Cover& cover, const ExactOptions& options) : cover_(cover), options_(options) {
    for (size_t a = 0; a < cover.least.size(); ++a)
      if (cover.least[a] > 0) axes_.push_back(a);
    order_groups();
    make_relaxations();
    choice_ = choice_of(cover, std::vector<int>(cover.groups.size(), 0));
    const size_t n = order_.size();
    most_.assign(n + 1, std::vector<int64_t>(cover.least.size(), 0));
    for (size_t depth = n; depth-- > 0;) {
      for (size_t a = 0; a < cover.least.size(); ++a) {
        const Group& group = cover.groups[order_[depth]];
        const int64_t most =
            std::ranges::max(group, {}, [a](const Option& o) { return o.saved[a]; }).saved[a];
        most_[depth][a] = most_[depth + 1][a] + most - group[0].saved[a];
      }
    }
  }

  Exact run() {
    if (!possible(cover_)) return {.best = {}, .proven = true, .nodes = 0};
    for (Order order : {Order::loss, Order::ratio})
      if (const auto start = greedy(cover_, order)) keep(*start);
    visit(0);
    for (Choice& choice : result_.best) choice = choice_of(cover_, choice.taken);
    std::ranges::stable_sort(result_.best, {}, &Choice::loss);
    return result_;
  }

 private:
  // Savings as one number: a weighted sum of the shares of the budgets, of which at least `1` is needed.
  struct Relaxation {
    std::vector<double> weights;        // by axis of `cover_`, of a unit saved
    std::vector<Increment> increments;  // the least loss for its saving first
    bool enough(double saved) const { return saved >= 1 - 1e-12; }
  };

  double saving(const Relaxation& relaxation, const std::vector<int64_t>& saved) const {
    double sum = 0;
    for (size_t a : axes_) sum += relaxation.weights[a] * static_cast<double>(saved[a]);
    return sum;
  }

  void order_groups() {
    order_.resize(cover_.groups.size());
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::vector<double> best(order_.size(), kNever);
    for (size_t g = 0; g < order_.size(); ++g) {
      for (const Option& o : cover_.groups[g]) {
        const double useful = usefulness(cover_, cover_.groups[g][0], o);
        if (useful > 0) best[g] = std::min(best[g], (o.loss - cover_.groups[g][0].loss) / useful);
      }
    }
    std::ranges::stable_sort(order_, {}, [&](size_t g) { return best[g]; });
  }

  void make_relaxations() {
    // Every axis alone, and mixtures: any of them gives a lower bound.
    std::vector<std::vector<double>> mixtures;
    if (axes_.size() <= 1) {
      mixtures.push_back({1});
    } else {
      for (size_t i = 0; i < axes_.size(); ++i) {
        mixtures.emplace_back(axes_.size(), 0.0).at(i) = 1;
        for (size_t j = i + 1; j < axes_.size(); ++j) {
          for (double share : {0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9}) {
            std::vector<double> mix(axes_.size(), 0.0);
            mix[i] = share, mix[j] = 1 - share;
            mixtures.push_back(std::move(mix));
          }
        }
      }
    }
    if (axes_.empty()) return;
    for (const std::vector<double>& mix : mixtures) {
      Relaxation relaxation{.weights = std::vector<double>(cover_.least.size(), 0.0), .increments = {}};
      for (size_t i = 0; i < axes_.size(); ++i)
        relaxation.weights[axes_[i]] = mix[i] / static_cast<double>(cover_.least[axes_[i]]);
      for (size_t depth = 0; depth < order_.size(); ++depth) {
        const Group& group = cover_.groups[order_[depth]];
        std::vector<double> savings;
        for (const Option& o : group) savings.push_back(saving(relaxation, o.saved));
        const std::vector<Increment> steps = hull(group, static_cast<int>(depth), savings);
        relaxation.increments.insert(relaxation.increments.end(), steps.begin(), steps.end());
      }
      std::ranges::stable_sort(relaxation.increments, {}, &Increment::ratio);
      relaxations_.push_back(std::move(relaxation));
    }
  }

  // The least that the groups from `depth` on must lose.
  double bound(size_t depth, const std::vector<int64_t>& saved) const {
    double bound = 0;
    for (const Relaxation& relaxation : relaxations_) {
      double left = 1 - saving(relaxation, saved), loss = 0;
      for (const Increment& step : relaxation.increments) {
        if (left <= 1e-12) break;
        if (step.depth < static_cast<int>(depth)) continue;
        const double share = std::min(1.0, left / step.saving);
        loss += share * step.loss;
        left -= share * step.saving;
      }
      if (left > 1e-9) return kNever;
      bound = std::max(bound, loss);
    }
    return bound;
  }

  double worst_kept() const {
    return static_cast<int64_t>(result_.best.size()) < options_.best ? kNever : result_.best.back().loss;
  }

  bool minimal(const Choice& choice) const {
    for (size_t g = 0; g < cover_.groups.size(); ++g) {
      const Option& now = option(cover_, g, choice.taken[g]);
      for (int o = 0; o < static_cast<int>(cover_.groups[g].size()); ++o) {
        if (o == choice.taken[g]) continue;
        const Option& other = option(cover_, g, o);
        if ((other.loss < now.loss || (other.loss == now.loss && o < choice.taken[g])) &&
            holds(cover_, moved(cover_, choice, g, o)))
          return false;
      }
    }
    return true;
  }

  void keep(const Choice& choice) {
    if (options_.best > 1 && !minimal(choice)) return;
    for (const Choice& other : result_.best)
      if (other.taken == choice.taken) return;
    const auto at = std::ranges::upper_bound(result_.best, choice.loss, {}, &Choice::loss);
    result_.best.insert(at, choice);
    if (static_cast<int64_t>(result_.best.size()) > options_.best) result_.best.pop_back();
  }

  void visit(size_t depth) {
    if (++result_.nodes > options_.nodes) {
      result_.proven = false;
      return;
    }
    if (holds(cover_, choice_)) {
      // The rest stays as cheap as can be: option 0 loses least unless a free one is there, which adds
      // nothing.
      if (choice_.loss < worst_kept()) keep(choice_);
      return;
    }
    if (depth == order_.size()) return;
    for (size_t a : axes_)
      if (choice_.saved[a] + most_[depth][a] < cover_.least[a]) return;
    struct Child {
      int taken;
      double bound;
    };
    const size_t group = order_[depth];
    std::vector<Child> children;
    for (int o = 0; o < static_cast<int>(cover_.groups[group].size()); ++o) {
      const Choice next = moved(cover_, choice_, group, o);
      children.push_back({o, next.loss + bound(depth + 1, next.saved)});
    }
    std::ranges::stable_sort(children, {}, &Child::bound);
    const Choice before = choice_;
    for (const Child& child : children) {
      // A hair above the bound, for what sums round.
      if (child.bound == kNever || child.bound > worst_kept() * (1 + 1e-12)) break;
      choice_ = moved(cover_, before, group, child.taken);
      visit(depth + 1);
      if (!result_.proven) break;
    }
    choice_ = before;
  }

  const Cover& cover_;
  ExactOptions options_;
  std::vector<size_t> axes_, order_;
  std::vector<Relaxation> relaxations_;
  std::vector<std::vector<int64_t>> most_;  // that groups from a depth on can save beside their option 0
  Choice choice_;
  Exact result_;
};

}  // namespace

Cover each_alone(std::span<const double> losses, const std::vector<std::vector<int64_t>>& saved,
                 std::vector<int64_t> least) {
  if (saved.size() != least.size())
    fail("a knapsack of {} budgets needs as many lists of savings, and {} were given", least.size(),
         saved.size());
  Cover cover{.groups = {}, .least = std::move(least)};
  for (size_t i = 0; i < losses.size(); ++i) {
    if (!(losses[i] >= 0) || std::isinf(losses[i]))
      fail("candidate {} has the loss {}; numbers from 0 on are expected", i, losses[i]);
    Option go{.candidates = {static_cast<int>(i)}, .loss = losses[i], .saved = {}};
    for (const std::vector<int64_t>& axis : saved) {
      if (axis.size() != losses.size())
        fail("{} candidates have {} savings on one axis", losses.size(), axis.size());
      if (axis[i] < 0) fail("candidate {} saves {}; numbers from 0 on are expected", i, axis[i]);
      go.saved.push_back(axis[i]);
    }
    cover.groups.push_back(
        {Option{.candidates = {}, .loss = 0, .saved = std::vector<int64_t>(saved.size(), 0)}, go});
  }
  return cover;
}

Choice choice_of(const Cover& cover, std::vector<int> taken) {
  Choice choice{.taken = std::move(taken), .loss = 0, .saved = std::vector<int64_t>(cover.least.size(), 0)};
  for (size_t g = 0; g < cover.groups.size(); ++g) {
    const Option& o = option(cover, g, choice.taken[g]);
    choice.loss += o.loss;
    for (size_t a = 0; a < choice.saved.size(); ++a) choice.saved[a] += o.saved[a];
  }
  return choice;
}

bool holds(const Cover& cover, const Choice& choice) {
  for (size_t a = 0; a < cover.least.size(); ++a)
    if (choice.saved[a] < cover.least[a]) return false;
  return true;
}

std::vector<int> removed(const Cover& cover, const Choice& choice) {
  std::vector<int> all;
  for (size_t g = 0; g < cover.groups.size(); ++g) {
    const std::vector<int>& gone = option(cover, g, choice.taken[g]).candidates;
    all.insert(all.end(), gone.begin(), gone.end());
  }
  std::ranges::sort(all);
  return all;
}

std::optional<Choice> greedy(const Cover& cover, Order order) {
  Choice choice = choice_of(cover, std::vector<int>(cover.groups.size(), 0));
  while (!holds(cover, choice)) {
    size_t group = 0;
    int to = -1;
    double least = kNever;
    for (size_t g = 0; g < cover.groups.size(); ++g) {
      const Option& from = option(cover, g, choice.taken[g]);
      for (int o = 0; o < static_cast<int>(cover.groups[g].size()); ++o) {
        const Option& next = option(cover, g, o);
        const double useful = usefulness(cover, from, next);
        if (useful <= 0) continue;
        const double loss = next.loss - from.loss, value = order == Order::loss ? loss : loss / useful;
        if (value < least) least = value, group = g, to = o;
      }
    }
    if (to < 0) return std::nullopt;
    choice = moved(cover, choice, group, to);
  }
  return without_superfluous(cover, choice);
}

Frontier::Frontier(const Cover& cover, Options options) : cover_(cover), axis_(options.axis) {
  int64_t divisor = 0;
  for (const Group& group : cover_.groups) {
    if (group.size() > std::numeric_limits<uint16_t>::max())
      fail("a group of {} options is more than the frontier can hold", group.size());
    int64_t most = 0;
    for (const Option& o : group) {
      divisor = std::gcd(divisor, o.saved[axis_]);
      most = std::max(most, o.saved[axis_]);
    }
    largest_ += most;
  }
  bucket_ = std::max<int64_t>(divisor, 1);
  if (largest_ / bucket_ > options.buckets) {
    bucket_ = (largest_ + options.buckets - 1) / options.buckets;
    exact_ = false;
  }
  const auto count = static_cast<size_t>(largest_ / bucket_) + 1;
  loss_.assign(count, kNever);
  loss_[0] = 0;
  size_t reached = 0;  // no bucket beyond can be filled yet
  for (const Group& group : cover_.groups) {
    std::vector<double> next(count, kNever);
    std::vector<uint16_t> taken(count, 0);
    size_t furthest = reached;
    for (size_t o = 0; o < group.size(); ++o) {
      const auto step = static_cast<size_t>(group[o].saved[axis_] / bucket_);
      for (size_t b = 0; b <= reached; ++b) {
        const double loss = loss_[b] + group[o].loss;
        if (loss < next[b + step]) next[b + step] = loss, taken[b + step] = static_cast<uint16_t>(o);
      }
      furthest = std::max(furthest, reached + step);
    }
    reached = furthest;
    loss_ = std::move(next);
    taken_.push_back(std::move(taken));
  }
  cheapest_.resize(count);
  for (size_t b = count; b-- > 0;) {
    cheapest_[b] = static_cast<int64_t>(b);
    if (b + 1 < count && loss_[static_cast<size_t>(cheapest_[b + 1])] < loss_[b])
      cheapest_[b] = cheapest_[b + 1];
  }
}

Choice Frontier::back(int64_t bucket) const {
  std::vector<int> taken(cover_.groups.size(), 0);
  for (size_t g = cover_.groups.size(); g-- > 0;) {
    taken[g] = taken_[g][static_cast<size_t>(bucket)];
    bucket -= option(cover_, g, taken[g]).saved[axis_] / bucket_;
  }
  return choice_of(cover_, std::move(taken));
}

std::optional<Choice> Frontier::at(int64_t least) const {
  if (least <= 0) least = 0;
  const int64_t target = (least + bucket_ - 1) / bucket_, count = static_cast<int64_t>(loss_.size());
  std::optional<Choice> best;
  if (target < count && loss_[static_cast<size_t>(cheapest_[static_cast<size_t>(target)])] < kNever)
    best = back(cheapest_[static_cast<size_t>(target)]);
  if (exact_) return best;
  // What rounding down put into a bucket below may save enough all the same.
  const auto slack = static_cast<int64_t>(cover_.groups.size());
  for (int64_t b = std::min(target, count) - 1; b >= 0 && b >= target - slack; --b) {
    if (!(loss_[static_cast<size_t>(b)] < (best ? best->loss : kNever))) continue;
    Choice choice = back(b);
    if (choice.saved[axis_] >= least) best = std::move(choice);
  }
  // And where buckets are as coarse as candidates, the greedy answers still are whole.
  Cover cover = cover_;
  std::ranges::fill(cover.least, 0);
  cover.least[axis_] = least;
  for (Order order : {Order::loss, Order::ratio}) {
    const std::optional<Choice> choice = greedy(cover, order);
    if (choice && choice->loss < (best ? best->loss : kNever)) best = choice;
  }
  return best;
}

std::vector<Choice> Frontier::sampled(int64_t count) const {
  std::vector<Choice> points;
  for (int64_t k = 1; k <= count; ++k) {
    const auto budget = static_cast<int64_t>(static_cast<double>(largest_) * static_cast<double>(k) /
                                             static_cast<double>(count));
    const std::optional<Choice> choice = at(budget);
    if (!choice || (!points.empty() && points.back().taken == choice->taken)) continue;
    points.push_back(*choice);
  }
  return points;
}

Exact exact(const Cover& cover, const ExactOptions& options) {
  return BranchAndBound(cover, options).run();
}

std::optional<Choice> packed(const Cover& cover, int64_t capacity) {
  if (capacity < 0 || cover.least.size() != 1) return std::nullopt;
  constexpr int64_t kBuckets = int64_t{1} << 18;
  const int64_t bucket = std::max<int64_t>(1, (capacity + kBuckets - 1) / kBuckets);
  const auto room = static_cast<size_t>(capacity / bucket);
  std::vector<double> kept(room + 1, 0);
  std::vector<std::vector<bool>> stays;
  for (const Group& group : cover.groups) {
    if (group.size() != 2) fail("packing is for candidates alone, and a group has {} options", group.size());
    const auto size = static_cast<size_t>((group[1].saved[0] + bucket - 1) / bucket);
    std::vector<bool> stay(room + 1, false);
    for (size_t c = room + 1; c-- > size;) {
      if (kept[c - size] + group[1].loss >= kept[c]) kept[c] = kept[c - size] + group[1].loss, stay[c] = true;
    }
    stays.push_back(std::move(stay));
  }
  std::vector<int> taken(cover.groups.size(), 1);
  size_t left = room;
  for (size_t g = cover.groups.size(); g-- > 0;) {
    if (!stays[g][left]) continue;
    taken[g] = 0;
    left -= static_cast<size_t>((cover.groups[g][1].saved[0] + bucket - 1) / bucket);
  }
  return choice_of(cover, std::move(taken));
}

namespace {

// Choices that hold the budgets and differ in one group, or in two, the smallest sum first.
std::vector<Choice> neighbours(const Cover& cover, const Choice& from, const RefineOptions& options) {
  std::vector<Choice> near;
  const size_t n = cover.groups.size();
  const auto offer = [&](const Choice& next) {
    if (holds(cover, next)) near.push_back(next);
  };
  for (size_t g = 0; g < n; ++g) {
    for (int o = 0; o < static_cast<int>(cover.groups[g].size()); ++o) {
      if (o == from.taken[g]) continue;
      const Choice one = moved(cover, from, g, o);
      offer(one);
      if (options.flips < 2) continue;
      for (size_t h = g + 1; h < n; ++h) {
        for (int p = 0; p < static_cast<int>(cover.groups[h].size()); ++p)
          if (p != from.taken[h]) offer(moved(cover, one, h, p));
      }
    }
  }
  const auto count = std::min(near.size(), static_cast<size_t>(std::max<int64_t>(options.neighbours, 0)));
  std::ranges::partial_sort(near, near.begin() + static_cast<std::ptrdiff_t>(count), {}, &Choice::loss);
  near.resize(count);
  return near;
}

}  // namespace

Refined refine(const Cover& cover, const Choice& start, const std::function<double(const Choice&)>& truth,
               const RefineOptions& options) {
  std::map<std::vector<int>, double> known;
  Refined refined{.choice = start, .truth = truth(start), .evaluations = 1, .converged = false};
  known[start.taken] = refined.truth;
  for (;;) {
    bool better = false;
    for (const Choice& next : neighbours(cover, refined.choice, options)) {
      if (known.contains(next.taken)) continue;
      if (refined.evaluations >= options.evaluations) return refined;
      const double value = known[next.taken] = truth(next);
      ++refined.evaluations;
      if (value >= refined.truth) continue;
      refined.choice = choice_of(cover, next.taken);
      refined.truth = value;
      better = true;
      break;
    }
    if (!better) {
      refined.converged = true;
      return refined;
    }
  }
}

}  // namespace lamina::laptop
