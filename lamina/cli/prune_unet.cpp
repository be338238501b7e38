// lamina prune PIPELINE: which parts of a denoiser matter least within the budgets, cut, and the pipeline
// written with what is left.
#include "lamina/cli/prune_unet.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "lamina/base/error.h"
#include "lamina/base/fields.h"
#include "lamina/base/hash.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/find_model.h"
#include "lamina/cli/session.h"
#include "lamina/report/terminal.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

constexpr const char* kWork = "search";  // what a run that was stopped leaves
constexpr const char* kUnet = "unet";

const std::vector<std::string>& denoiser_methods() {
  static const std::vector<std::string> names = {"laptop",          "asdm",  "bk-sdm", "magnitude", "taylor",
                                                 "block-influence", "random"};
  return names;
}

std::string criterion_of(const std::string& method, const std::string& asked) {
  const std::string own = method == "laptop" || method == "asdm" || method == "bk-sdm" ? "output"
                          : method == "block-influence"                                ? "influence"
                                                                                       : method;
  if (asked.empty() || asked == own || method == "laptop") return asked.empty() ? own : asked;
  if (method != "asdm")
    fail("--criterion {}: {} judges by its own ({}); laptop takes any", asked, method, own);
  // Cuts and windows are held against each other, so both have to have it.
  const laptop::Criterion criterion = laptop::criterion_from_name(asked);
  if (laptop::loss_of_plans(criterion) != criterion)
    fail("--criterion {}: asdm judges by output, time-weighted, clean or trajectory", asked);
  return asked;
}

// A-SDM-style plans have one budget, and what they do beside cutting no stock config says.
void check_asdm(const UnetOptions& options) {
  if (options.layout != "any")
    fail("--method asdm: what it does beside cutting has no stock config; leave --layout out");
  if (!options.params.empty() || options.macs.empty() == options.ms.empty())
    fail("--method asdm: has one budget; give --macs 78% or --ms 78%, not both, and no --params");
  if (const std::string& share = options.macs + options.ms; std::strtod(share.c_str(), nullptr) >= 100)
    fail("--method asdm: a budget of {} leaves nothing to do; less than 100 % is expected", share);
  windows_of(options);
  inheritance_of(options);
}

void check_options(const UnetOptions& options) {
  if (options.method == "asdm") check_asdm(options);
  if (options.method == "bk-sdm" && !(options.params + options.macs + options.ms).empty())
    fail("--method bk-sdm: cuts what --cut names, {}, and no budget changes that; laptop holds budgets",
         options.cut);
  const auto one_of = [](std::string_view flag, const std::string& value,
                         const std::vector<std::string>& known) {
    if (std::ranges::find(known, value) != known.end()) return;
    const auto meant = nearest(value, known);
    fail("--{} {}: is not known here{}; {} are", flag, in_quotes(value),
         meant ? fmt::format(" (was {} meant?)", *meant) : "", fmt::join(known, ", "));
  };
  one_of("method", options.method, denoiser_methods());
  one_of("solver", options.solver, {"dynamic", "exact", "greedy-loss", "greedy-ratio"});
  laptop::criterion_from_name(options.criterion);
  layout_from_name(options.layout);
}

// When a run ends early: keeps what it measured or drew, and says so.
struct KeptWork {
  StagedFolder& folder;
  const UnetJournal& journal;
  bool done = false;

  ~KeptWork() {
    std::error_code error;
    const auto files = std::distance(fs::directory_iterator(folder.path() / kWork, error), {});
    if (done || (journal.pieces() == 0 && files <= 1)) return;
    folder.keep();
    std::fputs("lamina: the work so far is kept; the same command with --resume goes on from it\n", stderr);
  }
};

// The denoiser as it is written: under its own config with the parts declared gone, or as a stock config
// says.
Checkpoint cut_checkpoint(const Subject& subject, const UnetOptions& options, const UnetFound& found,
                          const Plan& plan) {
  const Opened& opened = subject.opened();
  const auto layout = layout_from_name(options.layout);
  if (!layout) return apply(opened.checkpoint, opened.blueprint, plan);
  const unet::Expressed expressed =
      unet::express(opened.checkpoint.config, opened.blueprint,
                    laptop::sites_of(found.candidates, found.chosen.removed), *layout);
  if (!expressed.possible) fail("--layout {}: cannot say this cut: {}", options.layout, expressed.why);
  return unet::compacted(opened.checkpoint, expressed);
}

