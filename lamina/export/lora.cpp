#include "lamina/export/lora.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/family/unet_layout.h"
#include "lamina/family/unet_names.h"
#include "lamina/format/safetensors.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kKohya = "lora_unet_";
constexpr std::string_view kPrefixes[] = {"base_model.model.unet.", "unet.", "base_model.model.", ""};

std::string path_of(const std::string& tensor) {
  return tensor.substr(0, tensor.rfind('.'));
}

std::string flat(std::string name) {
  std::ranges::replace(name, '.', '_');
  return name;
}

// Every module of the model, and where it is now; nothing where it is gone.
using Modules = std::map<std::string, std::optional<std::string>, std::less<>>;

void add(Modules& modules, const std::string& was, const std::optional<std::string>& now) {
  const auto [it, fresh] = modules.emplace(was, now);
  if (!fresh && !it->second) it->second = now;
}

Modules modules_of(const Opened& model, const Plan& plan, Form form) {
  Modules modules;
  for (const Slot& slot : model.blueprint.slots) modules.emplace(path_of(slot.name), std::nullopt);
  const std::vector<Site> removed = removed_sites(plan, model.blueprint);
  if (form == Form::hf_compact) {
    const unet::Expressed expressed =
        unet::express(model.checkpoint.config, model.blueprint, removed, {.wiring = unet::wiring_of(plan)});
    if (!expressed.possible) fail("compact is not possible: {}", expressed.why);
    std::set<std::string> silent;  // transformers that add nothing: a LoRA would make them add something
    for (const std::string& name : expressed.zeroed) silent.insert(path_of(path_of(name)));
    for (const auto& [was, now] : expressed.renamed) {
      if (!silent.contains(path_of(path_of(now)))) modules[path_of(was)] = path_of(now);
    }
    return modules;
  }
  Plan cuts;
  for (Site site : removed) cuts.edits.emplace_back(Cut{model.blueprint.part(site).path, {}});
  for (const Stored& tensor : apply(model.checkpoint, model.blueprint, cuts).tensors)
    modules[path_of(tensor.name)] = path_of(tensor.name);
  return modules;
}

// The module around another: old LoRA files keep maps of an attention in its "processor".
void add_parents(Modules& modules) {
  Modules parents;
  for (const auto& [was, now] : modules) {
    const std::string_view last = std::string_view(was).substr(was.rfind('.') + 1);
    if (last == "to_q" || last == "to_k" || last == "to_v")
      add(parents, path_of(was) + ".processor", now ? std::optional(path_of(*now) + ".processor") : now);
  }
  modules.merge(parents);
}

// Kohya's spellings: dots are underscores, of our names or of the original ones.
Modules kohya_modules(const Modules& modules, const unet::Config& before, const unet::Config& after) {
  Modules flatly;
  for (const auto& [was, now] : modules) {
    if (was.ends_with(".processor")) continue;
    add(flatly, flat(was), now ? std::optional(flat(*now)) : now);
    add(flatly, flat(unet::original_name(was, before)),
        now ? std::optional(flat(unet::original_name(*now, after))) : now);
  }
  return flatly;
}

struct Key {
  std::string front, module, rest;
};

// The module that a key speaks of: the longest that is known.
std::optional<Key> parsed(const std::string& key, const Modules& modules, const Modules& flatly) {
  if (key.starts_with(kKohya)) {
    const std::string name = key.substr(kKohya.size(), key.find('.') - kKohya.size());
    if (!flatly.contains(name)) fail("{} names a module that this U-Net does not have", in_quotes(key));
    return Key{std::string(kKohya), name, key.substr(kKohya.size() + name.size())};
  }
  for (std::string_view prefix : kPrefixes) {
    if (!key.starts_with(prefix)) continue;
    const std::string name = key.substr(prefix.size());
    for (size_t dot = name.rfind('.'); dot != std::string::npos && dot > 0; dot = name.rfind('.', dot - 1)) {
      if (modules.contains(std::string_view(name).substr(0, dot)))
        return Key{std::string(prefix), name.substr(0, dot), name.substr(dot)};
    }
    if (prefix == "unet." || prefix == "base_model.model.unet.")
      fail("{} names a module that this U-Net does not have", in_quotes(key));
  }
  return std::nullopt;
}

void write_tensors(const safetensors::Header& from, Bytes file,
                   const std::vector<std::pair<size_t, std::string>>& kept, const fs::path& out) {
  safetensors::Header header;
  header.metadata = from.metadata;
  header.metadata_present = from.metadata_present;
  for (const auto& [index, name] : kept) {
    const safetensors::TensorInfo& info = from.tensors[index];
    header.tensors.push_back({.name = name, .dtype = info.dtype, .shape = info.shape});
  }
  safetensors::lay_out(header.tensors);
  AtomicFile into(out);
  into.write(safetensors::write_header(header));
  for (const auto& [index, name] : kept) {
    const safetensors::TensorInfo& info = from.tensors[index];
    into.write(file.subspan(from.data_start + info.begin, info.end - info.begin));
  }
  into.commit();
}

unet::Config config_after(const Opened& model, const Plan& plan, Form form) {
  const Checkpoint written = shaped(form, model, plan);
  return unet::read_config(written.config, written.what());
}

}  // namespace

LoraReport remap_lora(const fs::path& lora, const Opened& model, const Plan& plan, Form form,
                      const fs::path& out) {
  if (model.blueprint.family != "unet") fail("{}: is no U-Net", model.checkpoint.path.string());
  if (const Answer answer = can_write(form, model, plan); !answer.possible)
    fail("{} is not possible: {}", form_name(form), answer.note);
  const auto file = MappedFile::open(lora);
  const safetensors::Header header = safetensors::parse_header(file->bytes(), lora.string());
  Modules modules = modules_of(model, plan, form);
  const Modules flatly =
      kohya_modules(modules, unet::read_config(model.checkpoint.config, model.checkpoint.what()),
                    config_after(model, plan, form));
  add_parents(modules);

  LoraReport report;
  std::set<std::string> kept, renamed, dropped;
  std::vector<std::pair<size_t, std::string>> tensors;
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    const std::string& name = header.tensors[i].name;
    const auto key = parsed(name, modules, flatly);
    if (!key) {
      ++report.beside;
      tensors.emplace_back(i, name);
      continue;
    }
    const auto& now = (key->front == kKohya ? flatly : modules).find(key->module)->second;
    (!now ? dropped : *now == key->module ? kept : renamed).insert(key->front + key->module);
    if (now) tensors.emplace_back(i, key->front + *now + key->rest);
  }
  if (kept.empty() && renamed.empty() && dropped.empty())
    fail("{}: no key names a module of {}; is it a LoRA of another model?", lora.string(),
         model.checkpoint.path.string());
  report.kept.assign(kept.begin(), kept.end());
  report.renamed.assign(renamed.begin(), renamed.end());
  report.dropped.assign(dropped.begin(), dropped.end());
  write_tensors(header, file->bytes(), tensors, out);
  return report;
}

}  // namespace lamina
