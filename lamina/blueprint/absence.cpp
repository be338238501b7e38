#include "lamina/blueprint/absence.h"

#include <charconv>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace {

constexpr std::pair<std::string_view, Kind> kDropLists[] = {{"drop_attn_list", Kind::attention},
                                                            {"drop_mlp_list", Kind::mlp}};

void add(Absences& absences, int64_t block, Kind kind, int blocks, std::string_view what,
         std::string_view key) {
  if (block < 0 || block >= blocks) {
    fail("{}: {} names block {}, but the model has blocks 0 to {}", what, key, block, blocks - 1);
  }
  if (!absences.emplace(static_cast<int>(block), kind).second) {
    fail("{}: {} names block {} twice", what, key, block);
  }
}

Absences from_drop_lists(const Json& config, int blocks, std::string_view what) {
  Absences absences;
  for (const auto& [key, kind] : kDropLists) {
    if (!json_has(config, key)) continue;
    const Json& list = config.at(std::string(key));
    if (!list.is_array())
      fail("{}: {} is {} where a list of blocks was expected", what, key, in_quotes(list.dump(), 40));
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].is_boolean()) {  // the other form in use: one flag a block
        if (static_cast<int>(list.size()) != blocks)
          fail("{}: {} has {} flags for {} blocks", what, key, list.size(), blocks);
        if (list[i].get<bool>()) add(absences, static_cast<int64_t>(i), kind, blocks, what, key);
      } else if (list[i].is_number_integer()) {
        add(absences, list[i].get<int64_t>(), kind, blocks, what, key);
      } else {
        fail("{}: {} holds {} where a block number was expected", what, key, in_quotes(list[i].dump(), 40));
      }
    }
  }
  return absences;
}

Absences from_per_layer_config(const Json& config, int blocks, std::string_view what) {
  Absences absences;
  if (!json_has(config, "per_layer_config")) return absences;
  const Json& layers = config.at("per_layer_config");
  if (!layers.is_object()) fail("{}: per_layer_config is not an object", what);
  for (const auto& [key, entry] : layers.items()) {
    int block = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), block);
    if (error != std::errc() || end != key.data() + key.size()) {
      fail("{}: per_layer_config has the key {} where a block number was expected", what, in_quotes(key));
    }
    if (!entry.is_object()) fail("{}: per_layer_config.{} is not an object", what, key);
    for (const auto& [name, value] : entry.items()) {
      if (name != "skip" || !value.is_array()) {
        fail("{}: per_layer_config.{}.{} is not known here; only \"skip\": [\"attention\", \"mlp\"] is", what,
             key, name);
      }
      for (const Json& kind : value) {
        if (kind != "attention" && kind != "mlp") {
          fail("{}: per_layer_config.{}.skip holds {} where \"attention\" or \"mlp\" was expected", what, key,
               in_quotes(kind.dump(), 40));
        }
        add(absences, block, kind == "attention" ? Kind::attention : Kind::mlp, blocks, what,
            "per_layer_config");
      }
    }
  }
  return absences;
}

}  // namespace

Absences read_absences(const Json& config, int blocks, std::string_view what) {
  const Absences dropped = from_drop_lists(config, blocks, what);
  const Absences skipped = from_per_layer_config(config, blocks, what);
  if (!dropped.empty() && !skipped.empty() && dropped != skipped) {
    fail(
        "{}: per_layer_config and drop_attn_list/drop_mlp_list name different parts as gone; remove one of "
        "them",
        what);
  }
  return dropped.empty() ? skipped : dropped;
}

void write_absences(Json& config, const Absences& absences) {
  for (const auto& [key, kind] : kDropLists) config.erase(std::string(key));
  config.erase("per_layer_config");
  if (absences.empty()) return;
  Json layers = Json::object();
  for (const auto& [block, kind] : absences) layers[std::to_string(block)]["skip"].push_back(kind_name(kind));
  config["per_layer_config"] = layers;
  for (const auto& [key, kind] : kDropLists) {
    Json& list = config[std::string(key)] = Json::array();
    for (const auto& [block, gone] : absences) {
      if (gone == kind) list.push_back(block);
    }
  }
}

NormsRemoved read_norms_removed(const Json& config, int blocks, std::string_view what) {
  constexpr std::string_view kKey = "lamina_norms_removed";
  NormsRemoved removed;
  if (!json_has(config, kKey)) return removed;
  const Json& entry = config.at(std::string(kKey));
  if (!entry.is_object())
    fail("{}: {} is {} where an object was expected", what, kKey, in_quotes(entry.dump(), 40));
  for (const auto& [key, value] : entry.items()) {
    const std::string here = fmt::format("{}.{}", kKey, key);
    if (key == "final") {
      removed.last = json_bool_or(entry, key, false, what);
      continue;
    }
    if (key != "attention" && key != "mlp")
      fail("{}: {} is not known here; attention, mlp and final are", what, here);
    if (!value.is_array())
      fail("{}: {} is {} where a list of blocks was expected", what, here, in_quotes(value.dump(), 40));
    for (const Json& block : value) {
      if (!block.is_number_integer())
        fail("{}: {} holds {} where a block number was expected", what, here, in_quotes(block.dump(), 40));
      add(removed.parts, block.get<int64_t>(), key == "mlp" ? Kind::mlp : Kind::attention, blocks, what,
          here);
    }
  }
  return removed;
}

void write_norms_removed(Json& config, const NormsRemoved& removed) {
  config.erase("lamina_norms_removed");
  if (removed == NormsRemoved{}) return;
  Json& entry = config["lamina_norms_removed"];
  entry = {{"attention", Json::array()}, {"mlp", Json::array()}, {"final", removed.last}};
  for (const auto& [block, kind] : removed.parts) entry[std::string(kind_name(kind))].push_back(block);
}

namespace {

constexpr std::string_view kUnmasked = "lamina_unmasked";

}  // namespace

Unmasked read_unmasked(const Json& config, int blocks, std::string_view what) {
  Unmasked unmasked;
  if (!json_has(config, kUnmasked)) return unmasked;
  const Json& list = config.at(std::string(kUnmasked));
  if (!list.is_array())
    fail("{}: {} is {} where a list of blocks was expected", what, kUnmasked, in_quotes(list.dump(), 40));
  for (const Json& block : list) {
    if (!block.is_number_integer() || block.get<int64_t>() < 0 || block.get<int64_t>() >= blocks)
      fail("{}: {} holds {} where a block from 0 to {} was expected", what, kUnmasked,
           in_quotes(block.dump(), 40), blocks - 1);
    if (!unmasked.insert(block.get<int>()).second)
      fail("{}: {} names block {} twice", what, kUnmasked, block.get<int>());
  }
  return unmasked;
}

void write_unmasked(Json& config, const Unmasked& unmasked) {
  config.erase(std::string(kUnmasked));
  if (!unmasked.empty()) config[std::string(kUnmasked)] = unmasked;
}

}  // namespace lamina
