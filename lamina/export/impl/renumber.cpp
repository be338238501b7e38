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
  for (Stored& tensor : checkpoint.tensors) {
    if (!tensor.name.starts_with(prefix)) continue;
    const std::string rest = tensor.name.substr(prefix.size());
    int block = -1;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), block);
    if (error != std::errc() || !number.contains(block))
      fail("{}: no block of its own to go to", tensor.name);
    tensor.name = fmt::format("{}{}{}", prefix, number.at(block), std::string_view(end));
  }

  Json& config = checkpoint.config;
  Absences kept;
  for (const auto& [block, kind] : absences) {
    if (number.contains(block)) kept.emplace(number.at(block), kind);
  }
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
