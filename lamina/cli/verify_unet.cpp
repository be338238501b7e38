#include "lamina/cli/verify_unet.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/find_model.h"
#include "lamina/cli/noise_inputs.h"
#include "lamina/cli/session.h"
#include "lamina/methods/asdm/regional.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

constexpr double kAllowed = 1e-5;  // of the largest number, in float32
constexpr size_t kNamed = 5;       // tensors that the text names

// The denoisers in an output of ours: the folder itself, or the folders of the forms in it.
std::vector<fs::path> denoisers_in(const fs::path& out) {
  std::error_code error;
  if (!fs::is_directory(out, error)) return {};
  if (is_denoiser(out)) return {out};
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(out))
    if (entry.is_directory() && is_denoiser(entry.path())) found.push_back(entry.path());
  std::ranges::sort(found);
  return found;
}

Plan plan_beside(const fs::path& written, const Found& found, const VerifyUnet& asked) {
  fs::path path = asked.plan;
  for (const fs::path& folder : {found.opened.checkpoint.path, written, asked.out, asked.out.parent_path()})
    if (path.empty() && fs::is_regular_file(folder / "plan.json")) path = folder / "plan.json";
  if (path.empty()) fail("no plan.json stands beside {}; name it with --plan", shown(written));
  return plan_from_json(parse_json(read_file(path), shown(path)), shown(path));
}

// Tensors that only one of the two has, or in another shape.
std::vector<std::string> misfits(const Checkpoint& meant, const Checkpoint& written) {
  std::vector<std::string> names;
  for (const Stored& tensor : meant.tensors) {
    const Stored* there = written.find(tensor.name);
    if (!there)
      names.push_back(tensor.name + " (missing)");
    else if (there->shape != tensor.shape)
      names.push_back(tensor.name + " (another shape)");
  }
  for (const Stored& tensor : written.tensors)
    if (!meant.find(tensor.name)) names.push_back(tensor.name + " (not meant)");
  return names;
}

// Tensors whose numbers are not the meant ones, as the type they are stored in has them.
std::vector<std::string> changed(const Checkpoint& meant, const Checkpoint& written) {
  std::vector<std::string> names;
  for (const Stored& tensor : meant.tensors) {
    const Stored* there = written.find(tensor.name);
    if (there && there->shape == tensor.shape &&
        bytes_as(tensor, there->dtype) != bytes_as(*there, there->dtype))
      names.push_back(tensor.name);
  }
  return names;
}

// Of the forms that the plan allows, the one that was written: where the fewest tensors are out of place.
struct Meant {
  Form form = Form::hf_compact;
  Checkpoint checkpoint = {};
  std::vector<std::string> misfits = {};
};
Meant meant_by(const Opened& original, const Plan& plan, const Checkpoint& written) {
  std::optional<Meant> nearest;
  for (Form form : {Form::hf_compact, Form::hf_zeroed, Form::hf_perlayer}) {
    if (!can_write(form, original, plan).possible) continue;
    Meant now{.form = form, .checkpoint = shaped(form, original, plan)};
    now.misfits = misfits(now.checkpoint, written);
    if (!nearest || now.misfits.size() < nearest->misfits.size()) nearest = std::move(now);
  }
  if (!nearest) fail("{}: the plan can be written in no form of a U-Net", shown(original.checkpoint.path));
  return *std::move(nearest);
}

// What was written is to answer like this.
struct Reference {
  std::string said;
  std::unique_ptr<Model> model;
  std::optional<asdm::Preview> preview = {};
};

// What no pass can preview: kernels that other edits give.
bool makes_kernels(const Edit& edit) {
  const auto* inherit = std::get_if<Inherit>(&edit);
  return std::holds_alternative<Blend>(edit) ||
         (inherit && inherit->gate != Experts::Gate::tanh_residual);  // which changes nothing
}

Reference reference_of(const Opened& original, const Plan& plan) {
  const Compact compact = original.architecture->compact(original.checkpoint, original.blueprint, plan);
  if (compact.rewired)
    return {.said = "the original wired as the plan says",
            .model = build_model(declare(*compact.checkpoint))};
  Plan kernels, rest;
  for (const Edit& edit : plan.edits) (makes_kernels(edit) ? kernels : rest).edits.push_back(edit);
  const Opened base =
      kernels.edits.empty() ? original : declare(apply(original.checkpoint, original.blueprint, kernels));
  Reference made{.said = "the original with the plan's parts skipped", .model = build_model(base)};
  made.preview.emplace(base.blueprint, rest);
  return made;
}

std::vector<Tensor> answers(const Model& model, const std::vector<Inputs>& inputs, Tap& tap) {
  std::vector<Tensor> made;
  for (const Inputs& each : inputs) made.push_back(model.run(each, tap));
  return made;
}

double relative_difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double difference = 0, scale = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].sizes() != b[i].sizes()) return INFINITY;
    const double here = (a[i] - b[i]).abs().max().item<double>();
    if (!std::isfinite(here)) return INFINITY;
    difference = std::max(difference, here);
    scale = std::max(scale, b[i].abs().max().item<double>());
  }
  return scale > 0 ? difference / scale : difference;
}

// Files of the other components, and the index, that are not as they were.
std::vector<std::string> other_files(const Found& written, const Found& original) {
  std::vector<std::string> names;
  if (!written.pipeline || !original.pipeline) return names;
  const Pipeline &now = *written.pipeline, &was = *original.pipeline;
  for (const std::string& file : was.files) {
    const std::string folder = file.substr(0, file.find('/'));
    if (folder == original.component || !was.has(folder)) continue;
    const bool there = std::ranges::binary_search(now.files, file);
    if (!there || read_file(now.path / file) != read_file(was.path / file)) names.push_back(file);
  }
  Json index = now.index, before = was.index;
  for (Json* each : {&index, &before}) (*each)[original.component] = Json();
  if (index != before) names.emplace_back("model_index.json");
  return names;
}