void write_cut(const Subject& subject, const Checkpoint& cut, const fs::path& folder, const std::string& plan,
               const Watch& watch) {
  const WriteOptions options{.dtype = {}, .watch = watch};
  if (subject.pipeline) {
    write_pipeline(*subject.pipeline, {{kUnet, &cut}}, folder,
                   {.write = options, .extra_files = {{"unet/plan.json", plan}}});
  } else {
    write_folder(cut, folder, options);
  }
  const fs::path written = subject.pipeline ? folder / kUnet : folder;
  check_equal(cut, open(written).checkpoint, options);
}

std::string card_text(const UnetRun& run, const report::Report& report, const fs::path& folder) {
  const bool cuts_alone =
      std::ranges::all_of(run.plan.edits, [](const Edit& edit) { return std::holds_alternative<Cut>(edit); });
  std::vector<std::string> limits = {
      "The change of single passes is not the quality of pictures, which take many: a cut denoiser wants to "
      "be healed before it is looked at."};
  if (run.options.layout == "any" && cuts_alone)
    limits.push_back(
        fmt::format("For diffusers: `lamina apply {} plan.json -o proof --export proof` makes the same "
                    "function with stock shapes, no smaller than the original.",
                    run.subject.name()));
  return denoiser_card(folder,
                       {.title = fmt::format("{}, {}", run.subject.name(),
                                             done_by(run.plan, run.subject.blueprint().present().size())),
                        .base_model = run.subject.name(),
                        .tags = {"pruned"},
                        .summary = report.verdict.sentence,
                        .figures = report.verdict.figures,
                        .plan = plan_lines(run.plan, run.subject.blueprint()),
                        .limits = std::move(limits),
                        .command = run.command});
}

std::string summary_text(const UnetRun& run, const report::Report& report, const fs::path& target) {
  const report::Style style = style_of(STDOUT_FILENO);
  std::string text = report::terminal_verdict(report.verdict, style);
  std::string labels;
  for (int i : run.found.chosen.removed)
    labels += fmt::format("{}{}", labels.empty() ? "" : " ",
                          run.subject.blueprint().part(run.found.candidates[static_cast<size_t>(i)]).label());
  text += fmt::format("\nCut: {}\nReport: {}\n", labels, shown(target / "report.html"));
  return text;
}

Json summary_json(const UnetRun& run, const report::Report& report, const fs::path& target) {
  Json json = {{"output", shown(target)}, {"removed", Json::array()}, {"figures", Json::object()}};
  for (const Edit& edit : run.plan.edits) {
    if (const auto* cut = std::get_if<Cut>(&edit)) json["removed"].push_back(cut->site);
  }
  if (!run.found.beside.empty()) json["edits"] = lamina::to_json(Plan{.edits = run.found.beside}).at("edits");
  for (const report::Figure& figure : report.verdict.figures)
    json["figures"][figure.name] = {{"before", figure.before}, {"after", figure.after}};
  json["seconds"] = Json::object();
  for (const auto& [phase, seconds] : run.found.seconds) json["seconds"][phase] = seconds;
  json["milliseconds_a_pass"] = run.found.times.whole;
  return json;
}

}  // namespace

bool names_denoiser(int argc, char** argv) {
  // Flags that only denoisers have.
  constexpr std::string_view own[] = {"--params",   "--macs",   "--ms",        "--pictures",
                                      "--captions", "--layout", "--criterion", "--scorer"};
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "-o" || word == "--output") {
      ++i;
    } else if (word == "--method" && i + 1 < argc) {
      // Methods of denoisers alone; the others are known by what is pruned.
      for (const char* name : {"laptop", "asdm", "bk-sdm", "taylor", "block-influence"})
        if (std::string_view(argv[i + 1]) == name) return true;
      ++i;
    } else if (std::ranges::find(own, word) != std::end(own)) {
      return true;  // so that a folder that is none is what is complained of
    } else if (!word.starts_with('-') && is_denoiser(word)) {
      return true;
    }
  }
  return false;
}

