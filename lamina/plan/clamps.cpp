// Clamps that stand in a config, because no weights say them, and the names of such a config.
#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"
#include "lamina/blueprint/variants.h"
#include "lamina/plan/impl/clamp_list.h"

namespace lamina {

namespace {

constexpr std::string_view kKey = "lamina_clamps", kType = "lamina_", kArchitecture = "Lamina",
                           kClass = "_class_name";

// The path of the linear map whose bias moves the value at a place.
const std::string& map_at(NeuronPlace place, const Neurons& neurons) {
  return place == NeuronPlace::gate ? neurons.gate : place == NeuronPlace::linear ? neurons.up : neurons.down;
}

bool is_beyond(const Clamp& clamp, const Blueprint& blueprint, const std::vector<Clamp>& held) {
  if (clamp.mode == ClampMode::max || clamp.mode == ClampMode::if_active) return true;
  // What feeds the place acts before the clamps that are held there; what reads from it, after them.
  const bool late =
      clamp.place != NeuronPlace::post && std::ranges::any_of(held, [&](const Clamp& other) {
        return other.site == clamp.site && other.neuron == clamp.neuron && other.place == clamp.place;
      });
  if (late) return true;
  if (clamp.mode == ClampMode::scale || clamp.value == 0) return false;
  const Neurons& neurons = *blueprint.part(blueprint.site(clamp.site)).neurons;
  return neurons.bias_key.empty() && !blueprint.slot(map_at(clamp.place, neurons) + ".bias");
}

}  // namespace

Json clamp_to_json(const Clamp& clamp) {
  return {{"site", clamp.site},
          {"neuron", clamp.neuron},
          {"place", place_name(clamp.place)},
          {"mode", mode_name(clamp.mode)},
          {"value", clamp.value}};
}

Clamp clamp_from_json(const Json& json, std::string_view what) {
  Clamp clamp{.site = json_string(json, "site", what), .neuron = json_integer(json, "neuron", what, {0})};
  const std::string place = json_string(json, "place", what), mode = json_string(json, "mode", what);
  const auto known_place = place_from_name(place);
  if (!known_place) fail("{}: {} is no place of a neuron; gate, linear and post are", what, in_quotes(place));
  const auto known_mode = mode_from_name(mode);
  if (!known_mode)
    fail("{}: {} is no mode of a clamp; set, add, scale, max and if-active are", what, in_quotes(mode));
  if (!json_has(json, "value")) fail("{}: \"value\" is missing", what);
  clamp.place = *known_place;
  clamp.mode = *known_mode;
  clamp.value = json_number_or(json, "value", 0, what);
  return clamp;
}

const Neurons& neurons_of(const std::string& site, int64_t neuron, const Blueprint& blueprint,
                          std::string_view what) {
  const Part& part = blueprint.part(blueprint.site(site));
  if (!part.neurons) {
    const auto other = std::ranges::find_if(blueprint.parts,
                                            [](const Part& p) { return p.present && p.neurons.has_value(); });
    fail("{} names a neuron of {}, which is {} and has none{}", what, site,
         part.kind == Kind::attention ? "attention" : "a part",
         other == blueprint.parts.end() ? "" : fmt::format("; feed-forwards do, such as {}", other->path));
  }
  if (neuron < 0 || neuron >= part.neurons->count)
    fail("{} names neuron {} of {}, which has 0 to {}", what, neuron, site, part.neurons->count - 1);
  return *part.neurons;
}

void check_clamp(const Clamp& clamp, const Blueprint& blueprint, std::string_view what) {
  const Neurons& neurons = neurons_of(clamp.site, clamp.neuron, blueprint, what);
  if (clamp.place == NeuronPlace::gate && neurons.gate.empty())
    fail("{} clamps the gate of {}, whose neurons have none; linear and post are there", what, clamp.site);
  if (!std::isfinite(static_cast<float>(clamp.value)))
    fail("{} clamps neuron {} of {} with {}, which is no finite number of single precision", what,
         clamp.neuron, clamp.site, clamp.value);
}

std::vector<Clamp> beyond_weights(const Plan& plan, const Blueprint& blueprint,
                                  const std::vector<Clamp>& held) {
  std::vector<Clamp> beyond;
  for (const Edit& edit : plan.edits) {
    const auto* clamp = std::get_if<Clamp>(&edit);
    if (clamp && is_beyond(*clamp, blueprint, held)) beyond.push_back(*clamp);
  }
  return beyond;
}

std::vector<Clamp> clamps_of(const Json& config, const Blueprint& blueprint, std::string_view what) {
  std::vector<Clamp> clamps;
  if (!json_has(config, kKey)) return clamps;
  const Json& list = config.at(std::string(kKey));
  if (!list.is_array())
    fail("{}: {} is {} where a list was expected", what, kKey, in_quotes(list.dump(), 40));
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string here = fmt::format("{}: entry {} of {}", what, i + 1, kKey);
    if (!list[i].is_object())
      fail("{} is {} where an object was expected", here, in_quotes(list[i].dump(), 40));
    check_keys(list[i], {"site", "neuron", "place", "mode", "value"}, here);
    clamps.push_back(clamp_from_json(list[i], here));
    check_clamp(clamps.back(), blueprint, here);
    if (!blueprint.part(blueprint.site(clamps.back().site)).present)
      fail("{} clamps {}, but that part is gone from this model", here, clamps.back().site);
  }
  return clamps;
}

