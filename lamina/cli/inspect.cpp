// lamina inspect: what a model is made of and what can be done with it, from headers alone.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/find_model.h"
#include "lamina/cli/unet_view.h"
#include "lamina/export/export.h"
#include "lamina/image/image.h"
#include "lamina/plan/mask.h"

namespace lamina::cli {

namespace {

struct Summary {
  std::map<DType, uint64_t> bytes;  // by type
};

Summary summarize(const Checkpoint& checkpoint) {
  Summary summary;
  for (const Stored& tensor : checkpoint.tensors) summary.bytes[tensor.dtype] += tensor.stored_bytes();
  return summary;
}

// One cut of half a block and one of a whole block: what the forms answer tells what this model allows.
Json exports_of(const Opened& opened) {
  const auto first = opened.blueprint.present();
  if (first.size() < 3) return Json::object();
  const Part& part = opened.blueprint.part(first.back());
  const Plan half{.edits = {Cut{part.path, {}}}};
  Plan whole = half;
  for (Site site : first) {
    const Part& other = opened.blueprint.part(site);
    if (other.block == part.block && other.path != part.path) whole.edits.push_back(Cut{other.path, {}});
  }
  Json exports = Json::object();
  for (Form form : all_forms()) {
    for (const auto& [name, plan] :
         {std::pair<const char*, const Plan*>{"whole_blocks", &whole}, {"half_blocks", &half}}) {
      const Answer answer = can_write(form, opened, *plan);
      exports[std::string(form_name(form))][name] = {{"possible", answer.possible},
                                                     {answer.possible ? "opens_in" : "why_not", answer.note}};
    }
  }
  return exports;
}

Json to_json(const Opened& opened) {
  const Blueprint& b = opened.blueprint;
  const int64_t context = usual_context(b);
  Json json = {{"path", shown(opened.checkpoint.path)},
               {"architecture", opened.architecture->name},
               {"blocks", b.blocks},
               {"width", b.width},
               {"vocabulary", b.vocabulary},
               {"context", b.context},
               {"tied_head", b.tied()},
               {"parameters", b.parameters()},
               {"file_bytes", opened.checkpoint.file_bytes()},
               {"flops_per_token", b.flops_per_token(context)},
               {"flops_context", context},
               {"kv_bytes_per_token_f16", 2 * b.kv_values_per_token()}};
  for (const auto& [dtype, bytes] : summarize(opened.checkpoint).bytes)
    json["bytes_by_type"][std::string(dtype_name(dtype))] = bytes;
  std::map<std::string_view, const Stored*> stored;
  for (const Stored& tensor : opened.checkpoint.tensors) stored.emplace(tensor.name, &tensor);
  json["parts"] = Json::array();
  for (size_t i = 0; i < b.parts.size(); ++i) {
    const Site site{static_cast<int>(i)};
    const Part& part = b.parts[i];
    Json entry = {{"site", part.path},
                  {"kind", kind_name(part.kind)},
                  {"block", part.block},
                  {"present", part.present}};
    if (part.present) {
      entry["parameters"] = b.parameters(site);
      entry["flops_per_token"] = b.flops_per_token(site, context);
      entry["kv_bytes_per_token_f16"] = 2 * part.kv_values;
      for (const Slot& slot : b.slots) {
        if (slot.part != site.index) continue;
        if (const auto it = stored.find(slot.name); it != stored.end())
          entry["tensors"].push_back(
              {{"name", slot.name}, {"dtype", dtype_name(it->second->dtype)}, {"shape", it->second->shape}});
      }
    }
    json["parts"].push_back(std::move(entry));
  }
  const NormsRemoved removed =
      read_norms_removed(opened.checkpoint.config, b.blocks, opened.checkpoint.what());
  if (removed != NormsRemoved{}) {
    json["norms_removed"] = {{"attention", Json::array()}, {"mlp", Json::array()}, {"final", removed.last}};
    for (const auto& [block, kind] : removed.parts)
      json["norms_removed"][std::string(kind_name(kind))].push_back(block);
  }
  if (b.labels > 0) {
    json["labels"] = Json::array();
    for (int64_t i = 0; i < b.labels; ++i)
      json["labels"].push_back(opened.checkpoint.config.at("id2label").at(std::to_string(i)));
  }
  if (!b.causal()) {
    const MaskPlan mask = mask_plan_of(b);
    json["mask"] = {{"plan", mask.name}, {"blocks", mask.blocks}};
  }
  if (json_has(opened.checkpoint.config, "auto_map"))
    json["ignored"] = "auto_map: the model's own code is never run; the architecture's name decides";
  json["exports"] = exports_of(opened);
  return json;
}

std::string text_of_norms(const Json& removed) {
  std::string text;
  for (const char* kind : {"attention", "mlp"}) {
    if (removed[kind].empty()) continue;
    text += fmt::format("{}in front of {} {}", text.empty() ? "" : ", ", kind,
                        ranges_text(removed[kind].get<std::vector<int>>()));
  }
  if (removed["final"].get<bool>()) text += text.empty() ? "the last one" : ", and the last one";
  return "Norms folded into the weights: " + text + ".";
}

std::string to_text(const Json& json) {
  std::string text = fmt::format(
      "{}\n{}, {} blocks, width {}, vocabulary {}, context {}, head {}\n\n", json["path"].get<std::string>(),
      json["architecture"].get<std::string>(), json["blocks"].get<int>(), json["width"].get<int64_t>(),
      thousands(json["vocabulary"].get<int64_t>()), thousands(json["context"].get<int64_t>()),
      json["tied_head"].get<bool>() ? "tied to the embedding" : "of its own");
  std::string types;
  for (const auto& [dtype, bytes] : json["bytes_by_type"].items())
    types += fmt::format("{}{} {}", types.empty() ? "" : ", ", human_bytes(bytes.get<uint64_t>()), dtype);
  text += fmt::format("{:<26}{:>15}\n", "parameters", thousands(json["parameters"].get<int64_t>()));
  text += fmt::format("{:<26}{:>15}  ({})\n", "weight files", human_bytes(json["file_bytes"].get<uint64_t>()),
                      types);
  text +=
      fmt::format("{:<26}{:>15}  (at {} tokens of context)\n", "FLOPs a token",
                  human_count(json["flops_per_token"].get<double>()), json["flops_context"].get<int64_t>());
  text += fmt::format("{:<26}{:>15}  (keys and values as float16)\n\n", "KV-cache bytes a token",
                      thousands(json["kv_bytes_per_token_f16"].get<int64_t>()));

  // Equal blocks share a line.
  text += fmt::format("{:<14}{:<34}{:>12}{:>10}{:>9}\n", "blocks", "part", "parameters", "FLOPs", "KV bytes");
  const Json& parts = json["parts"];
  for (const char* kind : {"attention", "mlp"}) {
    for (size_t i = 0; i < parts.size();) {
      const auto key = [&](size_t at) {
        return std::tuple(parts[at]["present"].get<bool>(), parts[at].value("parameters", int64_t{0}));
      };
      if (parts[i]["kind"] != kind) {
        ++i;
        continue;
      }
      size_t last = i, next = i;
      while (next < parts.size() && (parts[next]["kind"] != kind || key(next) == key(i))) {
        if (parts[next]["kind"] == kind) last = next;
        ++next;
      }
      const std::string site = parts[i]["site"];
      const std::string name = site.substr(site.rfind('.') + 1);
      const int first = parts[i]["block"], end = parts[last]["block"];
      const std::string blocks = first == end ? fmt::format("{}", first) : fmt::format("{}-{}", first, end);
      if (!parts[i]["present"].get<bool>()) {
        text += fmt::format("{:<14}{:<34}{:>12}\n", blocks, name, "cut");
      } else {
        text += fmt::format("{:<14}{:<34}{:>12}{:>10}{:>9}\n", blocks, name,
                            thousands(parts[i]["parameters"].get<int64_t>()),
                            human_count(parts[i]["flops_per_token"].get<double>()),
                            parts[i]["kv_bytes_per_token_f16"].get<int64_t>());
      }
      i = next;
    }
  }
  if (json.contains("labels"))
    text += fmt::format("\nA token classifier with {} classes: {}.\n", json["labels"].size(),
                        fmt::join(json["labels"].get<std::vector<std::string>>(), " "));
  if (json.contains("mask"))
    text += fmt::format("\nMask plan {}: blocks {} look right.\n", json["mask"]["plan"].get<std::string>(),
                        ranges_text(json["mask"]["blocks"].get<std::vector<int>>()));
  if (json.contains("norms_removed")) text += "\n" + text_of_norms(json["norms_removed"]) + "\n";
  if (json.contains("ignored")) text += fmt::format("\n{}\n", json["ignored"].get<std::string>());
  text += "\nEvery part can be cut (its norm goes with it). What a cut can be written as:\n";
  for (const auto& [form, answers] : json["exports"].items()) {
    for (const auto& [when, answer] : answers.items()) {
      const bool possible = answer["possible"];
      text += fmt::format(
          "  {:<18}{:<13}{}{}\n", form, when == "whole_blocks" ? "whole blocks" : "half blocks",
          possible ? "yes: " : "no: ", answer[possible ? "opens_in" : "why_not"].get<std::string>());
    }
  }
  return text;
}

Json picture_json(const std::filesystem::path& path) {
  const ReadPicture read = read_png(path);
  Json json = {{"path", shown(path)},
               {"width", read.picture.width},
               {"height", read.picture.height},
               {"channels", read.picture.channels},
               {"texts", Json::object()}};
  for (const auto& [keyword, text] : read.texts) json["texts"][keyword] = text;
  return json;
}

// A text from a file must not move the cursor: control characters become question marks.
std::string without_controls(std::string text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool second =
        byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;  // C1
    if (second) text.erase(i, 1);
    if (second || byte < 0x20 || byte == 0x7F) text[i] = '?';
  }
  return text;
}

std::string text_of_picture(const Json& json) {
  std::string text =
      fmt::format("{}\nPNG, {} x {}, {} channels\n", json["path"].get<std::string>(),
                  json["width"].get<int64_t>(), json["height"].get<int64_t>(), json["channels"].get<int>());
  for (const auto& [keyword, value] : json["texts"].items()) {
    text += "\n" + without_controls(keyword) + "\n";
    for (const std::string& line : split(value.get<std::string>(), '\n'))
      text += "  " + without_controls(line) + "\n";
  }
  return text;
}

}  // namespace

int run_inspect(int argc, char** argv) {
  CLI::App app(
      "What a model is made of, what can be cut, and how it can be written.\n\nExample: lamina inspect MODEL "
      "--json | jq .parameters",
      "inspect");
  std::filesystem::path model;
  bool as_json = false;
  app.add_option("MODEL", model, "folder, diffusers pipeline, GGUF file, or a PNG that says how it was drawn")
      ->required();
  app.add_flag("--json", as_json, "one object on stdout");
  parse(app, argc, argv);
  if (model.extension() == ".png") {
    const Json json = picture_json(model);
    print(as_json ? json.dump(2) + "\n" : text_of_picture(json));
    return Status::ok;
  }
  const Opened opened = find_model(model).opened;
  if (is_unet(opened)) {
    const Json json = unet_json(opened);
    print(as_json ? json.dump(2) + "\n" : unet_text(json));
    return Status::ok;
  }
  const Json json = to_json(opened);
  print(as_json ? json.dump(2) + "\n" : to_text(json));
  return Status::ok;
}

}  // namespace lamina::cli
