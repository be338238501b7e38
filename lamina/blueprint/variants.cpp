#include "lamina/blueprint/variants.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace {

constexpr int64_t kLargestSide = 1 << 16, kMostExperts = 64;

template <class T>
using Names = std::vector<std::pair<std::string_view, T>>;

const Names<Windows::Mix> kMixes = {
    {"none", Windows::Mix::none}, {"pooled", Windows::Mix::pooled}, {"gate", Windows::Mix::gate}};
const Names<Experts::Gate> kGates = {{"tanh-residual", Experts::Gate::tanh_residual},
                                     {"sigmoid", Experts::Gate::sigmoid},
                                     {"softmax", Experts::Gate::softmax}};
const Names<Experts::Reads> kReads = {
    {"t", Experts::Reads::time}, {"x", Experts::Reads::input}, {"x+t", Experts::Reads::both}};

template <class T>
std::string_view name_of(const Names<T>& names, T value) {
  return std::ranges::find(names, value, &std::pair<std::string_view, T>::second)->first;
}
template <class T>
T value_of(const Names<T>& names, std::string_view name, std::string_view kind, std::string_view what) {
  const auto it = std::ranges::find(names, name, &std::pair<std::string_view, T>::first);
  if (it == names.end()) {
    std::vector<std::string_view> known;
    for (const auto& [known_name, value] : names) known.push_back(known_name);
    fail("{}: {} is no {}; {} are", what, in_quotes(name), kind, fmt::join(known, ", "));
  }
  return it->second;
}

}  // namespace

std::string_view mix_name(Windows::Mix mix) {
  return name_of(kMixes, mix);
}
std::string_view gate_name(Experts::Gate gate) {
  return name_of(kGates, gate);
}
std::string_view reads_name(Experts::Reads reads) {
  return name_of(kReads, reads);
}
Windows::Mix mix_from_name(std::string_view name, std::string_view what) {
  return value_of(kMixes, name, "way for cells of a map to mix", what);
}
Experts::Gate gate_from_name(std::string_view name, std::string_view what) {
  return value_of(kGates, name, "gate of experts", what);
}
Experts::Reads reads_from_name(std::string_view name, std::string_view what) {
  return value_of(kReads, name, "input of a router", what);
}

void check_windows(const Windows& windows, std::string_view what) {
  if (windows.window < 1 || windows.window > kLargestSide || windows.pool < 0 || windows.pool > kLargestSide)
    fail("{}: windows of {} tokens with cells of {} cannot be; sides are 1 to {}", what, windows.window,
         windows.pool, kLargestSide);
  if (windows.pool > 0 && windows.window % windows.pool != 0)
    fail("{}: a window of {} tokens a side is not whole cells of {}", what, windows.window, windows.pool);
  if (windows.pool == 0 && windows.mix != Windows::Mix::none)
    fail("{}: without cells there is nothing to mix by {}", what, in_quotes(mix_name(windows.mix)));
}

Windows windows_from_json(const Json& json, std::string_view what) {
  Windows windows;
  windows.window = json_integer_or(json, "window", windows.window, what, {1, kLargestSide});
  windows.pool = json_integer_or(json, "pool", windows.pool, what, {0, kLargestSide});
  windows.mix = mix_from_name(json_string_or(json, "mix", "none", what), what);
  windows.log_count = json_bool_or(json, "log_count", true, what);
  windows.mask_own = json_bool_or(json, "mask_own", true, what);
  check_windows(windows, what);
  return windows;
}

void windows_to_json(Json& json, const Windows& windows) {
  json["window"] = windows.window;
  json["pool"] = windows.pool;
  json["mix"] = mix_name(windows.mix);
  json["log_count"] = windows.log_count;
  json["mask_own"] = windows.mask_own;
}

Regionals read_regionals(const Json& config, std::string_view what) {
  Regionals regionals;
  if (!json_has(config, kRegionalKey)) return regionals;
  const Json& list = config.at(std::string(kRegionalKey));
  if (!list.is_array())
    fail("{}: {} is {} where a list was expected", what, kRegionalKey, in_quotes(list.dump(), 40));
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string here = fmt::format("{}: entry {} of {}", what, i + 1, kRegionalKey);
    if (!list[i].is_object())
      fail("{} is {} where an object was expected", here, in_quotes(list[i].dump(), 40));
    check_keys(list[i], {"site", "window", "pool", "mix", "log_count", "mask_own"}, here);
    const std::string site = json_string(list[i], "site", here);
    if (!regionals.emplace(site, windows_from_json(list[i], here)).second)
      fail("{}: {} names {} twice", what, kRegionalKey, in_quotes(site));
  }
  return regionals;
}

void write_regionals(Json& config, const Regionals& regionals) {
  config.erase(std::string(kRegionalKey));
  for (const auto& [site, windows] : regionals) {
    Json entry = {{"site", site}};
    windows_to_json(entry, windows);
    config[std::string(kRegionalKey)].push_back(std::move(entry));
  }
}

Mixtures read_mixtures(const Json& config, std::string_view what) {
  Mixtures mixtures;
  if (!json_has(config, kExpertsKey)) return mixtures;
  const Json& all = config.at(std::string(kExpertsKey));
  if (!all.is_object())
    fail("{}: {} is {} where an object was expected", what, kExpertsKey, in_quotes(all.dump(), 40));
  for (const auto& [conv, entry] : all.items()) {
    const std::string here = fmt::format("{}: {} of {}", what, in_quotes(conv), kExpertsKey);
    if (!entry.is_object()) fail("{} is {} where an object was expected", here, in_quotes(entry.dump(), 40));
    check_keys(entry, {"experts", "gate", "router"}, here);
    Experts experts{.conv = conv, .donors = {}};
    if (!json_has(entry, "experts") || !entry.at("experts").is_array() || entry.at("experts").empty() ||
        entry.at("experts").size() > kMostExperts)
      fail("{}: \"experts\" must be a list of 1 to {} paths", here, kMostExperts);
    for (const Json& donor : entry.at("experts")) {
      if (!donor.is_string())
        fail("{}: \"experts\" holds {} where a path was expected", here, in_quotes(donor.dump(), 40));
      experts.donors.push_back(donor.get<std::string>());
    }
    experts.gate = gate_from_name(json_string_or(entry, "gate", "tanh-residual", here), here);
    experts.reads = reads_from_name(json_string_or(entry, "router", "t", here), here);
    mixtures.emplace(conv, std::move(experts));
  }
  return mixtures;
}

void write_mixtures(Json& config, const Mixtures& mixtures) {
  config.erase(std::string(kExpertsKey));
  for (const auto& [conv, experts] : mixtures)
    config[std::string(kExpertsKey)][conv] = {{"experts", experts.donors},
                                              {"gate", gate_name(experts.gate)},
                                              {"router", reads_name(experts.reads)}};
}

}  // namespace lamina
