#include "lamina/methods/laptop/laptop.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/base/random.h"
#include "lamina/base/text.h"

namespace lamina::laptop {

std::vector<Bundle> free_bundles(const Blueprint& blueprint, std::span<const Site> candidates,
                                 std::span<const double> values) {
  std::vector<Bundle> bundles;
  std::map<int, std::vector<size_t>> inside;  // of each wrapper, indices of candidates
  for (size_t i = 0; i < candidates.size(); ++i) {
    const auto wrapper = std::ranges::find_if(blueprint.wrappers, [&](const Wrapper& w) {
      return std::ranges::find(w.parts, candidates[i].index) != w.parts.end();
    });
    if (wrapper == blueprint.wrappers.end())
      bundles.push_back({.states = {{}, {.sites = {candidates[i]}}}});
    else
      inside[static_cast<int>(wrapper - blueprint.wrappers.begin())].push_back(i);
  }
  for (auto& [wrapper, blocks] : inside) {
    std::ranges::stable_sort(blocks, {}, [&](size_t i) { return values[i]; });
    Bundle bundle{.states = {{}}};
    for (size_t i : blocks) {
      State more = bundle.states.back();
      more.sites.push_back(candidates[i]);
      bundle.states.push_back(std::move(more));
    }
    bundles.push_back(std::move(bundle));
  }
  return bundles;
}

namespace {

// The cheapest first; none that another beats on every axis.
Group worth_offering(Group group) {
  std::ranges::stable_sort(group, {}, &Option::loss);
  Group kept;
  for (Option& option : group) {
    const bool beaten = std::ranges::any_of(kept, [&](const Option& other) {
      for (size_t a = 0; a < option.saved.size(); ++a)
        if (other.saved[a] < option.saved[a]) return false;
      return true;
    });
    if (!beaten) kept.push_back(std::move(option));
  }
  return kept;
}

}  // namespace

Cover cover_of(std::span<const Bundle> bundles, std::span<const Site> candidates,
               std::span<const double> values, const Prices& prices, std::vector<int64_t> least) {
  std::map<int, int> index;
  for (size_t i = 0; i < candidates.size(); ++i) index[candidates[i].index] = static_cast<int>(i);
  Cover cover{.groups = {}, .least = std::move(least)};
  for (const Bundle& bundle : bundles) {
    Group group;
    for (const State& state : bundle.states) {
      Option option{.candidates = {},
                    .loss = 0,
                    .saved = state.saved.empty() ? prices.saved(state.sites) : state.saved};
      for (Site site : state.sites) {
        const auto found = index.find(site.index);
        if (found == index.end()) fail("part {} is no candidate", site.index);
        option.candidates.push_back(found->second);
        option.loss += values[static_cast<size_t>(found->second)];
      }
      std::ranges::sort(option.candidates);
      group.push_back(std::move(option));
    }
    cover.groups.push_back(worth_offering(std::move(group)));
  }
  return cover;
}

std::vector<Site> sites_of(std::span<const Site> candidates, std::span<const int> removed) {
  std::vector<Site> sites;
  for (int i : removed) sites.push_back(candidates[static_cast<size_t>(i)]);
  return sites;
}

Plan plan_of(const Blueprint& blueprint, std::span<const Site> candidates, std::span<const int> removed,
             std::span<const double> values) {
  Plan plan;
  for (int i : removed) {
    const auto at = static_cast<size_t>(i);
    plan.edits.push_back(Cut{.site = blueprint.part(candidates[at]).path, .score = values[at]});
  }
  return plan;
}

namespace {

// "up_blocks.1.attentions.2.transformer_blocks.0" is in stage "up_blocks.1", layer 2.
struct Place {
  std::string stage;
  int64_t layer = 0;
};
Place place_of(const Part& part) {
  const std::vector<std::string> words = split(part.path, '.');
  if (words[0] == "mid_block" || words.size() < 4) return {.stage = words[0], .layer = 0};
  return {.stage = words[0] + "." + words[1], .layer = std::stoll(words[3])};
}

}  // namespace

std::vector<Site> handcrafted(const Blueprint& blueprint, std::string_view name) {
  if (name != "bk-base" && name != "bk-small" && name != "bk-tiny")
    fail("{} is no handcrafted cut known here; bk-base, bk-small and bk-tiny are", in_quotes(name));
  std::map<std::string, int64_t> layers;
  for (const Part& part : blueprint.parts)
    if (part.kind == Kind::resnet) ++layers[place_of(part).stage];
  int64_t downs = 0;
  for (const auto& [stage, count] : layers) {
    const bool down = stage.starts_with("down_blocks"), up = stage.starts_with("up_blocks");
    downs += down;
    if ((down && count != 2) || (up && count != 3))
      fail("BK-SDM's cut is of stages of two layers going down and three going up; {} has {}", stage, count);
  }
  if (layers.empty()) fail("BK-SDM's cut is of a U-Net, and {} is none", blueprint.family);
  const std::string innermost = fmt::format("down_blocks.{}", downs - 1);
  std::vector<Site> gone;
  for (Site site : blueprint.present()) {
    const Place place = place_of(blueprint.part(site));
    const bool mid = place.stage == "mid_block",
               deepest = mid || place.stage == innermost || place.stage == "up_blocks.0";
    const bool cut =
        (!mid && place.layer == 1) || (name == "bk-small" && mid) || (name == "bk-tiny" && deepest);
    if (cut) gone.push_back(site);
  }
  return gone;
}

std::optional<Choice> random_choice(const Cover& cover, uint64_t seed) {
  SplitMix random(seed);
  std::vector<size_t> order(cover.groups.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = order.size(); i-- > 1;)
    std::swap(order[i], order[static_cast<size_t>(random.below(static_cast<int64_t>(i) + 1))]);
  std::vector<int> taken(cover.groups.size(), 0);
  for (size_t group : order) {
    const Choice choice = choice_of(cover, taken);
    if (holds(cover, choice)) return choice;
    const auto options = static_cast<int64_t>(cover.groups[group].size());
    if (options > 1) taken[group] = static_cast<int>(1 + random.below(options - 1));
  }
  const Choice choice = choice_of(cover, taken);
  return holds(cover, choice) ? std::optional(choice) : std::nullopt;
}

}  // namespace lamina::laptop
