#include "lamina/cli/train_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/fields.h"
#include "lamina/base/hash.h"
#include "lamina/base/text.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/data/byte_tokenizer.h"
#include "lamina/heal/first_numbers.h"
#include "lamina/tensor/store.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// Throws Error for a key of `object` that is none of `known`.
void check_keys(const Json& object, const std::vector<std::string>& known, const std::string& what) {
  if (!object.is_object()) fail("{}: is not an object", what);
  for (const auto& [key, value] : object.items()) {
    if (std::ranges::find(known, key) != known.end()) continue;
    const auto near = nearest(key, known);
    fail("{}: the key {} means nothing here{}", what, in_quotes(key),
         near ? fmt::format("; was \"{}\" meant?", *near)
              : fmt::format("; what does: {}", fmt::join(known, ", ")));
  }
}

// Fills each field from the key of its name, and knows the names.
struct ConfigVisitor {
  const Json& object;
  const std::string& what;
  std::vector<std::string> known = {};
  template <class T>
  void operator()(T& field, const char* name, const char* /*help*/) {
    known.emplace_back(name);
    if (!json_has(object, name)) return;
    if constexpr (std::is_same_v<T, bool>)
      field = json_bool_or(object, name, field, what);
    else if constexpr (std::is_same_v<T, std::string>)
      field = json_string(object, name, what);
    else if constexpr (std::is_floating_point_v<T>)
      field = json_number_or(object, name, field, what);
    else if constexpr (std::is_unsigned_v<T>)
      field = static_cast<T>(json_integer(object, name, what, {.min = 0}));
    else
      field = static_cast<T>(json_integer(object, name, what));
  }
};

std::vector<fs::path> paths_of(const Json& value, const fs::path& from, const std::string& what,
                               const std::string& key) {
  std::vector<fs::path> paths;
  const auto add = [&](const Json& entry) {
    if (!entry.is_string() || entry.get<std::string>().empty())
      fail("{}: \"{}\" is a list of files", what, key);
    paths.push_back((from / entry.get<std::string>()).lexically_normal());
  };
  if (value.is_array())
    std::ranges::for_each(value, add);
  else
    add(value);
  if (paths.empty()) fail("{}: \"{}\" names no file", what, key);
  return paths;
}

Tokenizer tokenizer_in(const fs::path& path) {
  if (!fs::exists(path)) fail("{}: there is no such file or folder", path.string());
  if (path.extension() == ".gguf") return tokenizer_of(open(path).checkpoint);
  if (!fs::is_directory(path)) {
    const fs::path settings = path.parent_path() / "tokenizer_config.json";
    return Tokenizer::from_json(
        parse_json(read_file(path), path.string()),
        fs::exists(settings) ? parse_json(read_file(settings), settings.string()) : Json(), path.string());
  }
  Checkpoint folder{.path = path,
                    .config = {},
                    .config_text = {},
                    .tensors = {},
                    .shards = {},
                    .index = {},
                    .sidecars = {},
                    .files = {},
                    .gguf = {}};
  folder.config = Json::object();
  if (const fs::path config = path / "config.json"; fs::exists(config))
    folder.config = parse_json(read_file(config), config.string());
  return tokenizer_of(folder);
}

std::vector<Sidecar> tokenizer_files(const TrainConfig& config, const Tokenizer& tokenizer, int64_t context) {
  std::vector<Sidecar> files;
  if (config.tokenizer.empty()) {
    for (auto& [name, text] : byte_tokenizer_files(context)) files.push_back({name, std::move(text)});
    return files;
  }
  const auto text = [](const Json& json) { return json.dump(2) + "\n"; };
  files.push_back({"tokenizer.json", text(tokenizer.to_tokenizer_json())});
  files.push_back({"tokenizer_config.json", text(tokenizer.to_tokenizer_config())});
  files.push_back({"special_tokens_map.json", text(tokenizer.special_tokens_map())});
  return files;
}

}  // namespace

