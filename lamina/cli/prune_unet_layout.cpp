// The layouts that a cut may be asked to end in, as states that a solver chooses from.
#include <algorithm>
#include <cmath>
#include <map>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/prune_unet.h"

namespace lamina::cli {

std::optional<unet::LayoutOptions> layout_from_name(const std::string& name) {
  if (name == "any") return std::nullopt;
  if (name == "exact") return unet::LayoutOptions{.wiring = unet::Wiring::exact};
  if (name == "stock") return unet::LayoutOptions{.wiring = unet::Wiring::stock};
  const std::vector<std::string> names = unet::layout_names();
  if (std::ranges::find(names, name) == names.end())
    fail("--layout {}: any, exact, stock, {} are possible", in_quotes(name), fmt::join(names, ", "));
  return unet::LayoutOptions{.wiring = unet::Wiring::stock, .layout = name};
}

namespace {

// A state with each count of a pick's units, the cheapest first, beside what is in it.
std::vector<laptop::State> with_pick(const std::vector<laptop::State>& states, const unet::Pick& pick,
                                     const std::function<double(const std::vector<Site>&)>& loss) {
  std::vector<unet::Unit> units = pick.units;
  std::ranges::stable_sort(units, {}, [&](const unet::Unit& unit) { return loss(unit.sites); });
  std::vector<laptop::State> grown;
  for (const laptop::State& state : states) {
    laptop::State next = state;
    for (int64_t k = 0; k <= pick.most; ++k) {
      if (k >= pick.least) grown.push_back(next);
      if (k == static_cast<int64_t>(units.size())) break;
      const unet::Unit& unit = units[static_cast<size_t>(k)];
      next.sites.insert(next.sites.end(), unit.sites.begin(), unit.sites.end());
      next.saved[0] += unit.parameters;
    }
  }
  return grown;
}

}  // namespace

std::vector<laptop::Bundle> layout_bundles(const Subject& subject, const std::string& layout,
                                           std::span<const Site> candidates, std::span<const double> values,
                                           const laptop::Prices& prices) {
  std::map<int, double> value;
  for (size_t i = 0; i < candidates.size(); ++i) value[candidates[i].index] = values[i];
  const auto loss = [&](const std::vector<Site>& sites) {
    double sum = 0;
    for (Site site : sites) sum += value.at(site.index);
    return sum;
  };
  // Of states that save no more and lose no less than another only that one goes on.
  const auto thinned = [&](std::vector<laptop::State> states) {
    struct Known {
      double loss;
      int64_t saved;
      size_t index;
    };
    std::vector<Known> known;
    for (size_t i = 0; i < states.size(); ++i)
      known.push_back({loss(states[i].sites), states[i].saved[0], i});
    std::ranges::stable_sort(known, [](const Known& a, const Known& b) {
      return a.saved != b.saved ? a.saved > b.saved : a.loss < b.loss;
    });
    std::vector<laptop::State> kept;
    double least = INFINITY;
    for (const Known& one : known) {
      if (one.loss >= least) continue;
      least = one.loss;
      kept.push_back(std::move(states[one.index]));
    }
    return kept;
  };
  std::vector<laptop::Bundle> bundles;
  for (const unet::Group& group :
       unet::choices(subject.opened().checkpoint.config, subject.blueprint(), *layout_from_name(layout))) {
    laptop::Bundle bundle;
    for (const unet::Choice& choice : group.choices) {
      std::vector<laptop::State> states = {{.sites = choice.removed, .saved = {choice.parameters}}};
      for (const unet::Pick& pick : choice.picks) states = thinned(with_pick(states, pick, loss));
      bundle.states.insert(bundle.states.end(), states.begin(), states.end());
    }
    for (laptop::State& state : bundle.states) {
      const std::vector<int64_t> all = prices.saved(state.sites);
      state.saved.insert(state.saved.end(), all.begin() + 1, all.end());
    }
    bundles.push_back(std::move(bundle));
  }
  return bundles;
}

}  // namespace lamina::cli
