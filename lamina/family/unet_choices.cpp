#include <algorithm>
#include <map>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/family/impl/unet_stages.h"
#include "lamina/family/unet_layout.h"

namespace lamina::unet {

namespace {

constexpr size_t kMostLayers = 3;  // of a stage on the way down, of which some may be chosen
constexpr std::string_view kNames[] = {"bk-base", "bk-small", "bk-tiny",   "ssd-1b",
                                       "vega",    "koala-1b", "koala-700m"};

// Parameters by module: "up_blocks.1.resnets.0", "up_blocks.1.attentions.0", "....transformer_blocks.3".
class Sizes {
 public:
  explicit Sizes(const Blueprint& blueprint) {
    for (const Slot& slot : blueprint.slots) {
      int64_t count = 1;
      for (const Axis& axis : slot.axes) count *= axis.size();
      sizes_.emplace(slot.name, count);
    }
  }
  int64_t under(const std::string& path) const {
    int64_t sum = 0;
    for (auto it = sizes_.lower_bound(path + "."); it != sizes_.end() && it->first.starts_with(path + ".");
         ++it)
      sum += it->second;
    return sum;
  }
  int64_t layer(const Layer& layer) const {
    return under(layer.resnet) + (layer.attention.empty() ? 0 : under(layer.attention));
  }

 private:
  std::map<std::string, int64_t> sizes_;
};

// Subsets of a side of a stage, of `count` layers, those with most layers first.
std::vector<std::vector<size_t>> subsets(size_t layers, bool all_alone) {
  std::vector<std::vector<size_t>> lists;
  if (all_alone) {
    lists.emplace_back(layers);
    std::iota(lists[0].begin(), lists[0].end(), size_t{0});
    return lists;
  }
  for (size_t mask = size_t{1} << layers; mask-- > 0;) {
    std::vector<size_t> list;
    for (size_t i = 0; i < layers; ++i) {
      if (mask >> i & 1) list.push_back(i);
    }
    lists.push_back(std::move(list));
  }
  std::ranges::sort(
      lists, [](const auto& a, const auto& b) { return a.size() != b.size() ? a.size() > b.size() : a < b; });
  return lists;
}

class Chooser {
 public:
  Chooser(const Json& json, const Blueprint& blueprint, const LayoutOptions& options)
      : blueprint_(blueprint),
        config_(read_config(json, "config")),
        stages_(stages_of(config_, blueprint, {})),
        sizes_(blueprint),
        wiring_(options.layout.empty() ? options.wiring : Wiring::stock),
        name_(options.layout) {
    if (!name_.empty()) aim();
  }

  std::vector<Group> groups() const {
    std::vector<Group> groups;
    for (size_t i = 0; i < stages_.down.size(); ++i) {
      Group group{.name = fmt::format("down_blocks.{} up_blocks.{}", i, stages_.down.size() - 1 - i)};
      if (i + 1 == stages_.down.size() && !stages_.mid.empty()) group.name += " mid_block";
      group.choices = of_stage(i);
      if (group.choices.empty())
        fail("{} cannot be reached from this U-Net: no layers of {} fit",
             name_.empty() ? "a stock config" : name_, group.name);
      groups.push_back(std::move(group));
    }
    return groups;
  }

 private:
  bool innermost(size_t stage) const { return stage + 1 == stages_.down.size(); }

  void aim() {
    if (std::ranges::find(kNames, name_) == std::end(kNames))
      fail("{} is no layout that a cut ends in; {} are", in_quotes(name_), fmt::join(kNames, ", "));
    target_ = read_config(published_config(name_), name_);
    const auto stages = static_cast<size_t>(target_->stages());
    const auto no = [&](const std::string& why) {
      fail("{} cannot be reached from this U-Net: {}", name_, why);
    };
    if (stages > stages_.down.size())
      no(fmt::format("it has {} stages and this one {}", stages, stages_.down.size()));
    for (size_t i = 0; i < stages; ++i) {
      if (target_->layers[i] > config_.layers[i])
        no(fmt::format("it has {} layers in down_blocks.{} and this one {}", target_->layers[i], i,
                       config_.layers[i]));
      if (target_->down_attends[i] && !config_.down_attends[i])
        no(fmt::format("it has transformers in down_blocks.{}", i));
      if (target_->up_attends[stages - 1 - i] && !config_.up_attends[stages_.down.size() - 1 - i])
        no(fmt::format("it has transformers in up_blocks.{}", stages - 1 - i));
    }
    if (target_->mid > config_.mid) no("its middle block has more in it");
    if (stages < stages_.down.size() && config_.channels[stages - 1] != config_.channels.back())
      no("its innermost stage has other channels than the one that would have to go");
  }

