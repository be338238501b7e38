#include "lamina/family/unet_layout.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/family/impl/unet_wanted.h"
#include "lamina/plan/plan.h"

namespace lamina::unet {

namespace {

// Why a plan cannot be said; caught where the answer is given.
struct No {
  std::string why;
};

std::string label(const Blueprint& blueprint, Site site) {
  return blueprint.part(site).label();
}

// Transformers to the ResNets that are left: in their order, each as near as can be to where it stood, at or
// behind the last ResNet before it.
Side paired(const std::vector<Layer>& layers, const Blueprint& blueprint) {
  std::vector<const Layer*> kept, attending;
  for (const Layer& layer : layers) {
    if (layer.kept) kept.push_back(&layer);
    if (layer.attends) attending.push_back(&layer);
  }
  if (attending.size() > kept.size())
    throw No{fmt::format("{} would stand without a ResNet of its stage in front",
                         label(blueprint, attending.back()->blocks[0]))};
  const size_t places = kept.size(), count = attending.size();
  constexpr size_t kFar = std::numeric_limits<size_t>::max() / 2;
  const auto distance = [&](size_t a, size_t place) {
    size_t ideal = 0;
    for (size_t p = 0; p < places; ++p) {
      if (kept[p] <= attending[a]) ideal = p;  // both point into `layers`
    }
    return ideal > place ? ideal - place : place - ideal;
  };
  // cost[a][p]: the transformers from a on, at the places from p on.
  std::vector<std::vector<size_t>> cost(count + 1, std::vector<size_t>(places + 1, kFar));
  cost[count].assign(places + 1, 0);
  for (size_t a = count; a-- > 0;) {
    for (size_t p = places; p-- > 0;)
      cost[a][p] = std::min(cost[a][p + 1], distance(a, p) + cost[a + 1][p + 1]);
  }
  Side side;
  for (size_t p = 0, a = 0; p < places; ++p) {
    side.places.push_back({kept[p], nullptr});
    if (a < count && cost[a][p] < cost[a][p + 1]) side.places.back().attention = attending[a++];
  }
  return side;
}

Side in_place(const std::vector<Layer>& layers, const Blueprint& blueprint) {
  Side side;
  for (const Layer& layer : layers) {
    if (!layer.kept)
      throw No{fmt::format(
          "{} is a ResNet of its own place: stock stages lose layers on the way down and on the way up "
          "together, which wires the rest anew",
          label(blueprint, layer.part))};
    side.places.push_back({&layer, layer.attends ? &layer : nullptr});
  }
  return side;
}

void place_middle(const Stages& stages, const Blueprint& blueprint, Wanted& wanted) {
  const std::vector<Layer>& mid = stages.mid;
  std::vector<const Layer*> kept;
  for (const Layer& layer : mid) {
    if (layer.kept) kept.push_back(&layer);
  }
  const bool attends = std::ranges::any_of(mid, &Layer::attends);
  if (attends && kept.size() < 2)
    throw No{fmt::format("{} would stand in a middle block of {}, and stock ones have two around it",
                         label(blueprint, mid[0].blocks[0]), kept.empty() ? "no ResNet" : "one ResNet")};
  for (const Layer* layer : kept) wanted.mid.places.push_back({layer, nullptr});
  wanted.kind = kept.empty() ? Mid::none : kept.size() == 1 ? Mid::resnet : Mid::attention;
  if (attends) wanted.mid.places[0].attention = mid.data();
}

bool gone(const std::vector<Layer>& layers) {
  return std::ranges::all_of(layers, &Layer::gone);
}

void check_stage(const Wanted& wanted, const Config& target, size_t stage, const Blueprint& blueprint) {
  const std::vector<Place>&down = wanted.down[stage].places, &up = wanted.up[stage].places;
  if (up.size() != down.size() + 1)
    throw No{
        fmt::format("down_blocks.{} keeps {} layers and the stage above it on the way up {}, where stock "
                    "configs have one "
                    "more there than on the way down",
                    stage, down.size(), up.size())};
  if (down.empty() && stage > 0 && target.channels[stage] != target.channels[stage - 1])
    throw No{fmt::format("down_blocks.{} would have no layers, but its channels change from {} to {}", stage,
                         target.channels[stage - 1], target.channels[stage])};
  const auto fits = [&](const Layer& layer, int64_t width) {
    if (layer.in != width)
      throw No{fmt::format("{} reads {} channels and would come to a place that brings {}",
                           label(blueprint, layer.part), layer.in, width)};
  };
  for (size_t j = 0; j < down.size(); ++j)
    fits(*down[j].resnet, j == 0 && stage > 0 ? target.channels[stage - 1] : target.channels[stage]);
  for (size_t j = 0; j < up.size(); ++j) fits(*up[j].resnet, width_at(target, stage, j, up.size()));
}

// The outer stages of a config: what the innermost ones that are gone leave.
Config outer_part(const Config& config, size_t stages) {
  Config left = config;
  left.channels.resize(stages);
  return left;
}

Wanted wanted_of(const Config& config, const Blueprint& blueprint, const Stages& stages, Wiring wiring) {
  size_t count = stages.down.size();
  if (wiring == Wiring::stock) {
    while (count > 1 && gone(stages.down[count - 1]) && gone(stages.up[count - 1])) --count;
  }
  Wanted wanted{.exact = wiring == Wiring::exact};
  for (size_t i = 0; i < count; ++i) {
    for (const auto& [layers, sides] :
         {std::pair{&stages.down[i], &wanted.down}, std::pair{&stages.up[i], &wanted.up}})
      sides->push_back(wiring == Wiring::exact ? in_place(*layers, blueprint) : paired(*layers, blueprint));
  }
  place_middle(stages, blueprint, wanted);
  const Config target = outer_part(config, count);
  if (wanted.kind != Mid::none && config.channels.back() != target.channels.back())
    throw No{fmt::format("{} reads {} channels and would come to a place that brings {}",
                         label(blueprint, wanted.mid.places[0].resnet->part), config.channels.back(),
                         target.channels.back())};
  for (size_t i = 0; i < count; ++i) check_stage(wanted, target, i, blueprint);
  if (wanted.kind == Mid::attention && wanted.down.back().attends() &&
      wanted.mid.places[0].depth() != wanted.down.back().places[0].depth())
    throw No{
        fmt::format("the middle transformer would have {} blocks and {} {}, and stock configs have one "
                    "number for both",
                    wanted.mid.places[0].depth(), wanted.down.back().places[0].resnet->attention,
                    wanted.down.back().places[0].depth())};
  return wanted;
}

// Old path for new, module by module, and the new paths of transformers that add nothing.
struct Moves {
  std::map<std::string, std::string> from;
  std::set<std::string> silent;