int run_prune_unet(int argc, char** argv) {
  CLI::App app(
      "Find the parts of a denoiser that matter least within budgets, cut them, and write the pipeline with "
      "what is "
      "left (after LAPTOP-Diff, arXiv 2404.11098).\n\n"
      "Example: lamina prune PIPELINE --method laptop --params 50% -o smaller\n"
      "         lamina prune PIPELINE --macs 75% --ms 80% --layout stock --captions captions.txt -o smaller\n"
      "A U-Net's own folder will do: it is then judged on normal numbers. Budgets say how much stays at "
      "most.\n"
      "Ctrl-C stops after the present piece of work; the same command with --resume goes on.",
      "prune");
  fs::path model, out, captions_file;
  UnetOptions options;
  bool resume = false, force = false, plan_only = false, quiet = false, json = false;
  app.add_option("PIPELINE", model, "folder of a diffusers pipeline, or of a U-Net")->required();
  app.add_option("-o,--output", out, "folder to write")->required();
  add_flags(app, options);
  app.add_option("--captions", captions_file, "a caption a line")->group("Data");
  app.add_flag("--resume", resume, "go on from where a stopped run of the same command was")->group("How");
  const char* result = "What is written";
  app.add_flag("--plan-only", plan_only, "plan and report, no model")->group(result);
  app.add_flag("--force", force, "replace the output folder")->group(result);
  app.add_flag("--json", json, "one object on stdout")->group(result);
  app.add_flag("-q,--quiet", quiet, "no progress");
  parse(app, argc, argv);

  options.threads = thread_count(static_cast<int>(options.threads));
  if (options.method == "asdm" && options.params.empty() && options.macs.empty() && options.ms.empty())
    options.macs = "78%";
  options.criterion = criterion_of(options.method, options.criterion);
  check_options(options);
  if (options.params.empty() && options.macs.empty() && options.ms.empty() && options.method != "bk-sdm")
    options.params = "50%";
  Terminal terminal({.quiet = quiet || json});
  const Watch watch = terminal.watch();
  StagedFolder folder(out, {.replace = force,
                            .resume = resume ? kWork : "",
                            .inputs = {model, captions_file, options.pictures_folder(), options.scorer}});
  if (fs::exists(model) && !is_denoiser(model))
    fail(
        "{}: is no diffusers pipeline (it has no model_index.json) and no U-Net's folder; its flags are for "
        "those",
        model.string());
  const Subject subject = open_subject(model, options);
  const std::vector<std::string> captions =
      captions_file.empty() ? std::vector<std::string>{} : captions_from(captions_file);
  if (subject.painter && captions.empty() && options.pictures == "drawn")
    fail(
        "--captions: a file with a caption a line is needed to draw samples; or --pictures scenes, or a "
        "folder of pictures");

  check_asked(subject, options);

  const std::string hash = subject.opened().checkpoint.hash(watch);
  Json identity = options_to_json(options);
  identity.erase("threads");
  identity["captions_sha256"] = captions_file.empty() ? "" : sha256_hex(read_file(captions_file));
  identity["model_sha256"] = hash;
  identity["version"] = version_text();
  fs::create_directories(folder.path() / kWork);
  UnetJournal journal(folder.path() / kWork / "journal.jsonl", identity, {.resume = resume});
  KeptWork kept{.folder = folder, .journal = journal};

  const UnetData samples = make_data(subject, options, captions, folder.path() / kWork, watch);
  const UnetFound found = find_cut(subject, samples, options, journal, watch);
  UnetRun run{
      .subject = subject,
      .data = samples,
      .options = options,
      .found = found,
      .plan = laptop::plan_of(subject.blueprint(), found.candidates, found.chosen.removed, found.values),
      .command = command_line(argc, argv, "prune")};
  for (const Edit& edit : found.beside) run.plan.edits.push_back(edit);
  run.plan.provenance = {{"lamina", version_text()},
                         {"method", options_to_json(options)},
                         {"model", {{"name", subject.name()}, {"sha256", hash}}},
                         {"calibration", {{"name", samples.scoring.source}, {"samples", options.samples}}}};
  // With it apply and lora-remap make of the plan what is written here.
  if (const auto layout = layout_from_name(options.layout))
    run.plan.provenance["wiring"] = layout->wiring == unet::Wiring::exact ? "exact" : "stock";
  else
    run.plan.provenance["form"] = "extended";
  const std::string plan = to_json(run.plan).dump(2) + "\n";
  if (!plan_only) {
    const Checkpoint cut = cut_checkpoint(subject, options, found, run.plan);
    write_cut(subject, cut, folder.path(), plan, watch);
    for (const auto& entry : fs::directory_iterator(subject.pipeline ? folder.path() / kUnet : folder.path()))
      if (entry.path().extension() == ".safetensors") run.weight_bytes += entry.file_size();
  }
  const report::Report report = report_of(run);
  write_file(folder.path() / "plan.json", plan);
  write_file(folder.path() / "scores.csv", scores_csv(run));
  write_file(folder.path() / "report.html", report::to_html(report));
  write_file(folder.path() / "report.json", report::to_json(report).dump(2) + "\n");
  if (!plan_only) write_file(folder.path() / "README.md", card_text(run, report, folder.path()));
  fs::remove_all(folder.path() / kWork);
  folder.commit();
  kept.done = true;
  terminal.clear();
  print(json ? summary_json(run, report, folder.target()).dump(2) + "\n"
             : summary_text(run, report, folder.target()));
  return Status::ok;
}

}  // namespace lamina::cli