std::string stock_name(std::string_view name) {
  for (std::string_view prefix : {kType, kArchitecture}) {
    if (name.starts_with(prefix)) return std::string(name.substr(prefix.size()));
  }
  return std::string(name);
}

void write_clamps(Json& config, const std::vector<Clamp>& clamps) {
  config.erase(std::string(kKey));
  if (clamps.empty()) return;
  Json& list = config[std::string(kKey)] = Json::array();
  for (const Clamp& clamp : clamps) list.push_back(clamp_to_json(clamp));
}

namespace {

// diffusers looks a block's name up; the name of the whole it may pass over.
void name_blocks(Json& config, const Blueprint& blueprint, std::string_view prefix) {
  const auto& [key, names] = blueprint.looked_up;
  if (key.empty()) return;
  if (!prefix.empty() && !json_has(config, key)) config[key] = names;
  if (!json_has(config, key)) return;
  for (Json& name : config.at(key)) name = std::string(prefix) + stock_name(name.get<std::string>());
}

}  // namespace

void name_for_loaders(Json& config, const Blueprint& blueprint) {
  const bool ours = json_has(config, kKey) ||
                    read_norms_removed(config, blueprint.blocks, "config.json") != NormsRemoved{} ||
                    !read_unmasked(config, blueprint.blocks, "config.json").empty();
  if (json_has(config, kClass)) {  // diffusers' way to say it
    const bool changed = (!blueprint.removed_key.empty() && json_has(config, blueprint.removed_key)) ||
                         json_has(config, kRegionalKey) || json_has(config, kExpertsKey);
    const std::string name = stock_name(json_string(config, kClass, "config.json"));
    const std::string prefix(changed ? kArchitecture : "");
    config[std::string(kClass)] = prefix + name;
    name_blocks(config, blueprint, prefix);
    return;
  }
  const std::string type = json_string_or(config, "model_type", blueprint.family, "config.json");
  if (!ours && stock_name(type) == type) return;
  const auto renamed = [&](std::string_view prefix, const std::string& name) {
    return ours ? std::string(prefix) + stock_name(name) : stock_name(name);
  };
  config["model_type"] = renamed(kType, type);
  if (!json_has(config, "architectures") || !config.at("architectures").is_array()) return;
  for (Json& name : config.at("architectures")) {
    if (name.is_string()) name = renamed(kArchitecture, name.get<std::string>());
  }
}

}  // namespace lamina