  void side(const Side& side, const std::string& stage) {
    const bool attends = side.attends();
    for (size_t p = 0; p < side.places.size(); ++p) {
      const Place& place = side.places[p];
      from[fmt::format("{}.resnets.{}", stage, p)] = place.resnet->resnet;
      if (attends) transformer(place, fmt::format("{}.attentions.{}", stage, p));
    }
  }
  void transformer(const Place& place, const std::string& path) {
    if (!place.attention) {
      silent.insert(path);
      if (!place.resnet->attends) from[path] = place.resnet->attention;
      return;
    }
    from[path] = place.attention->attention;
    for (size_t k = 0; k < place.attention->left.size(); ++k)
      from[fmt::format("{}.transformer_blocks.{}", path, k)] =
          fmt::format("{}.transformer_blocks.{}", place.attention->attention, place.attention->left[k]);
  }
};

Moves moves_of(const Wanted& wanted, size_t stages_before) {
  Moves moves;
  const size_t stages = wanted.down.size();
  for (size_t i = 0; i < stages; ++i) {
    const std::string down = fmt::format("down_blocks.{}", i),
                      up = fmt::format("up_blocks.{}", stages - 1 - i);
    moves.side(wanted.down[i], down);
    moves.side(wanted.up[i], up);
    moves.from[down + ".downsamplers.0"] = down + ".downsamplers.0";
    moves.from[up + ".upsamplers.0"] = fmt::format("up_blocks.{}.upsamplers.0", stages_before - 1 - i);
  }
  for (size_t p = 0; p < wanted.mid.places.size(); ++p)
    moves.from[fmt::format("mid_block.resnets.{}", p)] = wanted.mid.places[p].resnet->resnet;
  if (wanted.kind == Mid::attention) moves.transformer(wanted.mid.places[0], "mid_block.attentions.0");
  return moves;
}

// "up_blocks.1.attentions.0.transformer_blocks.3" of one of its tensors' names; of others the first words.
std::string module_of(const std::string& name) {
  size_t words = name.starts_with("mid_block.")                         ? 3
                 : name.starts_with("up_") || name.starts_with("down_") ? 4
                                                                        : 1;
  if (name.find(".transformer_blocks.") != std::string::npos) words += 2;
  size_t end = 0;
  for (; words > 0 && end != std::string::npos; --words) end = name.find('.', end + (end > 0 ? 1 : 0));
  return name.substr(0, end);
}

bool same_shape(const Slot& a, const Slot& b) {
  return std::ranges::equal(a.axes, b.axes, {}, &Axis::size, &Axis::size);
}

// Of the same shape, other heads are another function.
bool same_heads(const Slot& a, const Slot& b) {
  return std::ranges::equal(a.axes, b.axes, {}, &Axis::unit, &Axis::unit);
}

void name_tensors(Expressed& expressed, const Blueprint& before, const Blueprint& after, const Moves& moves) {
  std::unordered_map<std::string_view, const Slot*> old;
  for (const Slot& slot : before.slots) old.emplace(slot.name, &slot);
  for (const Slot& slot : after.slots) {
    const std::string module = module_of(slot.name);
    const auto move = moves.from.find(module);
    const std::string from =
        move == moves.from.end() ? slot.name : move->second + slot.name.substr(module.size());
    const auto it = old.find(from);
    const bool silent = moves.silent.contains(module);
    if (it != old.end() && !same_shape(*it->second, slot))
      throw No{fmt::format("{} has another shape than {}", from, slot.name)};
    if (it != old.end() && !same_heads(*it->second, slot))
      throw No{fmt::format("{} would come to a place with other heads, at {}", from, slot.name)};
    if (it != old.end())
      expressed.renamed.emplace_back(from, slot.name);
    else if (!silent)
      throw No{fmt::format("nothing is left for {}", slot.name)};
    if (silent && (it == old.end() || slot.silences)) expressed.zeroed.push_back(slot.name);
  }
}

// What lamina alone knows beside parts that are gone.
void check_keys_of(const Json& json) {
  for (const auto& [key, value] : json.items()) {
    if (key.starts_with("lamina_") && key != kRemoved)
      throw No{fmt::format("the config carries {}, which stock loaders do not know", key)};
  }
}

Expressed expressed_as(const Json& json, const Config& config, const Blueprint& blueprint,
                       const Stages& stages, Wiring wiring) {
  Expressed expressed;
  try {
    check_keys_of(json);
    const Wanted wanted = wanted_of(config, blueprint, stages, wiring);
    expressed.exact = wanted.exact;
    expressed.config = config_of(json, wanted);
    const Blueprint after = unet::blueprint(expressed.config, "the config that is left");
    name_tensors(expressed, blueprint, after, moves_of(wanted, stages.down.size()));
    expressed.parameters = after.parameters();
    expressed.possible = true;
  } catch (const No& no) {
    expressed = {.why = no.why};
  }
  return expressed;
}

}  // namespace

Expressed express(const Json& json, const Blueprint& blueprint, const std::vector<Site>& removed,
                  const LayoutOptions& options) {
  const Config config = read_config(json, "config");
  const Stages stages = stages_of(config, blueprint, removed);
  Expressed expressed = expressed_as(json, config, blueprint, stages, Wiring::exact);
  if (expressed.possible || options.wiring == Wiring::exact) return expressed;
  return expressed_as(json, config, blueprint, stages, Wiring::stock);
}

Checkpoint compacted(const Checkpoint& checkpoint, const Expressed& expressed) {
  if (!expressed.possible) fail("no stock config can say this: {}", expressed.why);
  const Blueprint blueprint = unet::blueprint(expressed.config, checkpoint.what());
  std::unordered_map<std::string_view, std::string_view> names(expressed.renamed.begin(),
                                                               expressed.renamed.end());
  std::set<std::string_view> zeroed(expressed.zeroed.begin(), expressed.zeroed.end());
  Checkpoint result = checkpoint;
  result.config = expressed.config;
  result.tensors.clear();
  for (const Stored& tensor : checkpoint.tensors) {
    const auto it = names.find(tensor.name);
    if (it == names.end()) continue;
    result.tensors.push_back(tensor);
    result.tensors.back().name = it->second;
    if (zeroed.erase(it->second) > 0) result.tensors.back().zero = true;
  }
  for (const Slot& slot : blueprint.slots) {
    if (!zeroed.contains(slot.name)) continue;
    Stored made{.name = slot.name, .dtype = result.tensors.at(0).dtype, .zero = true};
    for (const Axis& axis : slot.axes) made.shape.push_back(axis.size());
    result.tensors.push_back(std::move(made));
  }
  return result;
}

namespace {

std::string labels(const Blueprint& blueprint, const std::vector<Site>& sites) {
  std::string text;
  for (Site site : sites) text += (text.empty() ? "" : " ") + label(blueprint, site);
  return text;
}

// What could be written instead.
std::string instead(const Json& config, const Blueprint& blueprint, const std::vector<Site>& removed,
                    Wiring wiring) {
  try {
    const Near near = nearest(config, blueprint, removed, {.wiring = wiring});
    if (!near.expressed.possible) return "";
    std::string text = fmt::format("; the nearest plan that {} can say ",
                                   wiring == Wiring::exact ? "a stock config" : "stock wiring");
    if (!near.returned.empty()) text += "keeps " + labels(blueprint, near.returned);
    if (!near.added.empty())
      text +=
          fmt::format("{}cuts {} too", near.returned.empty() ? "" : " and ", labels(blueprint, near.added));
    return text;
  } catch (const Error&) {  // cut already, and not as a stock config says
    return "";
  }
}

// The same numbers, and of transformers that only fill a place those that they had, but for what writes: so
// training has a gradient there, where zeroes alone would have none. Nothing where parts that go carry what
// no stock config says.
std::optional<Checkpoint> with_fillers(const Checkpoint& checkpoint, const Blueprint& blueprint,
                                       const Plan& plan) {
  Plan cuts, beside;
  for (const Edit& edit : plan.edits)
    (std::holds_alternative<Cut>(edit) ? cuts : beside).edits.push_back(edit);
  const Checkpoint kept = apply(checkpoint, blueprint, beside);
  const Expressed expressed = express(kept.config, unet::blueprint(kept.config, checkpoint.what()),
                                      removed_sites(cuts, blueprint), {.wiring = wiring_of(plan)});
  return expressed.possible ? std::optional(compacted(kept, expressed)) : std::nullopt;
}

}  // namespace

Wiring wiring_of(const Plan& plan) {
  const std::string wiring = json_string_or(plan.provenance, "wiring", "exact", "the plan");
  if (wiring != "exact" && wiring != "stock")
    fail("the plan's wiring is {}; exact and stock are known", in_quotes(wiring));
  return wiring == "stock" ? Wiring::stock : Wiring::exact;
}

Compact compact(const Checkpoint& checkpoint, const Blueprint& blueprint, const Plan& plan) {
  const Wiring wiring = wiring_of(plan);
  const Checkpoint cut = apply(checkpoint, blueprint, plan);
  const Blueprint left = unet::blueprint(cut.config, checkpoint.what());
  const Expressed expressed = express(cut.config, left, {}, {.wiring = wiring});
  if (expressed.possible)
    return {.checkpoint = with_fillers(checkpoint, blueprint, plan).value_or(compacted(cut, expressed)),
            .note = expressed.exact
                        ? "diffusers and what else opens the original"
                        : "diffusers and what else opens the original; what is left is wired anew",
            .rewired = !expressed.exact};
  std::string note = expressed.why;
  const std::vector<Site> removed = removed_sites(plan, blueprint);
  if (wiring == Wiring::exact && express(cut.config, left, {}, {.wiring = Wiring::stock}).possible)
    note +=
        "; as whole layers they can go (\"wiring\": \"stock\" in the plan), which is another function, to be "
        "measured as such";
  return {.checkpoint = {}, .note = note + instead(checkpoint.config, blueprint, removed, wiring)};
}

}  // namespace lamina::unet
