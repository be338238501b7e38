#include "lamina/blueprint/blueprint.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace {

int64_t elements(const Slot& slot) {
  int64_t count = 1;
  for (const Axis& axis : slot.axes) count *= axis.size();
  return count;
}

}  // namespace

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::attention:
      return "attention";
    case Kind::mlp:
      return "mlp";
    case Kind::resnet:
      return "resnet";
    case Kind::transformer:
      return "transformer";
  }
  return "";
}

std::string_view place_name(NeuronPlace place) {
  switch (place) {
    case NeuronPlace::gate:
      return "gate";
    case NeuronPlace::linear:
      return "linear";
    case NeuronPlace::post:
      return "post";
  }
  return "";
}

std::string_view reader_name(Reader reader) {
  switch (reader) {
    case Reader::qk:
      return "qk";
    case Reader::v:
      return "v";
    case Reader::mlp:
      return "mlp";
    case Reader::head:
      return "final";
  }
  return "";
}

std::string Part::label() const {
  if (!short_name.empty()) return short_name;
  return fmt::format("{}{}", kind == Kind::attention ? 'A' : 'F', block);
}

std::optional<Site> Blueprint::find(std::string_view path) const {
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].path == path) return Site{static_cast<int>(i)};
  }
  return std::nullopt;
}

Site Blueprint::site(std::string_view path) const {
  if (const auto found = find(path)) return *found;
  std::vector<std::string> paths;
  for (const Part& part : parts) paths.push_back(part.path);
  const auto meant = nearest(path, paths);
  fail("{} is no part of this model{}", in_quotes(path), meant ? fmt::format("; was {} meant?", *meant) : "");
}

std::vector<NormPath> Blueprint::norm_paths() const {
  std::vector<NormPath> paths;
  for (Site site : present()) {
    if (!part(site).norm) continue;
    for (const FrontNorm::Reading& reading : part(site).norm->readings) {
      const NormPath path{site, reading.reader};
      if (paths.empty() || paths.back() != path) paths.push_back(path);
    }
  }
  if (!final_norm.empty()) paths.push_back({});
  return paths;
}

const std::string& Blueprint::norm_site(const NormPath& path) const {
  return path.reader == Reader::head ? final_norm : part(path.site).path;
}

std::string Blueprint::label(const NormPath& path) const {
  const std::string name(reader_name(path.reader));
  return path.reader == Reader::head ? name : name + std::to_string(part(path.site).block);
}

bool Blueprint::causal() const {
  return std::ranges::all_of(parts, [](const Part& part) { return !part.present || part.causal; });
}

std::vector<Site> Blueprint::present() const {
  std::vector<Site> sites;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].present) sites.push_back({static_cast<int>(i)});
  }
  return sites;
}

std::vector<Site> Blueprint::with_neurons() const {
  std::vector<Site> sites;
  for (Site site : present()) {
    if (part(site).neurons) sites.push_back(site);
  }
  return sites;
}

const Slot* Blueprint::slot(std::string_view name) const {
  const auto it = std::ranges::find(slots, name, &Slot::name);
  return it == slots.end() ? nullptr : &*it;
}

int64_t Blueprint::parameters(Site site) const {
  int64_t count = 0;
  for (const Slot& slot : slots) {
    if (slot.part == site.index) count += elements(slot);
  }
  return count;
}

int64_t Blueprint::parameters() const {
  int64_t count = 0;
  for (const Slot& slot : slots) count += elements(slot);
  return count;
}

double Blueprint::flops_per_token(Site site, int64_t context) const {
  if (!part(site).present) return 0;
  double flops = 4.0 * static_cast<double>(part(site).score_width) * static_cast<double>(context);
  for (const Slot& slot : slots) {
    if (slot.part == site.index && slot.axes.size() == 2) flops += 2.0 * static_cast<double>(elements(slot));
  }
  return flops;
}

double Blueprint::flops_per_token(int64_t context) const {
  double flops = 2.0 * static_cast<double>(vocabulary) * static_cast<double>(width);
  for (Site site : present()) flops += flops_per_token(site, context);
  return flops;
}

int64_t Blueprint::kv_values_per_token() const {
  int64_t values = 0;
  for (const Part& part : parts) values += part.present ? part.kv_values : 0;
  return values;
}

}  // namespace lamina
