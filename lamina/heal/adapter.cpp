#include "lamina/heal/adapter.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/tensor/store.h"
#include "lamina/tensor/tensor_file.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kTensors = "adapter_model.safetensors";
constexpr std::string_view kRoot = "base_model.model.", kDown = ".lora_A.weight", kUp = ".lora_B.weight",
                           kWeight = ".weight", kClass = "transformer.";

std::string module_of(std::string_view tensor) {
  return std::string(tensor.substr(0, tensor.rfind('.')));
}

// The name in the model's own spelling: some GPT-2 files leave out the root that the class has.
std::string own_name(const Blueprint& blueprint, const std::string& name) {
  if (blueprint.slot(name)) return name;
  if (name.starts_with(kClass) && blueprint.slot(name.substr(kClass.size())))
    return name.substr(kClass.size());
  const std::string rooted = std::string(kClass) + name;
  return blueprint.slot(rooted) ? rooted : name;
}

void refuse(const Json& config, std::string_view key, std::string_view what, std::string_view why) {
  if (!json_has(config, key)) return;
  const Json& value = config.at(std::string(key));
  const bool set = value.is_boolean() ? value.get<bool>() : !value.is_structured() || !value.empty();
  if (set) fail("{}: {} ({}), which is not read here; merge it with peft first", what, why, key);
}

void check_numbers(const Stored& stored, std::string_view what) {
  if (!is_floating(stored.dtype) || is_quantized(stored.dtype))
    fail("{}: {} holds {}, which are no weights", what, stored.name, dtype_name(stored.dtype));
  if (stored.elements() > 0 && !at::isfinite(load(stored, at::kFloat)).all().item<bool>())
    fail("{}: {} holds numbers that are not finite; was its training broken off?", what, stored.name);
}

std::string shape_text(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace

void write_adapter(const Student& student, const std::string& base, const fs::path& folder) {
  const Blueprint& blueprint = student.opened().blueprint;
  const LoraOptions& lora = *student.options().lora;
  const std::string root(blueprint.family == "gpt2" && blueprint.stack == "h" ? kClass : "");
  std::vector<std::pair<std::string, Tensor>> tensors;
  Json targets = Json::array();
  std::set<std::string> whole;
  bool in_out = false;
  for (const Parameter& parameter : student.parameters()) {
    const bool own_slot = blueprint.slot(parameter.name) != nullptr;
    // The classifier's name is that of the class itself.
    const std::string name = own_slot && module_of(parameter.name) == blueprint.head_path()
                                 ? parameter.name
                                 : root + parameter.name;
    tensors.emplace_back(std::string(kRoot) + name, parameter.value.detach().to(at::kCPU).contiguous());
    if (own_slot) whole.insert(module_of(name));
    if (!parameter.name.ends_with(kDown)) continue;
    const std::string path = parameter.name.substr(0, parameter.name.size() - kDown.size());
    targets.push_back(root + path);
    in_out |= stored_in_out(*blueprint.slot(path + std::string(kWeight)));
  }
  fs::create_directories(folder);
  AtomicFile file(folder / kTensors);
  save_tensors(file, tensors);
  const Json config = {{"peft_type", "LORA"},
                       {"task_type", blueprint.labels > 0 ? "TOKEN_CLS" : "CAUSAL_LM"},
                       {"base_model_name_or_path", base},
                       {"r", lora.rank},
                       {"lora_alpha", lora.alpha},
                       {"lora_dropout", lora.dropout},
                       {"target_modules", targets},
                       {"bias", "none"},
                       {"fan_in_fan_out", in_out},
                       {"inference_mode", true},
                       {"init_lora_weights", true},
                       {"use_rslora", false},
                       {"modules_to_save", whole.empty() ? Json() : Json(whole)}};
  write_file(folder / kConfig, config.dump(2) + "\n");
}

bool is_adapter(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / kConfig, error) && !fs::exists(folder / "config.json", error);
}

