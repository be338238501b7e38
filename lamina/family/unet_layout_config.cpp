#include <algorithm>
#include <cstdlib>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/family/impl/unet_wanted.h"

namespace lamina::unet {

namespace {

constexpr std::string_view kDepth = "transformer_layers_per_block",
                           kReverse = "reverse_transformer_layers_per_block";

// A number where all are equal, else the list; null where nothing asks.
Json entry_of(const Side& side) {
  if (!side.attends()) return nullptr;
  const std::vector<int64_t> depths = side.depths();
  return std::ranges::count(depths, depths[0]) == std::ssize(depths) ? Json(depths[0]) : Json(depths);
}

// One value where all are equal.
Json folded(const Json& list) {
  return std::ranges::all_of(list, [&](const Json& entry) { return entry == list[0]; }) ? list[0] : list;
}

void write_depths(Json& config, const Wanted& wanted) {
  const size_t stages = wanted.down.size();
  Json down = Json::array(), up = Json::array();
  for (size_t i = 0; i < stages; ++i) {
    down.push_back(entry_of(wanted.down[i]));
    up.push_back(entry_of(wanted.up[i]));
  }
  if (wanted.kind == Mid::attention && down.back().is_null()) down.back() = wanted.mid.places[0].depth();
  bool alike = true;  // read backwards, the list for the way down says the way up
  for (size_t i = 0; i < stages; ++i)
    alike = alike && !down[i].is_array() && !up[i].is_array() &&
            (down[i].is_null() || up[i].is_null() || down[i] == up[i]);
  for (size_t i = 0; i < stages; ++i) {
    const Json was_down = down[i];
    if (down[i].is_null()) down[i] = alike && !up[i].is_null() ? up[i] : Json(1);
    if (up[i].is_null()) up[i] = alike && !was_down.is_null() ? was_down : Json(1);
  }
  config.erase(std::string(kReverse));
  config[std::string(kDepth)] = alike ? folded(down) : down;
  if (alike) return;
  std::ranges::reverse(up);
  config[std::string(kReverse)] = up;
}

// Nested lists of depths came with diffusers 0.22.
void ask_for_version(Json& config) {
  if (!json_has(config, kReverse)) return;
  constexpr std::string_view kKey = "_diffusers_version";
  const std::string said = json_has(config, kKey) && config.at(std::string(kKey)).is_string()
                               ? config.at(std::string(kKey)).get<std::string>()
                               : "";
  const std::vector<std::string> numbers = split(said, '.');
  const auto number = [&](size_t i) {
    return i < numbers.size() && numbers[i].size() < 6 ? std::atoi(numbers[i].c_str()) : 0;
  };
  if (number(0) == 0 && number(1) < 22) config[std::string(kKey)] = "0.22.0";
}

std::string_view middle_name(Mid kind) {
  return kind == Mid::resnet ? "UNetMidBlock2D" : "UNetMidBlock2DCrossAttn";
}

// Of a config, what its transformers' depths are, where there are any.
std::vector<std::vector<int64_t>> depths_in(const Config& c) {
  std::vector<std::vector<int64_t>> depths;
  for (size_t i = 0; i < c.channels.size(); ++i) {
    depths.push_back(c.down_attends[i] ? c.down_depths[i] : std::vector<int64_t>{});
    depths.push_back(c.up_attends[i] ? c.up_depths[i] : std::vector<int64_t>{});
  }
  if (c.mid == Mid::attention) depths.push_back({c.mid_depth});
  return depths;
}

void take(std::string_view key, const Json& from, Json& config) {
  if (json_has(from, key))
    config[std::string(key)] = from.at(std::string(key));
  else
    config.erase(std::string(key));
}

// What was said already stays as it was said.
Json with_words_of(const Json& source, Json config) {
  const Config was = read_config(source, "config"), now = read_config(config, "the config that is left");
  if (was.layers == now.layers) take("layers_per_block", source, config);
  if (was.channels == now.channels) take("block_out_channels", source, config);
  // Names in the source may be ours.
  if (was.down_attends == now.down_attends && !json_has(source, "down_block_types"))
    config.erase("down_block_types");
  if (was.up_attends == now.up_attends && !json_has(source, "up_block_types")) config.erase("up_block_types");
  Json older = config;
  take(kDepth, source, older), take(kReverse, source, older);
  try {
    if (depths_in(read_config(older, "config")) == depths_in(now)) return older;
  } catch (const Error&) {  // lists for other numbers of stages or layers
  }
  ask_for_version(config);
  return config;
}

}  // namespace

Json config_of(const Json& source, const Wanted& wanted) {
  const Config was = read_config(source, "config");
  Json config = source;
  config.erase(std::string(kRemoved));
  config["_class_name"] = "UNet2DConditionModel";
  const size_t stages = wanted.down.size();
  Json layers = Json::array(), down = Json::array(), up = Json::array();
  for (size_t i = 0; i < stages; ++i) {
    layers.push_back(wanted.down[i].places.size());
    down.push_back(wanted.down[i].attends() ? "CrossAttnDownBlock2D" : "DownBlock2D");
    up.push_back(wanted.up[stages - 1 - i].attends() ? "CrossAttnUpBlock2D" : "UpBlock2D");
  }
  config["layers_per_block"] = folded(layers);
  config["down_block_types"] = down;
  config["up_block_types"] = up;
  config["block_out_channels"] =
      std::vector(was.channels.begin(), was.channels.begin() + static_cast<std::ptrdiff_t>(stages));
  for (const char* key : {"attention_head_dim", "cross_attention_dim", "only_cross_attention"}) {
    if (!json_has(config, key) || !config[key].is_array()) continue;
    Json& list = config[key];
    while (list.size() > stages) list.erase(list.size() - 1);
  }
  if (wanted.kind == Mid::none)
    config["mid_block_type"] = nullptr;
  else if (wanted.kind != was.mid || json_has(config, "mid_block_type"))
    config["mid_block_type"] = middle_name(wanted.kind);
  write_depths(config, wanted);
  return with_words_of(source, std::move(config));
}

}  // namespace lamina::unet
