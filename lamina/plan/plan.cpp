#include "lamina/plan/plan.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/variants.h"
#include "lamina/plan/impl/clamp_list.h"
#include "lamina/plan/impl/mixing.h"

namespace lamina {

namespace {

template <class T, size_t n>
std::string_view name_in(const std::pair<std::string_view, T> (&table)[n], T value) {
  return std::ranges::find(table, value, &std::pair<std::string_view, T>::second)->first;
}
template <class T, size_t n>
std::optional<T> value_in(const std::pair<std::string_view, T> (&table)[n], std::string_view name) {
  const auto it = std::ranges::find(table, name, &std::pair<std::string_view, T>::first);
  return it == std::end(table) ? std::nullopt : std::optional<T>(it->second);
}

constexpr std::pair<std::string_view, ClampMode> kModes[] = {{"set", ClampMode::set},
                                                             {"add", ClampMode::add},
                                                             {"scale", ClampMode::scale},
                                                             {"max", ClampMode::max},
                                                             {"if-active", ClampMode::if_active}};
constexpr std::pair<std::string_view, NeuronVector> kVectors[] = {
    {"gate", NeuronVector::gate}, {"up", NeuronVector::up}, {"down", NeuronVector::down}};

const std::string& site_of(const Edit& edit) {
  return std::visit([](const auto& e) -> const std::string& { return e.site; }, edit);
}

// The edits' own JSON: one overload each, so that a new edit does not compile until it has it.
Json to_json(const Cut& cut) {
  Json json = {{"edit", "cut"}, {"site", cut.site}};
  if (cut.score) json["score"] = *cut.score;
  return json;
}

Json to_json(const Silence& silence) {
  return {{"edit", "silence"}, {"site", silence.site}};
}

Json to_json(const Clamp& clamp) {
  const Json body = clamp_to_json(clamp);
  Json json = {{"edit", "clamp"}};
  for (const auto& [key, value] : body.items()) json[key] = value;
  return json;
}

Json to_json(const Replace& replace) {
  return {{"edit", "replace"},
          {"site", replace.site},
          {"neuron", replace.neuron},
          {"vector", vector_name(replace.vector)},
          {"values", replace.values}};
}

Json to_json(const FreezeNorm& freeze) {
  return {{"edit", "freeze_norm"},
          {"site", freeze.site},
          {"reader", reader_name(freeze.reader)},
          {"scale", freeze.scale}};
}

Json to_json(const Unmask& unmask) {
  return {{"edit", "unmask"}, {"site", unmask.site}};
}

Json to_json(const Regional& regional) {
  Json json = {{"edit", "regional"}, {"site", regional.site}};
  windows_to_json(json, regional.windows);
  return json;
}

Json to_json(const Inherit& inherit) {
  return {{"edit", "inherit"},
          {"site", inherit.site},
          {"conv", inherit.conv},
          {"donors", inherit.donors},
          {"gate", gate_name(inherit.gate)},
          {"router", reads_name(inherit.reads)}};
}

Json to_json(const Blend& blend) {
  return {{"edit", "blend"}, {"site", blend.site}, {"conv", blend.conv}, {"gates", blend.gates}};
}

Inherit inherit_from_json(const Json& json, std::string_view what) {
  Inherit inherit{.site = json_string(json, "site", what), .conv = json_string(json, "conv", what)};
  if (!json_has(json, "donors") || !json.at("donors").is_array())
    fail("{}: \"donors\" is not there as a list of paths", what);
  for (const Json& donor : json.at("donors")) {
    if (!donor.is_string())
      fail("{}: \"donors\" holds {} where a path was expected", what, in_quotes(donor.dump(), 40));
    inherit.donors.push_back(donor.get<std::string>());
  }
  inherit.gate = gate_from_name(json_string_or(json, "gate", "tanh-residual", what), what);
  inherit.reads = reads_from_name(json_string_or(json, "router", "t", what), what);
  return inherit;
}

Blend blend_from_json(const Json& json, std::string_view what) {
  Blend blend{.site = json_string(json, "site", what), .conv = json_string(json, "conv", what)};
  if (!json_has(json, "gates") || !json.at("gates").is_array())
    fail("{}: \"gates\" is not there as a list of numbers", what);
  for (const Json& gate : json.at("gates")) {
    if (!gate.is_number())
      fail("{}: \"gates\" holds {} where a number was expected", what, in_quotes(gate.dump(), 40));
    blend.gates.push_back(gate.get<double>());
  }
  return blend;
}

FreezeNorm freeze_from_json(const Json& json, std::string_view what) {
  FreezeNorm freeze{.site = json_string(json, "site", what)};
  const std::string reader = json_string(json, "reader", what);
  const auto known = reader_from_name(reader);
  if (!known) fail("{}: {} is no reader of a norm; qk, v, mlp and final are", what, in_quotes(reader));
  freeze.reader = *known;
  if (!json_has(json, "scale")) fail("{}: \"scale\" is missing", what);
  freeze.scale = json_number_or(json, "scale", 0, what);
  return freeze;
}

Replace replace_from_json(const Json& json, std::string_view what) {
  Replace replace{.site = json_string(json, "site", what), .neuron = json_integer(json, "neuron", what, {0})};
  const std::string vector = json_string(json, "vector", what);
  const auto known = vector_from_name(vector);
  if (!known) fail("{}: {} is no vector of a neuron; gate, up and down are", what, in_quotes(vector));
  replace.vector = *known;
  if (!json_has(json, "values") || !json.at("values").is_array())
    fail("{}: \"values\" is not there as a list of numbers", what);
  for (const Json& value : json.at("values")) {
    if (!value.is_number())
      fail("{}: \"values\" holds {} where a number was expected", what, in_quotes(value.dump(), 40));
    replace.values.push_back(value.get<float>());
  }
  return replace;
}

int64_t block_number(std::string_view text, std::string_view entry, int blocks) {
  int64_t number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || number < 0) {
    fail("{} in the list is no block or range of blocks; write 3, 7-9, attention:12 or mlp:12-15",
         in_quotes(entry));
  }
  if (number >= blocks)
    fail("{} names block {}, but the model has blocks 0 to {}", in_quotes(entry), number, blocks - 1);
  return number;
}

}  // namespace

