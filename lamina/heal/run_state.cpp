#include "lamina/heal/impl/run_state.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/hash.h"
#include "lamina/base/json_number.h"
#include "lamina/base/staging.h"
#include "lamina/base/text.h"
#include "lamina/format/safetensors.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kVersion = 1;
constexpr const char* kState = "state.json";
constexpr const char* kTensors = "tensors.safetensors";
constexpr std::string_view kPrefix = "step-";

double number(const Json& object, std::string_view key, std::string_view what) {
  if (!object.is_object() || !object.contains(key)) fail("{}: \"{}\" is missing", what, key);
  return json_number_or(object, key, std::numeric_limits<double>::quiet_NaN(), what);
}

const Json& array(const Json& object, std::string_view key, std::string_view what) {
  if (!object.contains(key) || !object.at(std::string(key)).is_array())
    fail("{}: \"{}\" is not a list", what, key);
  return object.at(std::string(key));
}

const Json& table(const Json& object, std::string_view key, std::string_view what) {
  if (!object.contains(key) || !object.at(std::string(key)).is_object())
    fail("{}: \"{}\" is not an object", what, key);
  return object.at(std::string(key));
}

constexpr IntegerRange kCount{0, std::numeric_limits<int64_t>::max()};

}  // namespace

std::string to_text(const RunState& state, std::string_view digest_of_tensors) {
  Json json = {{"lamina_training", kVersion}, {"step", state.step}, {"tensors_sha256", digest_of_tensors}};
  json["fields"] = Json::object();
  for (const auto& [name, value] : state.fields) json["fields"][name] = value;
  json["curve"] = Json::array();
  for (const StepRecord& record : state.curve) {
    Json terms = Json::object();
    for (const auto& [name, value] : record.terms) terms[name] = number_or_null(value);
    json["curve"].push_back({{"step", record.step},
                             {"loss", number_or_null(record.loss)},
                             {"objective", number_or_null(record.objective)},
                             {"learning_rate", number_or_null(record.learning_rate)},
                             {"gradient_norm", number_or_null(record.gradient_norm)},
                             {"tokens", record.tokens},
                             {"seconds", number_or_null(record.seconds)},
                             {"terms", std::move(terms)}});
  }
  json["evaluations"] = Json::array();
  for (const Evaluation& evaluation : state.evaluations)
    json["evaluations"].push_back({{"step", evaluation.step},
                                   {"loss", number_or_null(evaluation.loss)},
                                   {"positions", evaluation.positions}});
  json["hook"] = state.hook;
  return json.dump() + "\n";
}

ReadState state_from_text(std::string_view text, std::string_view what) {
  const Json json = parse_json(text, what);
  if (!json.is_object()) fail("{}: is not a JSON object", what);
  const int64_t version = json_integer(json, "lamina_training", what);
  if (version != kVersion)
    fail("{}: was written as version {} where {} is read; use the program that wrote it", what, version,
         kVersion);
  ReadState read;
  RunState& state = read.state;
  state.step = json_integer(json, "step", what, kCount);
  read.digest_of_tensors = json_string(json, "tensors_sha256", what);
  for (const auto& [name, value] : table(json, "fields", what).items()) {
    if (!value.is_string()) fail("{}: the field {} is not a text", what, in_quotes(name));
    state.fields[name] = value.get<std::string>();
  }
  for (const Json& entry : array(json, "curve", what)) {
    if (!entry.is_object()) fail("{}: a step of the curve is not an object", what);
    StepRecord record{.step = json_integer(entry, "step", what, kCount),
                      .loss = number(entry, "loss", what),
                      .objective = number(entry, "objective", what),
                      .learning_rate = number(entry, "learning_rate", what),
                      .gradient_norm = number(entry, "gradient_norm", what),
                      .tokens = json_integer(entry, "tokens", what, kCount),
                      .seconds = number(entry, "seconds", what)};
    const Json& terms = table(entry, "terms", what);
    for (const auto& item : terms.items()) record.terms[item.key()] = number(terms, item.key(), what);
    if (record.step != static_cast<int64_t>(state.curve.size()) + 1)
      fail("{}: step {} of the curve stands where step {} was expected", what, record.step,
           state.curve.size() + 1);
    state.curve.push_back(std::move(record));
  }
  if (static_cast<int64_t>(state.curve.size()) != state.step)
    fail("{}: the curve has {} steps where the run had done {}", what, state.curve.size(), state.step);
  for (const Json& entry : array(json, "evaluations", what)) {
    if (!entry.is_object()) fail("{}: an evaluation is not an object", what);
    state.evaluations.push_back({.step = json_integer(entry, "step", what, {0, state.step}),
                                 .loss = number(entry, "loss", what),
                                 .positions = json_integer(entry, "positions", what, kCount)});
  }
  state.hook = json.contains("hook") ? json["hook"] : Json::object();
  return read;
}