TrainConfig read_train_config(const fs::path& path) {
  const std::string what = path.string();
  if (!fs::exists(path)) fail("{}: there is no such file", what);
  const Json json = parse_json(read_file(path), what);
  check_keys(json,
             {"model", "tokenizer", "data", "validation", "length", "validation-samples", "seed",
              "initialisation", "dtype", "weights", "training"},
             what);
  const fs::path from = path.parent_path();
  TrainConfig config;
  if (!json_has(json, "model") || !json.at("model").is_object())
    fail("{}: \"model\" is missing; it is an object as in a model's config.json", what);
  config.model = json.at("model");
  if (const std::string tokenizer = json_string_or(json, "tokenizer", "bytes", what); tokenizer != "bytes")
    config.tokenizer = (from / tokenizer).lexically_normal();
  if (!json_has(json, "data")) fail("{}: \"data\" is missing; it is a list of text files", what);
  config.texts.data = paths_of(json.at("data"), from, what, "data");
  if (json_has(json, "validation")) {
    const Json& validation = json.at("validation");
    const bool share =
        validation.is_number() || (validation.is_string() && validation.get<std::string>().ends_with('%'));
    if (share)
      config.texts.holdout = validation.is_number() ? validation.dump() : validation.get<std::string>();
    else
      config.texts.validation = paths_of(validation, from, what, "validation");
  }
  config.texts.length = json_integer_or(json, "length", 0, what, {.min = 2, .max = 1 << 20});
  config.texts.validation_samples =
      json_integer_or(json, "validation-samples", config.texts.validation_samples, what, {.min = 0});
  config.seed = static_cast<uint64_t>(json_integer_or(json, "seed", 0, what, {.min = 0}));
  config.dtype = json_string_or(json, "dtype", config.dtype, what);
  if (config.dtype != "float32" && config.dtype != "float64")
    fail("{}: \"dtype\" is {}; float32 and float64 are possible", what, in_quotes(config.dtype));
  if (json_has(json, "weights")) {
    const std::string name = json_string(json, "weights", what);
    config.weights = dtype_from_name(name);
    if (!config.weights || !is_floating(*config.weights) || is_quantized(*config.weights))
      fail("{}: \"weights\" is {}; float32, float16 and bfloat16 are possible", what, in_quotes(name));
  }
  if (json_has(json, "initialisation")) {
    const Json& first = json.at("initialisation");
    check_keys(first, {"std"}, what + ": \"initialisation\"");
    config.deviation = json_number_or(first, "std", config.deviation, what);
    if (!(config.deviation > 0) || !std::isfinite(config.deviation))
      fail("{}: \"std\" is {} where a number above 0 was expected", what, config.deviation);
  }
  config.training.seed = config.seed;
  if (json_has(json, "training")) {
    const Json& training = json.at("training");
    const std::string where = what + ": \"training\"";
    if (!training.is_object()) fail("{}: is not an object", where);
    ConfigVisitor visit{training, where};
    config.training.fields(visit);
    visit.known.emplace_back("schedule");
    check_keys(training, visit.known, where);
    if (json_has(training, "schedule"))
      config.training.schedule = schedule_from_name(json_string(training, "schedule", where));
  }
  return config;
}

Made model_from(const TrainConfig& config, const fs::path& path) {
  const Tokenizer tokenizer = config.tokenizer.empty() ? byte_tokenizer() : tokenizer_in(config.tokenizer);
  const std::string what = path.string() + ": \"model\"";
  Checkpoint checkpoint;
  checkpoint.path = path.stem();
  checkpoint.config = config.model;
  Json& json = checkpoint.config;
  const Architecture& architecture = architecture_of(json, what);
  if (!json_has(json, "architectures")) json["architectures"] = {architecture.name};
  if (!json_has(json, "model_type")) json["model_type"] = architecture.model_type;
  if (!json_has(json, "vocab_size")) json["vocab_size"] = tokenizer.size();
  json["torch_dtype"] = config.dtype;
  // The classes' own defaults are another vocabulary's.
  const auto name_token = [&](const char* key, std::optional<int32_t> id) {
    if (!json.contains(key)) json[key] = id ? Json(*id) : Json();
  };
  name_token("bos_token_id", tokenizer.bos());
  name_token("eos_token_id", tokenizer.eos());
  const Blueprint blueprint = architecture.blueprint(json, what);
  if (blueprint.vocabulary < tokenizer.size())
    fail("{}: a vocabulary of {} cannot hold the {} tokens of the tokenizer; leave \"vocab_size\" out", what,
         blueprint.vocabulary, tokenizer.size());
  checkpoint.shards.push_back(
      {.name = "model.safetensors", .metadata = {{"format", "pt"}}, .metadata_present = true});
  const at::ScalarType type = arithmetic_of(config.dtype);
  for (const Slot& slot : blueprint.slots) {
    Stored& stored = checkpoint.tensors.emplace_back();
    stored.name = slot.name;
    stored.dtype = dtype_of(type);
    for (const Axis& axis : slot.axes) stored.shape.push_back(axis.size());
    const Tensor numbers =
        first_numbers(slot, blueprint, {.seed = config.seed, .deviation = config.deviation})
            .to(type)
            .contiguous();
    store(stored, numbers);
  }
  checkpoint.sidecars = tokenizer_files(config, tokenizer, blueprint.context);
  return {declare(std::move(checkpoint)), tokenizer};
}

}  // namespace lamina::cli