std::string_view mode_name(ClampMode mode) {
  return name_in(kModes, mode);
}
std::optional<ClampMode> mode_from_name(std::string_view name) {
  return value_in(kModes, name);
}
std::optional<NeuronPlace> place_from_name(std::string_view name) {
  for (NeuronPlace place : {NeuronPlace::gate, NeuronPlace::linear, NeuronPlace::post}) {
    if (place_name(place) == name) return place;
  }
  return std::nullopt;
}
std::optional<Reader> reader_from_name(std::string_view name) {
  for (Reader reader : {Reader::qk, Reader::v, Reader::mlp, Reader::head}) {
    if (reader_name(reader) == name) return reader;
  }
  return std::nullopt;
}
std::string_view vector_name(NeuronVector vector) {
  return name_in(kVectors, vector);
}
std::optional<NeuronVector> vector_from_name(std::string_view name) {
  return value_in(kVectors, name);
}

Json to_json(const Plan& plan) {
  Json document = {{"lamina_plan", 1}};
  for (const auto& [key, value] : plan.provenance.items()) document[key] = value;
  document["edits"] = Json::array();
  for (const Edit& edit : plan.edits) {
    document["edits"].push_back(std::visit([](const auto& e) { return to_json(e); }, edit));
  }
  return document;
}

Plan plan_from_json(const Json& document, std::string_view what) {
  if (!document.is_object() || !json_has(document, "edits") || !document.at("edits").is_array()) {
    fail("{}: is no plan: it has no list \"edits\"", what);
  }
  if (json_integer_or(document, "lamina_plan", 1, what) != 1) fail("{}: was written by a newer lamina", what);
  Plan plan;
  for (size_t i = 0; i < document.at("edits").size(); ++i) {
    const Json& json = document.at("edits")[i];
    const std::string here = fmt::format("{}: edit {}", what, i + 1);
    if (!json.is_object()) fail("{}: is {} where an object was expected", here, json.dump());
    const std::string kind = json_string(json, "edit", here);
    if (kind == "cut") {
      check_keys(json, {"edit", "site", "score"}, here);
      Cut cut{json_string(json, "site", here), std::nullopt};
      if (json_has(json, "score")) cut.score = json_number_or(json, "score", 0, here);
      plan.edits.emplace_back(std::move(cut));
    } else if (kind == "silence") {
      check_keys(json, {"edit", "site"}, here);
      plan.edits.emplace_back(Silence{json_string(json, "site", here)});
    } else if (kind == "clamp") {
      check_keys(json, {"edit", "site", "neuron", "place", "mode", "value"}, here);
      plan.edits.emplace_back(clamp_from_json(json, here));
    } else if (kind == "replace") {
      check_keys(json, {"edit", "site", "neuron", "vector", "values"}, here);
      plan.edits.emplace_back(replace_from_json(json, here));
    } else if (kind == "freeze_norm") {
      check_keys(json, {"edit", "site", "reader", "scale"}, here);
      plan.edits.emplace_back(freeze_from_json(json, here));
    } else if (kind == "unmask") {
      check_keys(json, {"edit", "site"}, here);
      plan.edits.emplace_back(Unmask{json_string(json, "site", here)});
    } else if (kind == "regional") {
      check_keys(json, {"edit", "site", "window", "pool", "mix", "log_count", "mask_own"}, here);
      plan.edits.emplace_back(
          Regional{.site = json_string(json, "site", here), .windows = windows_from_json(json, here)});
    } else if (kind == "inherit") {
      check_keys(json, {"edit", "site", "conv", "donors", "gate", "router"}, here);
      plan.edits.emplace_back(inherit_from_json(json, here));
    } else if (kind == "blend") {
      check_keys(json, {"edit", "site", "conv", "gates"}, here);
      plan.edits.emplace_back(blend_from_json(json, here));
    } else {
      fail(
          "{}: {} is no edit; cut, silence, clamp, replace, freeze_norm, unmask, regional, inherit and blend "
          "are",
          here, in_quotes(kind));
    }
  }
  for (const auto& [key, value] : document.items()) {
    if (key != "edits" && key != "lamina_plan") plan.provenance[key] = value;
  }
  return plan;
}