std::vector<int64_t> checkpoints_in(const fs::path& folder) {
  std::vector<int64_t> steps;
  if (!fs::exists(folder)) return steps;
  if (!fs::is_directory(folder)) fail("{}: is not a folder for checkpoints", folder.string());
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(kPrefix)) continue;
    int64_t step = 0;
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (error == std::errc() && rest == end && step >= 0 && name == fmt::format("{}{}", kPrefix, step))
      steps.push_back(step);
  }
  std::ranges::sort(steps, std::greater<>());
  return steps;
}

fs::path checkpoint_path(const fs::path& folder, int64_t step) {
  return folder / fmt::format("{}{}", kPrefix, step);
}

void write_checkpoint(const fs::path& folder, const RunState& state) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail("{}: cannot be made: {}", folder.string(), error.message());
  const fs::path done = checkpoint_path(folder, state.step);
  fs::path partial = done;
  partial += ".partial";
  fs::remove_all(partial, error);
  fs::create_directory(partial, error);
  if (error) fail("{}: cannot be made: {}", partial.string(), error.message());

  safetensors::Header header;
  for (const auto& [name, tensor] : state.tensors)
    header.tensors.push_back(
        {.name = name, .dtype = dtype_of(tensor.scalar_type()), .shape = tensor.sizes().vec()});
  safetensors::lay_out(header.tensors);
  Sha256 digest;
  AtomicFile file(partial / kTensors);
  const auto write = [&](Bytes bytes) {
    file.write(bytes);
    digest.add(bytes);
  };
  write(as_bytes(safetensors::write_header(header)));
  for (const auto& [name, tensor] : state.tensors) {
    const Tensor here = tensor.detach().to(at::kCPU).contiguous();
    write({static_cast<const std::byte*>(here.const_data_ptr()), here.nbytes()});
  }
  file.commit();
  write_file(partial / kState, to_text(state, digest.hex()));
  sync_folder(partial);
  remove_folder(done);
  fs::rename(partial, done, error);
  if (error) fail("{}: cannot be made: {}", done.string(), error.message());
  sync_folder(folder);

  // A newer one was damaged, or this run could not have come here.
  size_t older = 0;
  for (int64_t step : checkpoints_in(folder)) {
    if (step > state.step || (step < state.step && ++older > 1)) remove_folder(checkpoint_path(folder, step));
  }
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(kPrefix) && (name.ends_with(".partial") || name.ends_with(".removed")))
      fs::remove_all(entry.path(), error);
  }
}

RunState read_checkpoint(const fs::path& folder, int64_t step) {
  const fs::path path = checkpoint_path(folder, step);
  const std::string what = (path / kState).string(), where = (path / kTensors).string();
  ReadState read = state_from_text(read_file(path / kState), what);
  if (read.state.step != step)
    fail("{}: is of step {} but stands in {}", what, read.state.step, path.filename().string());
  const auto file = MappedFile::open(path / kTensors);
  const safetensors::Header header = safetensors::parse_header(file->bytes(), where);
  Sha256 digest;
  constexpr size_t kPiece = size_t{16} << 20;
  for (size_t at = 0; at < file->bytes().size(); at += kPiece)
    digest.add(file->bytes().subspan(at, std::min(kPiece, file->bytes().size() - at)));
  if (digest.hex() != read.digest_of_tensors) fail("{}: is not what was written", where);
  for (const safetensors::TensorInfo& info : header.tensors) {
    const Stored stored{.name = info.name,
                        .dtype = info.dtype,
                        .shape = info.shape,
                        .bytes = file->bytes().subspan(header.data_start + info.begin, info.end - info.begin),
                        .file = file};
    read.state.tensors.emplace(info.name, load(stored, scalar_type(info.dtype)));
  }
  return std::move(read.state);
}

}  // namespace lamina
