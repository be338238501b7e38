#include "lamina/export/impl/renumber.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "lamina/base/error.h"
#include "lamina/blueprint/absence.h"

namespace lamina {

Checkpoint renumbered(Checkpoint checkpoint, const Blueprint& before) {
  const Absences absences = read_absences(checkpoint.config, before.blocks, checkpoint.what());
  std::map<int, int> number;  // old block -> new block
  for (int block = 0; block < before.blocks; ++block) {
    const bool gone = absences.contains({block, Kind::attention}) && absences.contains({block, Kind::mlp});
    if (!gone) number.emplace(block, static_cast<int>(number.size()));
  }
  if (static_cast<int>(number.size()) == before.blocks) return checkpoint;

  const std::string prefix = before.stack + ".";
  const auto moved = [&](const std::string& name) {
    if (!name.starts_with(prefix)) return name;
    const std::string rest = name.substr(prefix.size());
    int block = -1;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), block);
    if (error != std::errc() || !number.contains(block)) fail("{}: no block of its own to go to", name);
    return fmt::format("{}{}{}", prefix, number.at(block), std::string_view(end));
  };
  for (Stored& tensor : checkpoint.tensors) tensor.name = moved(tensor.name);

  Json& config = checkpoint.config;
  if (json_has(config, "lamina_clamps")) {
    for (Json& clamp : config.at("lamina_clamps")) {
      const std::string site = json_string(clamp, "site", checkpoint.what());
      clamp["site"] = moved(site);
    }
  }
  Absences kept;
  for (const auto& [block, kind] : absences) {
    if (number.contains(block)) kept.emplace(number.at(block), kind);
  }
  const NormsRemoved removed = read_norms_removed(config, before.blocks, checkpoint.what());
  NormsRemoved left{.last = removed.last};
  for (const auto& [block, kind] : removed.parts) {
    if (number.contains(block)) left.parts.emplace(number.at(block), kind);
  }
  if (left != removed) write_norms_removed(config, left);
  const Unmasked unmasked = read_unmasked(config, before.blocks, checkpoint.what());
  Unmasked looks_right;
  for (int block : unmasked) {
    if (number.contains(block)) looks_right.insert(number.at(block));
  }
  if (looks_right != unmasked) write_unmasked(config, looks_right);
  config[before.depth_key] = number.size();
  for (const std::string& key : before.per_layer_arrays) {
    if (!json_has(config, key)) continue;
    Json array = Json::array();
    for (const auto& [old, now] : number) array.push_back(config.at(key).at(static_cast<size_t>(old)));
    config[key] = array;
  }
  for (const std::string& key : before.front_counts) {
    if (!json_has(config, key)) continue;
    const int64_t front = json_integer(config, key, checkpoint.what());
    config[key] = std::ranges::count_if(number, [front](const auto& entry) { return entry.first < front; });
  }
  write_absences(config, kept);
  return checkpoint;
}

}  // namespace lamina