namespace {

// "u2", "u2.a1", "mid": a label, or what stands in front of a dot in labels.
bool is_under(const std::string& label, std::string_view name) {
  return label.starts_with(name) && (label.size() == name.size() || label[name.size()] == '.');
}

// Cuts what the entry names by label; false when it names nothing so.
bool add_labelled(std::string_view name, const Blueprint& blueprint, Plan& plan) {
  bool named = false;
  for (const Part& part : blueprint.parts) {
    if (part.short_name.empty() || (!is_under(part.short_name, name) && part.path != name)) continue;
    named = true;
    if (part.present) plan.edits.push_back(Cut{part.path, std::nullopt});
  }
  return named;
}

}  // namespace

Plan plan_from_list(std::string_view list, const Blueprint& blueprint) {
  Plan plan;
  for (const std::string& entry : split(list, ',')) {
    std::string_view range = trim(entry);
    if (add_labelled(range, blueprint, plan)) continue;
    std::optional<Kind> kind;
    if (const size_t colon = range.find(':'); colon != std::string_view::npos) {
      const std::string_view name = range.substr(0, colon);
      if (name == "attention")
        kind = Kind::attention;
      else if (name == "mlp")
        kind = Kind::mlp;
      else
        fail("{} in the list: {} is no kind of part; attention and mlp are", in_quotes(entry),
             in_quotes(name));
      range.remove_prefix(colon + 1);
    }
    const size_t dash = range.find('-');
    const int64_t first = block_number(range.substr(0, dash), entry, blueprint.blocks);
    const int64_t last = dash == std::string_view::npos
                             ? first
                             : block_number(range.substr(dash + 1), entry, blueprint.blocks);
    if (last < first) fail("{} in the list runs backwards; write {}-{}", in_quotes(entry), last, first);
    const size_t before = plan.edits.size();
    for (const Part& part : blueprint.parts) {
      if (part.block < first || part.block > last || (kind && part.kind != *kind)) continue;
      if (!kind && !part.present) continue;  // a whole block may have lost a half already
      plan.edits.push_back(Cut{part.path, std::nullopt});
    }
    if (plan.edits.size() == before)
      fail("{} in the list: nothing of it is left, all is gone already", in_quotes(entry));
  }
  check_plan(plan, blueprint);
  return plan;
}

