#include "lamina/plan/plan.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"

namespace lamina {

namespace {

const std::string& site_of(const Edit& edit) {
  return std::visit([](const auto& e) -> const std::string& { return e.site; }, edit);
}

// The edits' own JSON and effect: one overload each, so that a new edit does not compile until it has them.
Json to_json(const Cut& cut) {
  Json json = {{"edit", "cut"}, {"site", cut.site}};
  if (cut.score) json["score"] = *cut.score;
  return json;
}

Json to_json(const Silence& silence) {
  return {{"edit", "silence"}, {"site", silence.site}};
}

Json to_json(const Clamp& clamp) {
  return {{"edit", "clamp"},
          {"site", clamp.site},
          {"neuron", clamp.neuron},
          {"place", place_name(clamp.place)},
          {"mode", mode_name(clamp.mode)},
          {"value", clamp.value}};
}

Json to_json(const Replace& replace) {
  return {{"edit", "replace"},
          {"site", replace.site},
          {"neuron", replace.neuron},
          {"vector", vector_name(replace.vector)},
          {"values", replace.values}};
}

struct Effect {
  const Blueprint& blueprint;
  Checkpoint& checkpoint;
  Absences& absences;

  void operator()(const Cut& cut) {
    const Site site = blueprint.site(cut.site);
    std::set<std::string_view> gone;
    for (const Slot& slot : blueprint.slots) {
      if (slot.part == site.index) gone.insert(slot.name);
    }
    std::erase_if(checkpoint.tensors, [&](const Stored& tensor) { return gone.contains(tensor.name); });
    absences.emplace(blueprint.part(site).block, blueprint.part(site).kind);
  }

  void operator()(const Clamp&) { fail("clamps cannot be written yet"); }
  void operator()(const Replace&) { fail("replacements cannot be written yet"); }
  void operator()(const Silence& silence) {
    const Site site = blueprint.site(silence.site);
    for (const Slot& slot : blueprint.slots) {
      if (slot.part != site.index || !slot.silences) continue;
      const auto it = std::ranges::find(checkpoint.tensors, slot.name, &Stored::name);
      if (it != checkpoint.tensors.end()) it->zero = true;
    }
  }
};

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
  switch (mode) {
    case ClampMode::set:
      return "set";
    case ClampMode::add:
      return "add";
    case ClampMode::scale:
      return "scale";
    case ClampMode::max:
      return "max";
    case ClampMode::if_active:
      return "if-active";
  }
  return "";
}

std::string_view vector_name(NeuronVector vector) {
  switch (vector) {
    case NeuronVector::gate:
      return "gate";
    case NeuronVector::up:
      return "up";
    case NeuronVector::down:
      return "down";
  }
  return "";
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
    for (const auto& [key, value] : json.items()) {
      if (key != "edit" && key != "site" && !(key == "score" && kind == "cut"))
        fail("{}: the key {} is not known", here, in_quotes(key));
    }
    const std::string site = json_string(json, "site", here);
    if (kind == "cut") {
      Cut cut{site, std::nullopt};
      if (json_has(json, "score")) cut.score = json_number_or(json, "score", 0, here);
      plan.edits.push_back(cut);
    } else if (kind == "silence") {
      plan.edits.push_back(Silence{site});
    } else {
      fail("{}: {} is no edit; cut and silence are", here, in_quotes(kind));
    }
  }
  for (const auto& [key, value] : document.items()) {
    if (key != "edits" && key != "lamina_plan") plan.provenance[key] = value;
  }
  return plan;
}

Plan plan_from_list(std::string_view list, const Blueprint& blueprint) {
  Plan plan;
  for (const std::string& entry : split(list, ',')) {
    std::string_view range = trim(entry);
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

void check_plan(const Plan& plan, const Blueprint& blueprint) {
  std::set<std::string_view> seen;
  for (const Edit& edit : plan.edits) {
    const std::string& path = site_of(edit);
    const Part& part = blueprint.part(blueprint.site(path));
    if (!part.present) fail("the plan edits {}, but that part is already gone from this model", path);
    if (!seen.insert(part.path).second) fail("the plan edits {} twice", path);
  }
  if (!seen.empty() && seen.size() == blueprint.present().size())
    fail("the plan leaves no part of the model; keep at least one");
}

std::vector<Site> removed_sites(const Plan& plan, const Blueprint& blueprint) {
  std::vector<Site> sites;
  for (const Edit& edit : plan.edits) {
    if (std::holds_alternative<Cut>(edit) || std::holds_alternative<Silence>(edit))
      sites.push_back(blueprint.site(site_of(edit)));
  }
  return sites;
}

Checkpoint apply(const Checkpoint& checkpoint, const Blueprint& blueprint, const Plan& plan) {
  check_plan(plan, blueprint);
  Checkpoint result = checkpoint;
  Absences absences = read_absences(checkpoint.config, blueprint.blocks, checkpoint.what());
  for (const Edit& edit : plan.edits) std::visit(Effect{blueprint, result, absences}, edit);
  if (absences != read_absences(checkpoint.config, blueprint.blocks, checkpoint.what()))
    write_absences(result.config, absences);
  return result;
}

Plan silenced(const Plan& plan) {
  Plan result{.edits = {}, .provenance = plan.provenance};
  for (const Edit& edit : plan.edits) result.edits.push_back(Silence{site_of(edit)});
  return result;
}

}  // namespace lamina