  std::vector<Site> present(const std::vector<Site>& parts) const {
    std::vector<Site> list;
    std::ranges::copy_if(parts, std::back_inserter(list),
                         [&](Site site) { return blueprint_.part(site).present; });
    return list;
  }
  void drop(const std::vector<Site>& parts, Choice& choice) const {
    const std::vector<Site> list = present(parts);
    choice.removed.insert(choice.removed.end(), list.begin(), list.end());
  }
  void drop(const Layer& layer, Choice& choice) const {
    drop(parts_of(layer), choice);
    choice.parameters += sizes_.layer(layer);
  }

  // Blocks of a transformer, each a unit; what stands around them stays in the file.
  std::vector<Unit> units(const Layer& layer) const {
    std::vector<Unit> units;
    for (int64_t k : layer.left) {
      const std::string path = fmt::format("{}.transformer_blocks.{}", layer.attention, k);
      units.push_back({{layer.blocks[static_cast<size_t>(k)]}, sizes_.under(path)});
    }
    return units;
  }
  static void pick(std::vector<Unit> units, Choice& choice) {
    if (units.empty()) return;
    const auto most = static_cast<int64_t>(units.size());
    choice.picks.push_back({.units = std::move(units), .least = 0, .most = most});
  }

  // What of the layers at their new places may go besides. False: they cannot stand there.
  bool add_picks(const std::vector<const Layer*>& kept, const std::vector<int64_t>* depths,
                 const Layer* paired, Choice& choice) const {
    for (size_t p = 0; p < kept.size(); ++p) {
      const Layer& layer = *kept[p];
      if (!layer.kept) return false;
      if (layer.attention.empty()) continue;
      const auto left = static_cast<int64_t>(layer.left.size());
      if (!target_) {
        if (&layer != paired) pick(units(layer), choice);
        continue;
      }
      const int64_t depth = depths ? (*depths)[p] : 0;
      if (depth > left) return false;
      if (depth == 0) {
        drop(layer.blocks, choice);
        if (depths) {
          for (const Unit& unit : units(layer)) choice.parameters += unit.parameters;
        } else {
          choice.parameters += sizes_.under(layer.attention);
        }
      } else if (depth < left) {
        choice.picks.push_back({.units = units(layer), .least = left - depth, .most = left - depth});
      }
    }
    return true;
  }

  std::vector<Choice> of_stage(size_t i) const {
    const size_t count = target_ ? static_cast<size_t>(target_->stages()) : stages_.down.size();
    if (i >= count) return dropped(i);
    const std::vector<Layer>&down = stages_.down[i], &up = stages_.up[i];
    const bool all_alone =
        wiring_ == Wiring::exact || (!target_ && down.size() > kMostLayers) || down.size() > 2 * kMostLayers;
    std::vector<Choice> choices;
    for (const std::vector<size_t>& d : subsets(down.size(), all_alone)) {
      if (target_ && std::ssize(d) != target_->layers[i]) continue;
      if (!joins(d, i)) continue;
      for (const std::vector<size_t>& u : subsets(up.size(), all_alone)) {
        if (u.size() == d.size() + 1 && joins_up(u, i)) add_choices(i, d, u, choices);
      }
    }
    // A stage of the same width as the one outside it may go as a whole, middle block and all.
    if (wiring_ == Wiring::stock && !target_ && innermost(i) && i > 0 &&
        config_.channels[i] == config_.channels[i - 1]) {
      const std::vector<Choice> whole = dropped(i);
      choices.insert(choices.end(), whole.begin(), whole.end());
    }
    return choices;
  }

