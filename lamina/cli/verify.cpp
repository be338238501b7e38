// lamina verify: reopen what was written, recompute, and hold it against the model it came from and the
// plan's claims.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/session.h"
#include "lamina/cli/verify_unet.h"
#include "lamina/plan/plan.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

constexpr double kAllowed = 2e-4;  // of the largest logit, where weights are stored as they were

// The models in an output of ours: the folder itself, or its folders and GGUF files.
std::vector<fs::path> models_in(const fs::path& out) {
  if (!fs::exists(out)) fail("{}: there is no such file or folder", out.string());
  if (!fs::is_directory(out) || fs::exists(out / "config.json")) {
    std::vector<fs::path> found = {out};
    if (fs::is_directory(out)) {
      for (const auto& entry : fs::directory_iterator(out)) {
        if (entry.path().extension() == ".gguf") found.push_back(entry.path());
      }
    }
    return found;
  }
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(out)) {
    if (entry.path().extension() == ".gguf" ||
        (entry.is_directory() && fs::exists(entry.path() / "config.json")))
      found.push_back(entry.path());
  }
  std::ranges::sort(found);
  if (found.empty()) fail("{}: holds no model; name the folder that prune or apply wrote", out.string());
  return found;
}

}  // namespace

int run_verify(int argc, char** argv) {
  CLI::App app(
      "Reopen what was written and check it.\n\n"
      "Example: lamina verify smaller --against MODEL\n"
      "         lamina verify smaller --against PIPELINE\n"
      "The plan is OUT/plan.json unless --plan names another. With --against, logits on the embedded "
      "held-out text are compared\n"
      "with those of MODEL, whose cut parts are skipped. A U-Net, alone or in a pipeline, is compared number "
      "for number with\n"
      "what the plan makes of the original, and in its answers to seeded noise; tensors that differ are "
      "named.",
      "verify");
  fs::path out, against_path, plan_path;
  VerifyUnet denoiser;
  int64_t tokens = 256;
  int threads = 1;
  bool json = false;
  app.add_option("OUT", out, "what prune or apply wrote: a folder or a GGUF file")->required();
  app.add_option("--against", against_path, "the model that was cut");
  app.add_option("--plan", plan_path, "plan.json");
  app.add_option("--tokens", tokens, "tokens to compare on")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 16));
  app.add_option("--samples", denoiser.samples, "of a U-Net: samples of noise to compare on")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--side", denoiser.side, "of a U-Net: side of their latents (default: its own)")
      ->check(CLI::Range(1, 4096));
  app.add_option("--component", denoiser.component, "of a pipeline (default: unet)");
  app.add_option("--threads", threads, "threads")->capture_default_str()->check(CLI::Range(1, 1024));
  app.add_flag("--json", json, "one object on stdout");
  parse(app, argc, argv);
  if (holds_denoiser(out)) {
    denoiser.out = out;
    denoiser.against = against_path;
    denoiser.plan = plan_path;
    denoiser.threads = threads;
    const Json entries = verified_denoisers(denoiser);
    print(json ? entries.dump(2) + "\n" : denoisers_text(entries));
    for (const Json& entry : entries)
      if (!entry.value("ok", true)) fail("{}: is not what the plan says", out.string());
    return Status::ok;
  }
  if (plan_path.empty() && fs::is_directory(out) && fs::exists(out / "plan.json"))
    plan_path = out / "plan.json";
  if (plan_path.empty() && !fs::is_directory(out) && fs::exists(out.parent_path() / "plan.json"))
    plan_path = out.parent_path() / "plan.json";
  std::optional<Plan> plan;
  if (!plan_path.empty())
    plan = plan_from_json(parse_json(read_file(plan_path), plan_path.string()), plan_path.string());
  if (!against_path.empty() && !plan)
    fail("no plan.json stands beside {}; name it with --plan", out.string());

  const InferenceMode evaluating;
  std::optional<Session> against;
  Tensor expected, ids;
  int64_t expected_parameters = 0;
  if (!against_path.empty()) {
    against.emplace(open_session(against_path, {.dtype = "float32", .threads = threads}));
    const Blueprint& blueprint = against->opened.blueprint;
    check_plan(*plan, blueprint);
    std::vector<int32_t> text = against->tokenizer.encode(embedded_heldout().text);
    text.resize(std::min<size_t>(text.size(), static_cast<size_t>(std::min(tokens, blueprint.context))));
    ids = at::tensor(std::vector<int64_t>(text.begin(), text.end()), at::kLong).unsqueeze(0);
    Skip skip(blueprint, *plan);
    expected = against->model->run({.ids = ids}, skip);
    expected_parameters = blueprint.parameters();
    for (Site site : removed_sites(*plan, blueprint)) expected_parameters -= blueprint.parameters(site);
  }

  Json results = Json::array();
  bool good = true;
  for (const fs::path& path : models_in(out)) {
    const Opened opened = open(path);  // the blueprint is held against every tensor here
    Json entry = {{"path", shown(path)},
                  {"parameters", opened.blueprint.parameters()},
                  {"file_bytes", opened.checkpoint.file_bytes()},
                  {"tensors", opened.checkpoint.tensors.size()}};
    if (against) {
      const auto model = build_model(opened);
      const Tensor logits = model->run({.ids = ids});
      const double difference = (logits - expected).abs().max().item<double>(),
                   scale = expected.abs().max().item<double>();
      const double allowed = allowed_difference(against->opened.checkpoint, opened.checkpoint, kAllowed);
      const bool close = difference / scale <= allowed && std::isfinite(difference);
      const double same_top =
          (logits.argmax(-1) == expected.argmax(-1)).to(at::kDouble).mean().item<double>();
      // A zeroed form keeps its tensors; the others hold exactly what the plan leaves.
      const bool zeroed = opened.blueprint.parameters() == against->opened.blueprint.parameters();
      const bool counted = zeroed || opened.blueprint.parameters() == expected_parameters;
      entry["largest_logit_difference"] = difference;
      entry["relative_to_largest_logit"] = difference / scale;
      entry["allowed"] = allowed;
      entry["same_top_token"] = same_top;
      entry["parameters_as_planned"] = counted;
      entry["ok"] = close && counted;
      good = good && close && counted;
    }
    results.push_back(std::move(entry));
  }
  if (json) {
    print(results.dump(2) + "\n");
  } else {
    std::string text;
    for (const Json& entry : results) {
      text += fmt::format("{}\n  {} parameters in {} tensors, {}; every tensor is where config.json says\n",
                          entry["path"].get<std::string>(), thousands(entry["parameters"].get<int64_t>()),
                          entry["tensors"].get<int64_t>(), human_bytes(entry["file_bytes"].get<uint64_t>()));
      if (entry.contains("ok")) {
        text += fmt::format("  {}: logits differ by at most {:.2e} of the largest (allowed {:.0e}){}\n",
                            entry["ok"].get<bool>() ? "as planned" : "NOT AS PLANNED",
                            entry["relative_to_largest_logit"].get<double>(), entry["allowed"].get<double>(),
                            entry["parameters_as_planned"].get<bool>()
                                ? ""
                                : "; the parameters are not those that the plan leaves");
      }
    }
    print(text);
  }
  if (!good) fail("{}: is not what the plan says", out.string());
  return Status::ok;
}

}  // namespace lamina::cli