Adapter read_adapter(const fs::path& folder) {
  const fs::path config_path = folder / kConfig, tensors_path = folder / kTensors;
  const std::string what = config_path.string(), file_name = tensors_path.string();
  if (!fs::exists(config_path)) fail("{}: there is no such file; is this the folder of an adapter?", what);
  const Json config = parse_json(read_file(config_path), what);
  if (!config.is_object()) fail("{}: is not a JSON object", what);
  if (const std::string kind = json_string(config, "peft_type", what); kind != "LORA")
    fail("{}: is an adapter of the kind {}; LORA is read here", what, in_quotes(kind));
  refuse(config, "use_dora", what, "is a DoRA adapter");
  refuse(config, "rank_pattern", what, "gives some maps ranks of their own");
  refuse(config, "alpha_pattern", what, "gives some maps an alpha of their own");
  refuse(config, "lora_bias", what, "has biases in its products");
  refuse(config, "layer_replication", what, "repeats layers");
  refuse(config, "target_parameters", what, "adapts single parameters");
  refuse(config, "alora_invocation_tokens", what, "acts behind certain tokens alone");
  Adapter adapter{.folder = folder,
                  .base = json_string_or(config, "base_model_name_or_path", "", what),
                  .rank = json_integer(config, "r", what, {.min = 1, .max = 1 << 16})};
  const double alpha = json_number_or(config, "lora_alpha", 8, what),
               rank = static_cast<double>(adapter.rank);
  adapter.scale = alpha / (json_bool_or(config, "use_rslora", false, what) ? std::sqrt(rank) : rank);

  const TensorFile file(tensors_path);
  std::map<std::string, std::pair<std::optional<Stored>, std::optional<Stored>>> products;
  for (const Stored& stored : file.all()) {
    const std::string_view full = stored.name;
    if (!full.starts_with(kRoot))
      fail("{}: {} does not begin with \"{}\", as what peft writes does", file_name, in_quotes(full), kRoot);
    const std::string name(full.substr(kRoot.size()));
    check_numbers(stored, file_name);
    if (name.ends_with(kDown)) {
      products[name.substr(0, name.size() - kDown.size())].first = stored;
    } else if (name.ends_with(kUp)) {
      products[name.substr(0, name.size() - kUp.size())].second = stored;
    } else if (name.find("lora_") != std::string::npos) {
      fail("{}: {} is a part of an adapter that is not read here; merge it with peft first", file_name,
           in_quotes(name));
    } else {
      Stored& whole = adapter.whole.emplace_back(stored);
      whole.name = name;
    }
  }
  for (auto& [path, pair] : products) {
    auto& [down, up] = pair;
    if (!down || !up)
      fail("{}: {} has {} without {}", file_name, path, down ? kDown : kUp, down ? kUp : kDown);
    for (const auto& [stored, axis] : {std::pair(&*down, size_t{0}), std::pair(&*up, size_t{1})}) {
      if (stored->shape.size() != 2 || stored->shape[axis] != adapter.rank)
        fail("{}: {} has the shape {}, and {} says that the rank is {}", file_name, stored->name,
             shape_text(stored->shape), kConfig, adapter.rank);
    }
    adapter.products.push_back({.path = path, .down = *std::move(down), .up = *std::move(up)});
  }
  if (adapter.products.empty() && adapter.whole.empty()) fail("{}: holds no tensor", file_name);
  return adapter;
}

Opened with_adapter(const Opened& opened, const Adapter& adapter) {
  const InferenceMode reading;
  const Blueprint& blueprint = opened.blueprint;
  const std::string where = (adapter.folder / kTensors).string();
  Checkpoint checkpoint = opened.checkpoint;
  std::set<std::string> changed;
  // The model's tensor that this one changes, with its place in the blueprint.
  const auto place = [&](const std::string& name) -> std::pair<Stored*, const Slot*> {
    const std::string own = own_name(blueprint, name);
    const Slot* slot = blueprint.slot(own);
    const auto stored = std::ranges::find(checkpoint.tensors, own, &Stored::name);
    if (!slot || stored == checkpoint.tensors.end())
      fail("{}: {} has no place in {}; is it the adapter of another model?", where, in_quotes(name),
           opened.checkpoint.path.string());
    if (!changed.insert(own).second) fail("{}: changes {} twice", where, own);
    return {&*stored, slot};
  };
  for (const Adapter::Product& product : adapter.products) {
    const auto [stored, slot] = place(product.path + std::string(kWeight));
    const bool map = slot->axes.size() == 2 && (slot->part >= 0 || slot->name == blueprint.head);
    if (!map) fail("{}: {} is no linear map", where, product.path);
    const bool in_out = stored_in_out(*slot);
    const int64_t in = slot->axes[in_out ? 0 : 1].size(), out = slot->axes[in_out ? 1 : 0].size();
    if (product.down.shape[1] != in || product.up.shape[0] != out)
      fail(
          "{}: {} goes from {} to {} where the model's goes from {} to {}; is it the adapter of another "
          "model?",
          where, product.path, product.down.shape[1], product.up.shape[0], in, out);
    const DType kept = computed_dtype(stored->dtype);
    const at::ScalarType type = scalar_type(kept);
    const Tensor change = at::mm(load(product.up, type), load(product.down, type)) * adapter.scale;
    store(*stored, (load(*stored, type) + (in_out ? change.t() : change)).to(scalar_type(kept)));
  }
  for (const Stored& whole : adapter.whole) {
    const auto [stored, slot] = place(whole.name);
    if (whole.shape != stored->shape)
      fail("{}: {} has the shape {} where the model's has {}; is it the adapter of another model?", where,
           whole.name, shape_text(whole.shape), shape_text(stored->shape));
    const DType kept = computed_dtype(stored->dtype);
    store(*stored, load(whole, scalar_type(kept)));
  }
  return declare(std::move(checkpoint));
}

}  // namespace lamina