  // Whether the layers left on the way down read what comes to them.
  bool joins(const std::vector<size_t>& kept, size_t stage) const {
    const int64_t before = config_.channels[stage == 0 ? 0 : stage - 1];
    if (kept.empty()) return before == config_.channels[stage];
    for (size_t p = 0; p < kept.size(); ++p) {
      if (stages_.down[stage][kept[p]].in != (p == 0 ? before : config_.channels[stage])) return false;
    }
    return true;
  }
  bool joins_up(const std::vector<size_t>& kept, size_t stage) const {
    for (size_t p = 0; p < kept.size(); ++p) {
      if (stages_.up[stage][kept[p]].in != width_at(config_, stage, p, kept.size())) return false;
    }
    return true;
  }

  std::vector<Choice> dropped(size_t stage) const {
    Choice choice{.exact = false};
    for (const auto* layers : {&stages_.down[stage], &stages_.up[stage]}) {
      for (const Layer& layer : *layers) drop(layer, choice);
    }
    for (const Layer& layer : stages_.mid) {
      if (innermost(stage)) drop(layer, choice);
    }
    choice.parameters += sizes_.under(fmt::format("down_blocks.{}.downsamplers", stage - 1));
    choice.parameters +=
        sizes_.under(fmt::format("up_blocks.{}.upsamplers", stages_.down.size() - 1 - stage));
    return {choice};
  }

  void add_choices(size_t stage, const std::vector<size_t>& d, const std::vector<size_t>& u,
                   std::vector<Choice>& choices) const {
    Choice base;
    const auto keep = [&](const std::vector<Layer>& layers, const std::vector<size_t>& list) {
      std::vector<const Layer*> kept;
      for (size_t j = 0; j < layers.size(); ++j) {
        if (std::ranges::find(list, j) != list.end())
          kept.push_back(&layers[j]);
        else
          drop(layers[j], base);
      }
      return kept;
    };
    const std::vector<const Layer*> down = keep(stages_.down[stage], d), up = keep(stages_.up[stage], u);
    base.exact = d.size() == stages_.down[stage].size();
    const std::vector<int64_t>*down_depths = nullptr, *up_depths = nullptr;
    if (target_) {
      const size_t turned = target_->channels.size() - 1 - stage;
      if (target_->down_attends[stage]) down_depths = &target_->down_depths[stage];
      if (target_->up_attends[turned]) up_depths = &target_->up_depths[turned];
    }
    const auto finish = [&](Choice choice, const Layer* paired) {
      if (add_picks(down, down_depths, paired, choice) && add_picks(up, up_depths, paired, choice))
        choices.push_back(std::move(choice));
    };
    if (!innermost(stage)) return finish(base, nullptr);
    for (auto& [choice, pairs] : middles(base)) {
      const Layer* first = down.empty() || down[0]->attention.empty() ? nullptr : down[0];
      if (pairs && first && !target_) {
        // The config has one number for both depths: their blocks go in pairs.
        std::vector<Unit> both = units(*first);
        const std::vector<Unit> mid = units(stages_.mid[0]);
        if (both.size() != mid.size()) continue;
        for (size_t k = 0; k < both.size(); ++k) {
          both[k].sites.push_back(mid[k].sites[0]);
          both[k].parameters += mid[k].parameters;
        }
        pick(std::move(both), choice);
        finish(choice, first);
      } else {
        if (pairs && !target_) pick(units(stages_.mid[0]), choice);
        finish(choice, nullptr);
      }
    }
  }

