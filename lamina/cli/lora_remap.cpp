// lamina lora-remap: a LoRA of a model for the same model after a cut.
#include <fmt/format.h>

#include "lamina/base/error.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/find_model.h"
#include "lamina/export/lora.h"

namespace lamina::cli {

namespace fs = std::filesystem;

int run_lora_remap(int argc, char** argv) {
  CLI::App app(
      "Carry a LoRA of a U-Net over to the same U-Net after a cut: modules are renamed as the cut renamed "
      "them, what is gone is dropped.\n\nExample: lamina lora-remap style.safetensors plan.json --model "
      "PIPELINE -o style-cut.safetensors\n"
      "How what is left is wired stands in the plan (\"wiring\"); a plan by hand does not say it.",
      "lora-remap");
  fs::path lora, plan_path, model, out;
  std::string form, wiring;
  bool as_json = false;
  app.add_option("LORA", lora, "a .safetensors file")->required();
  app.add_option("PLAN", plan_path, "plan.json of the cut")->required();
  app.add_option("--model", model, "the model before the cut: pipeline or U-Net folder")->required();
  app.add_option("-o,--output", out, "file to write")->required();
  app.add_option("--form", form,
                 "what the cut model was written as (default: as the plan says, else compact)")
      ->check(CLI::IsMember({"compact", "proof", "extended"}));
  app.add_option("--wiring", wiring, "in place of the plan's: exact, or stock, as apply was told")
      ->check(CLI::IsMember({"exact", "stock"}));
  app.add_flag("--json", as_json, "one object on stdout");
  parse(app, argc, argv);

  const Found found = find_model(model);
  Plan plan = plan_from_json(parse_json(read_file(plan_path), plan_path.string()), plan_path.string());
  check_plan(plan, found.opened.blueprint);
  if (!wiring.empty()) plan.provenance["wiring"] = wiring;
  if (form.empty()) form = json_string_or(plan.provenance, "form", "compact", plan_path.string());
  for (const fs::path& input : {lora, plan_path})
    if (fs::exists(out) && fs::exists(input) && fs::equivalent(out, input))
      fail("{}: is read; name another file to write", out.string());
  if (fs::exists(out) &&
      std::string_view(fs::canonical(out).c_str()).starts_with(fs::canonical(model).string() + "/"))
    fail("{}: is a file of the model; name another file to write", out.string());
  const LoraReport report = remap_lora(lora, found.opened, plan, parse_forms(form)[0].form, out);
  if (as_json) {
    print(Json{{"kept", report.kept},
               {"renamed", report.renamed},
               {"dropped", report.dropped},
               {"other_tensors", report.beside}}
              .dump(2) +
          "\n");
    return Status::ok;
  }
  std::string text =
      fmt::format("{}: {} modules as they were, {} renamed, {} dropped, {} other tensors\n", shown(out),
                  report.kept.size(), report.renamed.size(), report.dropped.size(), report.beside);
  for (const std::string& name : report.dropped) text += "  dropped " + name + "\n";
  print(text);
  return Status::ok;
}

}  // namespace lamina::cli
