// lamina apply: a plan made earlier, or a list written by hand, on this or a compatible model. Needs no torch
// and little memory: the largest tensor's pages and a constant.
#include "lamina/cli/apply.h"

#include <fmt/format.h>

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/staging.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/find_model.h"
#include "lamina/export/export.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kFoldGates = "--fold-gates";

// Adds what folding the gates takes to a plan; parts that the plan takes out need none.
FoldAnswer folded_into(Plan& plan, const Opened& opened, const FoldAsked& asked, const FoldGates& fold) {
  if (!fold) fail("{}: is the engine's, which was not asked", kFoldGates);
  if (opened.blueprint.family != "unet") fail("{}: is no U-Net", shown(opened.checkpoint.path));
  FoldAnswer answer = fold(opened, asked);
  const std::vector<Site> removed = removed_sites(plan, opened.blueprint);
  for (const Blend& edit : answer.edits) {
    if (std::ranges::find(removed, opened.blueprint.site(edit.site)) == removed.end())
      plan.edits.emplace_back(edit);
  }
  plan.provenance["fold"] = answer.measured;
  return answer;
}

}  // namespace

bool asks_to_fold(int argc, char** argv) {
  return std::any_of(argv, argv + argc,
                     [](const char* word) { return std::string_view(word).starts_with(kFoldGates); });
}

int run_apply(int argc, char** argv) {
  return run_apply_with(argc, argv, {});
}

int run_apply_with(int argc, char** argv, const FoldGates& fold) {
  CLI::App app(
      "Cut a model by a plan, or by a list of blocks.\n\n"
      "Example: lamina apply MODEL plan.json -o smaller --export hf-zeroed,gguf:q8_0\n"
      "         lamina apply MODEL --drop attention:12-15,mlp:20 -o smaller\n"
      "         lamina apply PIPELINE --drop d0.a1,u3.a1,mid -o smaller --export proof,compact\n"
      "         lamina apply HEALED --fold-gates -o plain",
      "apply");
  fs::path model, plan_path, out;
  std::string drop, forms, dtype, wiring, component;
  bool force = false, quiet = false, anyway = false, folds = false;
  FoldAsked asked;
  app.add_option("MODEL", model, "folder, diffusers pipeline or GGUF file")->required();
  app.add_option("PLAN", plan_path, "plan.json");
  app.add_option("-o,--output", out, "folder to write")->required();
  app.add_option(
      "--drop", drop,
      "instead of a plan: 3,7-9 (whole blocks), attention:12-15,mlp:20, or of a U-Net d0.a1,u3,mid");
  app.add_option("--export", forms,
                 "hf-compact, hf-zeroed, hf-perlayer, hf-compat, transformer-lens, gguf, gguf:f16, gguf:f32, "
                 "gguf:q8_0; of a U-Net compact, proof, extended; comma-separated");
  app.add_option("--wiring", wiring,
                 "of a U-Net: exact, or stock: layers go whole and what is left is wired as stock configs do")
      ->check(CLI::IsMember({"exact", "stock"}));
  auto* flag = app.add_flag(std::string(kFoldGates), folds,
                            "of a U-Net: kernels mixed by the time become plain ones, by their mean gates; "
                            "says how far its answers move");
  app.add_option("--samples", asked.times, "times, spread over all, at which gates are measured")
      ->capture_default_str()
      ->needs(flag)
      ->check(CLI::Range(1, 100000));
  app.add_option("--side", asked.side,
                 "of the latents of noise that answers are compared on (default: the U-Net's own)")
      ->needs(flag)
      ->check(CLI::Range(1, 4096));
  app.add_option("--threads", asked.threads, "of that; 0: all cores")
      ->capture_default_str()
      ->needs(flag)
      ->check(CLI::Range(0, 1024));
  app.add_option("--component", component, "of a pipeline (default: unet)");
  app.add_option("--dtype", dtype,
                 "type of the folders' weights: float32, float16, bfloat16 (default: as they came)");
  app.add_flag("--other-model", anyway, "the plan may come from another model with the same sites");
  app.add_flag("--force", force, "replace the output folder");
  app.add_flag("-q,--quiet", quiet, "no progress");
  parse(app, argc, argv);
  const bool named = !plan_path.empty(), listed = !drop.empty();
  if ((named && listed) || (!named && !listed && !folds))
    fail("give either a plan file or --drop, or of a U-Net with mixed kernels --fold-gates");

  Terminal terminal({.quiet = quiet});
  const Found found = find_model(model, component);
  const Opened& opened = found.opened;
  Plan plan;
  if (listed) {
    plan = plan_from_list(drop, opened.blueprint);
    plan.provenance["method"] = "by hand";
  } else if (named) {
    plan = plan_from_json(parse_json(read_file(plan_path), plan_path.string()), plan_path.string());
    check_plan(plan, opened.blueprint);
    const std::string made_for =
        json_string_or(json_has(plan.provenance, "model") ? plan.provenance.at("model") : Json::object(),
                       "sha256", "", plan_path.string());
    if (!made_for.empty() && !anyway && made_for != opened.checkpoint.hash(terminal.watch())) {
      fail(
          "{}: was made for another model (sha256 {}...); add --other-model to cut this one by it all the "
          "same",
          plan_path.string(), made_for.substr(0, 12));
    }
  }
  if (!wiring.empty()) plan.provenance["wiring"] = wiring;
  asked.watch = terminal.watch();
  const FoldAnswer folded = folds ? folded_into(plan, opened, asked, fold) : FoldAnswer{};
  ExportOptions options = found.exporting(terminal.watch());
  if (!dtype.empty()) {
    options.dtype = dtype_from_name(dtype);
    if (!options.dtype || !is_floating(*options.dtype) || is_quantized(*options.dtype))
      fail("{} is no type to write weights in; float32, float16 and bfloat16 are", in_quotes(dtype));
  }
  const auto requests = forms.empty() ? default_forms(opened, plan) : parse_forms(forms);
  StagedFolder folder(out, {.replace = force, .inputs = {model, plan_path}});
  const auto written = write_forms(opened, plan, requests, folder.path(), options);
  write_file(folder.path() / "plan.json", to_json(plan).dump(2) + "\n");
  for (const Written& entry : written) {
    if (entry.request.form == Form::gguf) continue;
    report::ModelCard card = card_of(opened, plan, entry, command_line(argc, argv, "apply"));
    card.summary = done_by(plan, opened.blueprint.present().size()) +
                   (folded.said.empty() ? ". What that does to the model's answers was not measured here."
                                        : ". " + folded.said);
    write_file(folder.path() / entry.path / "README.md", report::to_markdown(card));
    if (entry.path != ".") write_file(folder.path() / entry.path / "plan.json", to_json(plan).dump(2) + "\n");
  }
  folder.commit();
  terminal.clear();
  std::string text = done_by(plan, opened.blueprint.present().size()) + ".\n";
  if (!folded.said.empty()) text += folded.said + "\n";
  for (const Written& entry : written) {
    text += fmt::format("{:<16} {}  {}  opens in: {}\n", entry.request.text(),
                        (folder.target() / entry.path).lexically_normal().string(),
                        human_bytes(entry.weight_bytes), entry.opens_in);
  }
  print(text);
  return Status::ok;
}

}  // namespace lamina::cli