  // What may be left of the middle block; `pairs`: two ResNets and the transformer between them.
  std::vector<std::pair<Choice, bool>> middles(const Choice& base) const {
    std::vector<std::pair<Choice, bool>> list;
    const std::vector<Layer>& mid = stages_.mid;
    const auto without = [&](std::initializer_list<size_t> resnets, bool pairs) {
      Choice choice = base;
      for (size_t j = 0; j < mid.size(); ++j) {
        const bool gone = std::ranges::find(resnets, j) != resnets.end();
        if (gone) drop({mid[j].part}, choice), choice.parameters += sizes_.under(mid[j].resnet);
        if (!gone && !mid[j].kept) return;
        if (pairs || mid[j].attention.empty()) continue;
        drop(mid[j].blocks, choice);
        choice.parameters += sizes_.under(mid[j].attention);
      }
      list.emplace_back(std::move(choice), pairs);
    };
    const auto allowed = [&](Mid kind) { return target_ ? target_->mid == kind : config_.mid >= kind; };
    if (mid.size() == 2) {
      if (allowed(Mid::attention)) {
        without({}, true);
        if (target_ && !list.empty()) {
          const std::vector<int64_t> depth = {target_->mid_depth};
          if (!add_picks({mid.data()}, &depth, nullptr, list.back().first)) list.pop_back();
        }
      }
      if (allowed(Mid::resnet)) without({1}, false), without({0}, false);
      if (allowed(Mid::none)) without({0, 1}, false);
    } else if (mid.size() == 1) {
      if (allowed(Mid::resnet)) without({}, false);
      if (allowed(Mid::none)) without({0}, false);
    } else {
      list.emplace_back(base, false);
    }
    return list;
  }

  const Blueprint& blueprint_;
  Config config_;
  Stages stages_;
  Sizes sizes_;
  Wiring wiring_;
  std::string name_;
  std::optional<Config> target_;
};

// What a choice removes with the units that come nearest to `wanted`.
std::vector<Site> taken(const Choice& choice, const std::vector<bool>& wanted) {
  std::vector<Site> removed = choice.removed;
  for (const Pick& pick : choice.picks) {
    std::vector<std::pair<int64_t, const Unit*>> units;  // those that go against the wish, last
    for (const Unit& unit : pick.units) {
      const int64_t asked = std::ranges::count_if(
          unit.sites, [&](Site site) { return wanted[static_cast<size_t>(site.index)]; });
      units.emplace_back(std::ssize(unit.sites) - 2 * asked, &unit);
    }
    std::ranges::sort(units);
    for (int64_t n = 0; n < std::min<int64_t>(pick.most, std::ssize(units)); ++n) {
      const auto& [against, unit] = units[static_cast<size_t>(n)];
      if (against >= 0 && n >= pick.least) break;
      removed.insert(removed.end(), unit->sites.begin(), unit->sites.end());
    }
  }
  return removed;
}

}  // namespace

std::vector<std::string> layout_names() {
  return {std::begin(kNames), std::end(kNames)};
}

std::vector<Group> choices(const Json& config, const Blueprint& blueprint, const LayoutOptions& options) {
  return Chooser(config, blueprint, options).groups();
}

Near nearest(const Json& config, const Blueprint& blueprint, const std::vector<Site>& removed,
             const LayoutOptions& options) {
  std::vector<bool> wanted(blueprint.parts.size());
  for (Site site : removed) wanted[static_cast<size_t>(site.index)] = true;
  const auto count = [&](const std::vector<Site>& sites) {
    return std::ranges::count_if(sites, [&](Site site) { return wanted[static_cast<size_t>(site.index)]; });
  };
  Near near;
  for (const Group& group : choices(config, blueprint, options)) {
    std::optional<std::vector<Site>> best;
    int64_t least = 0;
    for (const Choice& choice : group.choices) {
      std::vector<Site> now = taken(choice, wanted);
      // Parts that were asked for and stay are counted by those that go: their sum is the same for all.
      const int64_t misses = std::ssize(now) - 2 * count(now);
      if (!best || misses < least) best = std::move(now), least = misses;
    }
    near.removed.insert(near.removed.end(), best->begin(), best->end());
  }
  std::ranges::sort(near.removed);
  std::vector<bool> goes(blueprint.parts.size());
  for (Site site : near.removed) {
    goes[static_cast<size_t>(site.index)] = true;
    if (!wanted[static_cast<size_t>(site.index)]) near.added.push_back(site);
  }
  for (Site site : removed) {
    if (!goes[static_cast<size_t>(site.index)]) near.returned.push_back(site);
  }
  near.expressed = express(config, blueprint, near.removed,
                           {.wiring = options.layout.empty() ? options.wiring : Wiring::stock});
  return near;
}

}  // namespace lamina::unet
