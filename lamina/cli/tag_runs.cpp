#include "lamina/cli/tag_runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/json_number.h"
#include "lamina/base/staging.h"
#include "lamina/base/text.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/heal/adapter.h"
#include "lamina/tensor/store.h"
#include "lamina/tensor/tensor_file.h"

namespace lamina::cli {

namespace fs = std::filesystem;
using unmask::RunResult;

namespace {

constexpr const char* kVersionKey = "lamina_tag_run";
constexpr int64_t kVersion = 1;
constexpr const char* kTensors = "tensors.safetensors";

double number_of(const Json& json) {
  return json.is_number() ? json.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

Json to_json(const Trained& trained) {
  Json curve = Json::array(), evaluations = Json::array();
  for (const StepRecord& r : trained.curve) {
    Json terms = Json::object();
    for (const auto& [name, value] : r.terms) terms[name] = number_or_null(value);
    curve.push_back({r.step, number_or_null(r.loss), number_or_null(r.objective), r.learning_rate,
                     number_or_null(r.gradient_norm), r.tokens, r.seconds, std::move(terms)});
  }
  for (const Evaluation& e : trained.evaluations)
    evaluations.push_back({e.step, number_or_null(e.loss), e.positions});
  return {{"curve", std::move(curve)},
          {"evaluations", std::move(evaluations)},
          {"resumed_from", trained.resumed_from},
          {"broke_at", trained.broke_at},
          {"broke_on", trained.broke_on},
          {"notes", trained.notes}};
}

Trained trained_of(const Json& json) {
  Trained trained{.curve = {},
                  .evaluations = {},
                  .resumed_from = json.at("resumed_from").get<int64_t>(),
                  .broke_at = json.at("broke_at").get<int64_t>(),
                  .broke_on = json.at("broke_on").get<std::string>(),
                  .notes = json.at("notes").get<std::vector<std::string>>()};
  for (const Json& r : json.at("curve")) {
    StepRecord& record = trained.curve.emplace_back(StepRecord{.step = r.at(0).get<int64_t>(),
                                                               .loss = number_of(r.at(1)),
                                                               .objective = number_of(r.at(2)),
                                                               .learning_rate = number_of(r.at(3)),
                                                               .gradient_norm = number_of(r.at(4)),
                                                               .tokens = r.at(5).get<int64_t>(),
                                                               .seconds = number_of(r.at(6))});
    for (const auto& [name, value] : r.at(7).items()) record.terms[name] = number_of(value);
  }
  for (const Json& e : json.at("evaluations"))
    trained.evaluations.push_back(
        {.step = e.at(0).get<int64_t>(), .loss = number_of(e.at(1)), .positions = e.at(2).get<int64_t>()});
  return trained;
}

// Classes by number: a file of names would be ten times as long.
Json to_json(const std::vector<label::Tags>& tags, const std::vector<std::string>& labels) {
  Json json = Json::array();
  for (const label::Tags& sentence : tags) {
    Json row = Json::array();
    for (const std::string& tag : sentence) row.push_back(std::ranges::find(labels, tag) - labels.begin());
    json.push_back(std::move(row));
  }
  return json;
}

std::vector<label::Tags> tags_of(const Json& json, const std::vector<std::string>& labels) {
  std::vector<label::Tags> tags;
  for (const Json& row : json) {
    label::Tags& sentence = tags.emplace_back();
    for (const Json& tag : row) sentence.push_back(labels.at(tag.get<size_t>()));
  }
  return tags;
}

std::optional<label::Score> scored(const std::vector<label::Sentence>& sentences,
                                   const std::vector<label::Tags>& said) {
  if (said.empty()) return std::nullopt;
  std::vector<label::Tags> gold;
  for (const label::Sentence& sentence : sentences) gold.push_back(sentence.tags);
  return label::score(gold, said, label::Scheme::iob2, label::Reading::strict);
}

void check_same(const RunFields& before, const RunFields& now, const std::string& what) {
  std::vector<std::string> differences;
  RunFields all = before;
  all.insert(now.begin(), now.end());
  for (const auto& [name, ignored] : all) {
    const auto value = [&](const RunFields& fields) {
      const auto it = fields.find(name);
      return it == fields.end() ? std::string("nothing") : it->second;
    };
    const std::string then = value(before), today = value(now);
    if (then == today) continue;
    differences.push_back(name.ends_with("sha256") ? fmt::format("another {}", name.substr(0, name.find(' ')))
                                                   : fmt::format("{} was {} and is {}", name, then, today));
  }
  if (!differences.empty())
    fail("{}: is of a run that differs: {}; go on with what it had, or name another folder", what,
         fmt::join(differences, ", "));
}

Tensor rounded(const Stored& stored, DType dtype) {
  const Tensor numbers = load(stored, scalar_type(stored.dtype)), narrow = numbers.to(scalar_type(dtype));
  if (stored.dtype != dtype && !at::isfinite(narrow).all().item<bool>() &&
      at::isfinite(numbers).all().item<bool>())
    fail("{} holds numbers that are too large for {}; write the model with --weights float32", stored.name,
         dtype_name(dtype));
  return narrow;
}

DType type_of(const Stored& stored, const Opened& base, const std::optional<DType>& weights) {
  if (weights) return *weights;
  const Stored* there = base.checkpoint.find(stored.name);
  return there ? editable_dtype(there->dtype) : stored.dtype;
}

}  // namespace

std::string slug(const std::string& name) {
  constexpr size_t kLongest = 48;
  std::string text;
  for (const char c : name) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (plain)
      text += c;
    else if (!text.empty() && text.back() != '-')
      text += '-';
  }
  if (text.size() <= kLongest) return text;
  return text.substr(0, kLongest) + "-" + sha256_hex(name).substr(0, 8);
}

RunFiles::RunFiles(fs::path folder, const unmask::TagData& data) : folder_(std::move(folder)), data_(data) {}

std::optional<DoneRun> RunFiles::find(const std::string& name, const RunFields& fields) const {
  const fs::path path = folder_ / (name + ".json");
  if (!fs::exists(path)) return std::nullopt;
  Json json;
  RunFields before;
  try {
    json = parse_json(read_file(path), path.string());
    if (json.at(kVersionKey).get<int64_t>() != kVersion) return std::nullopt;
    for (const auto& [key, value] : json.at("fields").items()) before[key] = value.get<std::string>();
  } catch (const std::exception&) {
    return std::nullopt;  // it is made again
  }
  check_same(before, fields, path.string());
  try {
    RunResult result{.mask = json.at("mask").get<std::string>(),
                     .repeat = json.at("repeat").get<int64_t>(),
                     .seed = json.at("seed").get<uint64_t>(),
                     .trained = trained_of(json.at("trained"))};
    if (!json.at("adapted").is_null()) result.adapted = trained_of(json.at("adapted"));
    for (const Json& e : json.at("epochs"))
      result.epochs.push_back(
          {.epoch = e.at(0).get<int64_t>(), .step = e.at(1).get<int64_t>(), .dev_f1 = number_of(e.at(2))});
    result.dev_tags = tags_of(json.at("dev_tags"), data_.labels);
    result.test_tags = tags_of(json.at("test_tags"), data_.labels);
    result.dev = scored(data_.dev, result.dev_tags);
    result.test = scored(data_.test, result.test_tags);
    result.seconds = json.at("seconds").get<double>();
    result.tokens = json.at("tokens").get<int64_t>();
    result.padded_tokens = json.at("padded_tokens").get<int64_t>();
    DoneRun run{.result = std::move(result)};
    for (const Json& span : json.at("spans"))
      run.spans.push_back({.block = span.at(0).get<int>(),
                           .distance = span.at(1).get<double>(),
                           .right = span.at(2).get<double>()});
    return run;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

void RunFiles::write(const std::string& name, const RunFields& fields, const DoneRun& run) const {
  fs::create_directories(folder_);
  const RunResult& result = run.result;
  Json json = {{kVersionKey, kVersion}, {"fields", fields}};
  json["mask"] = result.mask;
  json["repeat"] = result.repeat;
  json["seed"] = result.seed;
  json["trained"] = to_json(result.trained);
  json["adapted"] = result.adapted ? to_json(*result.adapted) : Json();
  json["epochs"] = Json::array();
  for (const unmask::EpochScore& epoch : result.epochs)
    json["epochs"].push_back({epoch.epoch, epoch.step, number_or_null(epoch.dev_f1)});
  json["dev_tags"] = to_json(result.dev_tags, data_.labels);
  json["test_tags"] = to_json(result.test_tags, data_.labels);
  json["seconds"] = result.seconds;
  json["tokens"] = result.tokens;
  json["padded_tokens"] = result.padded_tokens;
  json["spans"] = Json::array();
  for (const unmask::Span& span : run.spans) json["spans"].push_back({span.block, span.distance, span.right});
  write_file(folder_ / (name + ".json"), json.dump() + "\n");
}

fs::path RunFiles::kept_at(const std::string& name) const {
  return folder_ / (name + ".kept");
}

bool RunFiles::kept(const std::string& name) const {
  return fs::exists(kept_at(name));
}

void RunFiles::drop(const std::string& name) const {
  remove_folder(kept_at(name));
}

void RunFiles::keep(const std::string& name, const Student& student, const Opened& base,
                    std::optional<DType> weights) const {
  fs::path partial = kept_at(name);
  partial += ".partial";
  fs::remove_all(partial);
  fs::create_directories(partial);
  if (student.options().lora) write_adapter(student, "", partial);
  // An adapter says everything where it stands on the base itself; after an adaptation it does not.
  const bool moved = std::ranges::any_of(student.opened().checkpoint.tensors,
                                         [](const Stored& stored) { return stored.made != nullptr; });
  if (!student.options().lora || moved) {
    const Opened now = student.now(weights);
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (const Stored& stored : now.checkpoint.tensors) {
      if (stored.made)
        tensors.emplace_back(stored.name, rounded(stored, type_of(stored, base, weights)).contiguous());
    }
    AtomicFile file(partial / kTensors);
    save_tensors(file, tensors);
  }
  remove_folder(kept_at(name));
  fs::rename(partial, kept_at(name));
}

Opened with_kept(const Opened& classifier, const fs::path& kept) {
  if (!fs::exists(kept / kTensors)) return with_adapter(classifier, read_adapter(kept));
  const TensorFile file(kept / kTensors);
  Checkpoint checkpoint = classifier.checkpoint;
  for (const Stored& stored : file.all()) {
    const auto place = std::ranges::find(checkpoint.tensors, stored.name, &Stored::name);
    if (place == checkpoint.tensors.end())
      fail("{}: {} has no place in the model", file.path().string(), stored.name);
    store(*place, load(stored, scalar_type(stored.dtype)));
  }
  return declare(std::move(checkpoint));
}

Opened in_types_of(const Opened& model, const Opened& base, std::optional<DType> weights) {
  Checkpoint checkpoint = model.checkpoint;
  for (Stored& stored : checkpoint.tensors) {
    const DType type = type_of(stored, base, weights);
    if (stored.made && stored.dtype != type) store(stored, rounded(stored, type));
  }
  return declare(std::move(checkpoint));
}

}  // namespace lamina::cli
