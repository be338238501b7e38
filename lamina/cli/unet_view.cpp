#include "lamina/cli/unet_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/family/unet_layout.h"

namespace lamina::cli {

using report::Notation;

namespace {

// The latent that a U-Net is priced for: the size it was made for.
unet::Shape2d latent_of(const unet::Config& config) {
  const int64_t side = config.sample_size > 0 ? config.sample_size : 64;
  return {.height = side, .width = side};
}

Json labels_of(const Blueprint& blueprint, const std::vector<Site>& sites) {
  Json labels = Json::array();
  for (Site site : sites) labels.push_back(blueprint.part(site).label());
  return labels;
}

Json parts_json(const Opened& opened, const unet::Config& config) {
  const Blueprint& b = opened.blueprint;
  const std::vector<unet::Macs> costs = unet::macs_by_part(config, b, latent_of(config));
  Json parts = Json::array();
  for (size_t i = 0; i < b.parts.size(); ++i) {
    const Site site{static_cast<int>(i)};
    const Part& part = b.parts[i];
    Json entry = {{"site", part.path},
                  {"label", part.label()},
                  {"kind", kind_name(part.kind)},
                  {"stage", b.stages[static_cast<size_t>(part.block)]},
                  {"present", part.present}};
    if (part.present) {
      entry["parameters"] = unet::parameters_saved(b, {site});
      entry["macs"] = costs[i].total();
      entry["macs_without_attention_products"] = costs[i].weights;
    }
    parts.push_back(std::move(entry));
  }
  return parts;
}

// What stock configs can leave out, stage by stage.
Json groups_json(const Opened& opened) {
  Json groups = Json::array();
  try {
    for (const unet::Group& group :
         unet::choices(opened.checkpoint.config, opened.blueprint, {.wiring = unet::Wiring::stock})) {
      Json entry = {{"stage", group.name}, {"sets", Json::array()}};
      for (const unet::Choice& choice : group.choices) {
        Json units = Json::array();
        for (const unet::Pick& pick : choice.picks) {
          for (const unet::Unit& unit : pick.units) units.push_back(labels_of(opened.blueprint, unit.sites));
        }
        entry["sets"].push_back({{"removed", labels_of(opened.blueprint, choice.removed)},
                                 {"parameters", choice.parameters},
                                 {"same_function", choice.exact},
                                 {"and_any_of", units}});
      }
      groups.push_back(std::move(entry));
    }
  } catch (const Error&) {  // parts are gone in a way that stock configs cannot say
  }
  return groups;
}

// Parameters of the layouts that cuts of this U-Net can end in.
Json layouts_json(const Opened& opened) {
  Json layouts = Json::object();
  for (const std::string& name : unet::layout_names()) {
    try {
      std::vector<Site> removed;
      for (const unet::Group& group :
           unet::choices(opened.checkpoint.config, opened.blueprint, {.layout = name})) {
        const unet::Choice& choice = group.choices[0];
        removed.insert(removed.end(), choice.removed.begin(), choice.removed.end());
        for (const unet::Pick& pick : choice.picks) {
          for (int64_t i = 0; i < pick.least; ++i) {
            const std::vector<Site>& sites = pick.units[static_cast<size_t>(i)].sites;
            removed.insert(removed.end(), sites.begin(), sites.end());
          }
        }
      }
      const unet::Expressed expressed =
          unet::express(opened.checkpoint.config, opened.blueprint, removed, {.wiring = unet::Wiring::stock});
      if (expressed.possible && !removed.empty()) layouts[name] = expressed.parameters;
    } catch (const Error&) {  // not from here
    }
  }
  return layouts;
}

// One transformer, one ResNet: what the forms answer tells what cuts of this U-Net open in.
Json exports_json(const Opened& opened) {
  Json exports = Json::object();
  for (const Kind kind : {Kind::transformer, Kind::resnet}) {
    const std::vector<Site> present = opened.blueprint.present();
    const auto site =
        std::ranges::find_if(present, [&](Site each) { return opened.blueprint.part(each).kind == kind; });
    if (site == present.end()) continue;
    const Plan plan{.edits = {Cut{opened.blueprint.part(*site).path, {}}}};
    for (const auto& [name, form] :
         {std::pair{"compact", Form::hf_compact}, std::pair{"proof", Form::hf_zeroed},
          std::pair{"extended", Form::hf_perlayer}}) {
      const Answer answer = can_write(form, opened, plan);
      exports[name][std::string(kind_name(kind))] = {{"possible", answer.possible},
                                                     {answer.possible ? "opens_in" : "why_not", answer.note}};
    }
  }
  return exports;
}

}  // namespace

bool is_unet(const Opened& opened) {
  return opened.blueprint.family == "unet";
}

Json unet_json(const Opened& opened) {
  const unet::Config config = unet::read_config(opened.checkpoint.config, opened.checkpoint.what());
  const unet::Shape2d latent = latent_of(config);
  const unet::Macs macs = unet::macs(config, opened.blueprint, latent);
  Json json = {{"path", shown(opened.checkpoint.path)},
               {"architecture", opened.architecture->name},
               {"stages", opened.blueprint.stages},
               {"channels", config.channels},
               {"layers", config.layers},
               {"middle", config.mid == unet::Mid::none     ? "none"
                          : config.mid == unet::Mid::resnet ? "a ResNet"
                                                            : "two ResNets and a transformer"},
               {"parameters", opened.blueprint.parameters()},
               {"file_bytes", opened.checkpoint.file_bytes()},
               {"latent", {latent.height, latent.width}},
               {"text_tokens", latent.text_tokens},
               {"macs", macs.total()},
               {"macs_without_attention_products", macs.weights}};
  std::map<DType, uint64_t> bytes;
  for (const Stored& tensor : opened.checkpoint.tensors) bytes[tensor.dtype] += tensor.stored_bytes();
  for (const auto& [dtype, count] : bytes) json["bytes_by_type"][std::string(dtype_name(dtype))] = count;
  json["parts"] = parts_json(opened, config);
  json["stock_configs"] = groups_json(opened);
  json["layouts"] = layouts_json(opened);
  json["exports"] = exports_json(opened);
  return json;
}

namespace {

std::string words(const Json& labels) {
  return fmt::format("{}", fmt::join(labels.get<std::vector<std::string>>(), " "));
}

// Blocks of one transformer that cost the same share a line: "d2.a0.b0-9".
std::string parts_text(const Json& parts) {
  double most = 0;
  for (const Json& part : parts) most = std::max(most, part.value("macs", 0.0));
  const double unit = most >= 1e9 ? 1e9 : 1e6;
  std::string text = fmt::format("{:<14}{:<13}{:>14}{:>10}{:>16}\n", "part", "kind", "parameters",
                                 most >= 1e9 ? "GMAC" : "MMAC", "without QK, AV");
  const auto stem = [&](size_t i) {
    const std::string label = parts[i]["label"];
    const size_t at = label.rfind(".b");
    return at == std::string::npos ? label : label.substr(0, at);
  };
  for (size_t i = 0; i < parts.size();) {
    size_t next = i + 1;
    const auto alike = [&](size_t j) {
      return stem(j) == stem(i) && parts[j]["present"] == parts[i]["present"] &&
             parts[j].value("parameters", int64_t{0}) == parts[i].value("parameters", int64_t{0}) &&
             parts[j].value("macs", 0.0) == parts[i].value("macs", 0.0);
    };
    while (next < parts.size() && alike(next)) ++next;
    std::string label = parts[i]["label"];
    if (next - i > 1) {
      const std::string last = parts[next - 1]["label"];
      label += "-" + last.substr(last.rfind('b') + 1);
    }
    text += fmt::format("{:<14}{:<13}", label, parts[i]["kind"].get<std::string>());
    if (!parts[i]["present"].get<bool>()) {
      text += fmt::format("{:>14}\n", "cut");
    } else {
      text += fmt::format("{:>14}{:>10.4g}{:>16.4g}\n", thousands(parts[i]["parameters"].get<int64_t>()),
                          parts[i]["macs"].get<double>() / unit,
                          parts[i]["macs_without_attention_products"].get<double>() / unit);
    }
    i = next;
  }
  return text;
}

std::string stages_text(const Json& groups) {
  if (groups.empty()) return "\nParts are gone in a way that no stock config can say.\n";
  std::string text =
      "\nWhat stock configs can leave out, one line of each stage (others of its kind beside):\n";
  for (const Json& group : groups) {
    text += fmt::format("  {}\n", group["stage"].get<std::string>());
    constexpr size_t kMost = 12;
    const Json& sets = group["sets"];
    for (size_t i = 0; i < std::min(kMost, sets.size()); ++i) {
      const std::string removed = words(sets[i]["removed"]);
      const size_t units = sets[i]["and_any_of"].size();
      text += fmt::format("    {}{}{}\n", removed.empty() ? "no layer" : removed,
                          sets[i]["same_function"].get<bool>() ? "" : "  (wires what is left anew)",
                          units > 0 ? fmt::format(", and any of {} blocks", units) : "");
    }
    if (sets.size() > kMost) text += fmt::format("    and {} other sets\n", sets.size() - kMost);
  }
  return text;
}

}  // namespace

std::string unet_text(const Json& json) {
  std::string text =
      fmt::format("{}\n{}, {} channels, {} layers a stage, middle: {}\n\n", json["path"].get<std::string>(),
                  json["architecture"].get<std::string>(), json["channels"].dump(), json["layers"].dump(),
                  json["middle"].get<std::string>());
  text += fmt::format("{:<26}{:>15}\n", "parameters", thousands(json["parameters"].get<int64_t>()));
  text += fmt::format("{:<26}{:>15}\n", "weight files", human_bytes(json["file_bytes"].get<uint64_t>()));
  text += fmt::format("{:<26}{:>15}  (latent {} x {}, {} text tokens; {} without the attention products)\n\n",
                      "multiply-adds a pass", human_count(json["macs"].get<double>()),
                      json["latent"][0].get<int64_t>(), json["latent"][1].get<int64_t>(),
                      json["text_tokens"].get<int64_t>(),
                      human_count(json["macs_without_attention_products"].get<double>()));
  text += parts_text(json["parts"]) + stages_text(json["stock_configs"]);
  if (!json["layouts"].empty()) {
    text += "\nPublished layouts that a cut can end in (lamina prune --layout):\n";
    for (const auto& [name, parameters] : json["layouts"].items())
      text += fmt::format("  {:<12}{:>15} parameters\n", name, thousands(parameters.get<int64_t>()));
  }
  text += "\nWhat a cut can be written as:\n";
  for (const auto& [form, answers] : json["exports"].items()) {
    for (const auto& [what, answer] : answers.items()) {
      const bool possible = answer["possible"];
      text += fmt::format("  {:<10}{:<13}{}{}\n", form, what, possible ? "yes: " : "no: ",
                          answer[possible ? "opens_in" : "why_not"].get<std::string>());
    }
  }
  return text +
         "\nControlNets of this model fit a cut one while no layer and no stage of the way down is gone; of "
         "a "
         "model without middle block diffusers makes no new ones.\nLoRAs of this model fit after `lamina "
         "lora-remap`; what they say of parts that are gone is dropped.\n";
}

std::vector<report::Figure> unet_figures(const Opened& opened, const Plan& plan, const Written& written) {
  const unet::Config before = unet::read_config(opened.checkpoint.config, opened.checkpoint.what());
  const Opened after = declare(shaped(written.request.form, opened, plan));
  const unet::Config left = unet::read_config(after.checkpoint.config, after.checkpoint.what());
  const unet::Shape2d latent = latent_of(before);
  const unet::Macs was = unet::macs(before, opened.blueprint, latent),
                   now = unet::macs(left, after.blueprint, latent);
  constexpr auto kLower = report::Figure::Better::lower;
  std::vector<report::Figure> figures;
  const auto add = [&](const char* name, double a, double b, report::Format format, std::string how) {
    figures.push_back({.name = name,
                       .before = a,
                       .after = b,
                       .format = format,
                       .better = kLower,
                       .measured = std::move(how)});
  };
  add("Parameters", static_cast<double>(opened.blueprint.parameters()),
      static_cast<double>(after.blueprint.parameters()), {Notation::scaled, 4}, "zeroes included");
  add("Weight file", static_cast<double>(opened.checkpoint.file_bytes()),
      static_cast<double>(written.weight_bytes), {Notation::scaled, 3, "B"},
      fmt::format("the file that came in, and {}", written.request.text()));
  const std::string at =
      fmt::format("latent {} x {}, {} text tokens", latent.height, latent.width, latent.text_tokens);
  add("Multiply-adds a pass", was.total(), now.total(), {Notation::scaled, 4}, at);
  add("without attention products", was.weights, now.weights, {Notation::scaled, 4}, at + "; as published");
  return figures;
}

std::vector<report::Opening> unet_openings(const Written& written) {
  const bool whole = !written.component.empty();
  std::vector<report::Opening> openings;
  if (!written.opens_in.starts_with("lamina alone"))
    openings.push_back({.tool = "diffusers",
                        .checked = "",
                        .code = whole ? "from diffusers import DiffusionPipeline\npipeline = "
                                        "DiffusionPipeline.from_pretrained(\".\")"
                                      : "from diffusers import UNet2DConditionModel\nunet = "
                                        "UNet2DConditionModel.from_pretrained(\".\")",
                        .language = "python"});
  openings.push_back(
      {.tool = "lamina",
       .checked = "reopened and compared bit for bit with what was meant",
       .code = whole ? "lamina draw . \"a small red ring\" -o picture.png" : "lamina inspect .",
       .language = "sh"});
  return openings;
}

}  // namespace lamina::cli