// The original, opened once, and what it answers by a plan.
class Original {
 public:
  explicit Original(const VerifyUnet& asked)
      : found_(find_model(asked.against, is_pipeline(asked.against) ? asked.component : "")) {
    if (found_.opened.blueprint.family != "unet") fail("{}: is no U-Net", shown(asked.against));
    const unet::Config config =
        unet::read_config(found_.opened.checkpoint.config, found_.opened.checkpoint.what());
    inputs_ = noise_inputs(config, {.count = asked.samples, .side = asked.side});
  }
  // Adds to the entry of a model that was written what is to be said of it.
  void hold(const Found& written, const Plan& plan, Json& entry) {
    const Opened& opened = found_.opened;
    check_plan(plan, opened.blueprint);
    const Checkpoint& there = written.opened.checkpoint;
    const Meant meant = meant_by(opened, plan, there);
    std::vector<std::string> differ = meant.misfits;
    for (std::string& name : changed(meant.checkpoint, there)) differ.push_back(std::move(name));
    const std::vector<std::string> files = other_files(written, found_);
    const double allowed = allowed_difference(meant.checkpoint, there, kAllowed);
    expect(plan);
    Tap none;
    const double difference =
        relative_difference(answers(*build_model(written.opened), inputs_, none), expected_);
    entry["form"] = form_name(meant.form);
    entry["reference"] = said_;
    entry["relative_difference"] = std::isfinite(difference) ? Json(difference) : Json();
    entry["allowed"] = allowed;
    entry["tensors_that_differ"] = differ;
    entry["files_that_differ"] = files;
    entry["ok"] = difference <= allowed && differ.empty() && files.empty();
  }

 private:
  // Several forms of one plan are held against the same answers.
  void expect(const Plan& plan) {
    const Json now = to_json(plan);
    if (now == plan_) return;
    Reference reference = reference_of(found_.opened, plan);
    Tap none;
    expected_ = answers(*reference.model, inputs_, reference.preview ? *reference.preview : none);
    said_ = reference.said;
    plan_ = now;
  }

  Found found_;
  std::vector<Inputs> inputs_;
  Json plan_;
  std::string said_;
  std::vector<Tensor> expected_;
};

std::string names_text(const Json& names, std::string_view what) {
  if (names.empty()) return "";
  std::vector<std::string> first;
  for (const Json& name : names)
    if (first.size() < kNamed) first.push_back(name.get<std::string>());
  return fmt::format("  {} {}: {}{}\n", names.size(),
                     names.size() == 1 ? fmt::format("{} differs", what) : fmt::format("{}s differ", what),
                     fmt::join(first, ", "), names.size() > kNamed ? ", ..." : "");
}

std::string verdict_text(const Json& entry) {
  const Json& difference = entry.at("relative_difference");
  return fmt::format(
             "  {} ({}): answers differ by at most {} of the largest from those of {} (allowed {:.0e})\n",
             entry.at("ok").get<bool>() ? "as planned" : "NOT AS PLANNED",
             entry.at("form").get<std::string>(),
             difference.is_null() ? "more than any part" : fmt::format("{:.2e}", difference.get<double>()),
             entry.at("reference").get<std::string>(), entry.at("allowed").get<double>()) +
         names_text(entry.at("tensors_that_differ"), "tensor") +
         names_text(entry.at("files_that_differ"), "other file");
}

}  // namespace

bool holds_denoiser(const fs::path& out) {
  return !denoisers_in(out).empty();
}

double allowed_difference(const Checkpoint& meant, const Checkpoint& written, double least) {
  double allowed = least;
  for (const Stored& tensor : written.tensors) {
    const Stored* source = meant.find(tensor.name);
    const bool same = source && source->dtype == tensor.dtype;
    if (tensor.shape.size() < 2 || same || tensor.dtype == DType::f32 || tensor.dtype == DType::f64) continue;
    allowed = std::max(allowed, tensor.dtype == DType::f16 ? 0.02 : 0.25);
  }
  return allowed;
}

Json verified_denoisers(const VerifyUnet& asked) {
  const std::vector<fs::path> written = denoisers_in(asked.out);
  if (written.empty()) fail("{}: holds no U-Net and no pipeline", shown(asked.out));
  use_threads(thread_count(asked.threads));
  const InferenceMode evaluating;
  std::optional<Original> original;
  if (!asked.against.empty()) original.emplace(asked);
  Json entries = Json::array();
  for (const fs::path& path : written) {
    const Found found = find_model(path, is_pipeline(path) ? asked.component : "");
    Json entry = {{"path", shown(path)},
                  {"parameters", found.opened.blueprint.parameters()},
                  {"file_bytes", found.opened.checkpoint.file_bytes()},
                  {"tensors", found.opened.checkpoint.tensors.size()}};
    if (original) original->hold(found, plan_beside(path, found, asked), entry);
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::string denoisers_text(const Json& entries) {
  std::string text;
  for (const Json& entry : entries) {
    text +=
        fmt::format("{}\n  {} parameters in {} tensors, {}; every tensor is where config.json says\n",
                    entry.at("path").get<std::string>(), thousands(entry.at("parameters").get<int64_t>()),
                    entry.at("tensors").get<int64_t>(), human_bytes(entry.at("file_bytes").get<uint64_t>()));
    if (entry.contains("ok")) text += verdict_text(entry);
  }
  return text;
}

}  // namespace lamina::cli