namespace {

bool removes(const Edit& edit) {
  return std::holds_alternative<Cut>(edit) || std::holds_alternative<Silence>(edit);
}

// What edits change in a part that stays.
std::string_view edited_of(Kind kind) {
  switch (kind) {
    case Kind::attention:
      return "mask";
    case Kind::mlp:
      return "neurons";
    case Kind::resnet:
      return "kernels";
    case Kind::transformer:
      return "windows";
  }
  return "numbers";
}

bool freezes(const Plan& plan, const std::string& site) {
  return std::ranges::any_of(plan.edits, [&](const Edit& edit) {
    const auto* freeze = std::get_if<FreezeNorm>(&edit);
    return freeze && freeze->site == site;
  });
}

// What no other edit of the part may name again; a second overload refuses what the model cannot have.
std::string place_of(const Cut&, const Blueprint&) {
  return "";
}
std::string place_of(const Silence&, const Blueprint&) {
  return "";
}
std::string place_of(const Clamp& clamp, const Blueprint& blueprint) {
  check_clamp(clamp, blueprint, "the plan");
  return fmt::format("clamps neuron {} of {} twice at {}", clamp.neuron, clamp.site, place_name(clamp.place));
}
std::string place_of(const FreezeNorm& freeze, const Blueprint& blueprint) {
  const auto paths = blueprint.norm_paths();
  const auto path = std::ranges::find_if(paths, [&](const NormPath& p) {
    return p.reader == freeze.reader && blueprint.norm_site(p) == freeze.site;
  });
  if (path == paths.end())
    fail("the plan freezes the norm of {} as read by {}, but there is none", freeze.site,
         reader_name(freeze.reader));
  if (freeze.reader == Reader::head && blueprint.labels > 0)
    fail("the plan freezes the last norm of a token classifier, whose classes are not folded into");
  if (!(freeze.scale > 0) || !std::isfinite(freeze.scale))
    fail("the plan freezes the norm of {} at {}, which is no positive number", freeze.site, freeze.scale);
  return fmt::format("freezes the norm of {} as read by {} twice", freeze.site, reader_name(freeze.reader));
}
std::string place_of(const Unmask& unmask, const Blueprint& blueprint) {
  const Part& part = blueprint.part(blueprint.site(unmask.site));
  if (part.kind != Kind::attention)
    fail("the plan unmasks {}, which is no attention and has no mask", unmask.site);
  if (!part.causal) fail("the plan unmasks {}, which looks at every token already", unmask.site);
  return fmt::format("unmasks {} twice", unmask.site);
}
std::string place_of(const Regional& regional, const Blueprint& blueprint) {
  if (blueprint.part(blueprint.site(regional.site)).map_heads == 0)
    fail("the plan gives {} windows, but it has no self-attention over a map", regional.site);
  check_windows(regional.windows, "the plan");
  return fmt::format("gives {} windows twice", regional.site);
}
std::string place_of(const Inherit& inherit, const Blueprint& blueprint) {
  check_inherit(inherit, blueprint);
  return fmt::format("changes the kernels of {}.{} twice", inherit.site, inherit.conv);
}
std::string place_of(const Blend& blend, const Blueprint& blueprint) {
  check_blend(blend, blueprint);
  return fmt::format("changes the kernels of {}.{} twice", blend.site, blend.conv);
}
std::string place_of(const Replace& replace, const Blueprint& blueprint) {
  const Neurons& neurons = neurons_of(replace.site, replace.neuron, blueprint, "the plan");
  if (replace.vector == NeuronVector::gate && neurons.gate.empty())
    fail("the plan replaces a gate of {}, whose neurons have none; up and down are there", replace.site);
  if (static_cast<int64_t>(replace.values.size()) != blueprint.width) {
    fail("the plan replaces the {} of neuron {} of {} by {} values where {} are needed",
         vector_name(replace.vector), replace.neuron, replace.site, replace.values.size(), blueprint.width);
  }
  if (!std::ranges::all_of(replace.values, [](float value) { return std::isfinite(value); })) {
    fail("the plan replaces the {} of neuron {} of {} by values that are not all finite",
         vector_name(replace.vector), replace.neuron, replace.site);
  }
  return fmt::format("replaces the {} of neuron {} of {} twice", vector_name(replace.vector), replace.neuron,
                     replace.site);
}

}  // namespace

void check_plan(const Plan& plan, const Blueprint& blueprint) {
  std::set<std::string_view> removed;
  std::set<std::string> edited, places;
  for (const Edit& edit : plan.edits) {
    const std::string& path = site_of(edit);
    const auto* freeze = std::get_if<FreezeNorm>(&edit);
    if (freeze && freeze->reader == Reader::head) {  // the last norm stands behind all parts
      if (!places.insert(place_of(*freeze, blueprint)).second) fail("the plan freezes the last norm twice");
      continue;
    }
    const Part& part = blueprint.part(blueprint.site(path));
    if (!part.present) fail("the plan edits {}, but that part is already gone from this model", path);
    const std::string place = std::visit([&](const auto& e) { return place_of(e, blueprint); }, edit);
    if (removes(edit) && !removed.insert(part.path).second) fail("the plan edits {} twice", path);
    if (!removes(edit)) edited.insert(part.path);
    if (removed.contains(part.path) && edited.contains(part.path))
      fail("the plan takes {} out and edits its {} as well; leave one of the two out", path,
           freeze || freezes(plan, path) ? "norm" : edited_of(part.kind));
    if (!removes(edit) && !places.insert(place).second) fail("the plan {}; leave one of them out", place);
  }
  if (!removed.empty() && removed.size() == blueprint.present().size())
    fail("the plan leaves no part of the model; keep at least one");
}

std::vector<Site> removed_sites(const Plan& plan, const Blueprint& blueprint) {
  std::vector<Site> sites;
  for (const Edit& edit : plan.edits) {
    if (removes(edit)) sites.push_back(blueprint.site(site_of(edit)));
  }
  return sites;
}

Plan silenced(const Plan& plan) {
  Plan result = plan;
  for (Edit& edit : result.edits) {
    if (const auto* cut = std::get_if<Cut>(&edit)) edit = Silence{cut->site};
  }
  return result;
}

}  // namespace lamina
