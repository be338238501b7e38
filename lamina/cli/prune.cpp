// lamina prune: find what matters least, cut it, write what is left, and show what changed.
#include <fmt/format.h>

#include <cstdio>

#include "lamina/base/error.h"
#include "lamina/base/fields.h"
#include "lamina/base/hash.h"
#include "lamina/base/staging.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/prune_run.h"
#include "lamina/cli/prune_unet.h"
#include "lamina/cli/session.h"
#include "lamina/data/text_set.h"
#include "lamina/export/export.h"
#include "lamina/methods/registry.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// "8" or "25%" of the units.
int64_t remove_count(const std::string& text, const Blueprint& blueprint, const std::string& units) {
  const auto count = static_cast<int64_t>(units_of(blueprint, units_from_name(units)).size());
  const bool percent = text.ends_with('%');
  const std::string digits = percent ? text.substr(0, text.size() - 1) : text;
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  if (digits.empty() || *end != '\0' || !(value > 0) ||
      (!percent && (value != std::floor(value) || value > 1e9)) || (percent && value >= 100)) {
    fail("--remove {}: a whole number of units or a share such as 25% is expected", in_quotes(text));
  }
  return percent ? std::max<int64_t>(
                       1, static_cast<int64_t>(std::floor(static_cast<double>(count) * value / 100 + 1e-9)))
                 : static_cast<int64_t>(value);
}

std::optional<double> freeze_share(const std::string& text) {
  if (text.empty()) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const bool percent = *end == '%' && end[1] == '\0';
  if (end == text.c_str() || (!percent && *end != '\0') || !(value >= 0) || value >= (percent ? 100 : 1)) {
    fail("--freeze {}: a share such as 40% is expected", in_quotes(text));
  }
  return percent ? value / 100 : value;
}

constexpr const char* kJournal = "search.jsonl";

// The journal of a search: its identity in the first line, then a step a line.
class Journal {
 public:
  Journal(fs::path path, Json identity) : path_(std::move(path)), identity_(std::move(identity)) {}

  // The steps of an earlier run. Throws Error with the difference when it was another search.
  std::vector<Step> resume() {
    std::vector<Step> steps;
    if (!fs::exists(path_)) return steps;
    const std::vector<std::string> lines = split(read_file(path_), '\n');
    const Json was = parse_json(lines[0], path_.string());
    for (const auto& [key, value] : identity_.items()) {
      if (!was.contains(key) || was.at(key) != value) {
        fail(
            "the unfinished search was made with {} {}, this one with {}; run it as it was, or without "
            "--resume to start again",
            key, was.contains(key) ? was.at(key).dump() : "unset", value.dump());
      }
    }
    for (size_t i = 1; i < lines.size(); ++i) {
      if (trim(lines[i]).empty()) continue;
      if (i + 1 == lines.size()) break;  // a line without its end was being written when the run died
      const Json line = parse_json(lines[i], path_.string());
      Step step{.unit = line.at("unit").get<int>(),
                .score = line.at("score").get<double>(),
                .candidates = {},
                .seconds = line.at("seconds").get<double>()};
      for (const Json& c : line.at("candidates"))
        step.candidates.push_back({c[0].get<int>(), c[1].get<double>(), c[2].get<bool>()});
      steps.push_back(std::move(step));
    }
    return steps;
  }

  void open(const std::vector<Step>& done) {
    text_ = identity_.dump() + "\n";
    for (const Step& step : done) append(step);
    if (done.empty()) write_file(path_, text_);
  }

  void append(const Step& step) {
    Json line = {
        {"unit", step.unit}, {"score", step.score}, {"seconds", step.seconds}, {"candidates", Json::array()}};
    for (const Step::Candidate& c : step.candidates)
      line["candidates"].push_back({c.unit, c.score, c.complete});
    text_ += line.dump() + "\n";
    write_file(path_, text_);
  }

 private:
  fs::path path_;
  Json identity_;
  std::string text_;
};

// Says, when a run ends early, that nothing of its search is lost.
struct KeptNotice {
  bool search = false;
  ~KeptNotice() {
    if (search)
      std::fputs("lamina: the search so far is kept; the same command with --resume goes on from it\n",
                 stderr);
  }
};

}  // namespace

int run_prune(int argc, char** argv) {
  if (names_denoiser(argc, argv)) return run_prune_unet(argc, argv);
  CLI::App app(
      "Find the parts of a model that matter least, cut them, and write a smaller model.\n\n"
      "Example: lamina prune SmolLM2-135M-Instruct.Q4_1.gguf -o smaller --remove 8\n"
      "         lamina prune MODEL -o OUT --method shortgpt --remove 25% --export hf-compact\n"
      "A diffusers pipeline or a U-Net's folder has flags of its own: lamina prune --method laptop --help\n"
      "Ctrl-C stops after the present piece of work; the same command with --resume goes on.",
      "prune");
  fs::path model, out, calibration, heldout;
  MethodOptions method;
  std::string remove = "8", units, forms, freeze, dtype, baselines = "quick";
  int64_t samples = 10, length = 256;
  int threads = 1;
  bool plan_only = false, no_measure = false, resume = false, force = false, quiet = false, json = false;
  app.add_option("MODEL", model, "folder or GGUF file")->required();
  app.add_option("-o,--output", out, "folder to write")->required();
  std::string list;
  for (const Method& m : methods()) list += fmt::format("{}{}", list.empty() ? "" : ", ", m.name);
  app.add_option("--method", method.method, list)->capture_default_str()->group("What is cut");
  app.add_option("--remove", remove, "units to cut, a number or a share (25%)")
      ->capture_default_str()
      ->group("What is cut");
  app.add_option("--units", units, "both, attention, mlp, block (default: the method's own)")
      ->group("What is cut");
  app.add_option("--metric", method.metric,
                 "jsd, ag (as FinerCut's public code computes), kl, ppl, norm, angular")
      ->capture_default_str()
      ->group("What is cut");
  app.add_option("--freeze", freeze,
                 "FinerCut's closed front, as a share of the units (its code: 40%; default: none)")
      ->group("What is cut");
  app.add_option("--seed", method.seed, "for the method random")->capture_default_str()->group("What is cut");
  app.add_option("--calibration", calibration, "UTF-8 text (default: the embedded one)")->group("Data");
  app.add_option("--heldout", heldout, "UTF-8 text for the before and after (default: the embedded one)")
      ->group("Data");
  app.add_option("--samples", samples, "calibration samples")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000))
      ->group("Data");
  app.add_option("--length", length, "tokens in each")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 20))
      ->group("Data");
  app.add_option("--search", method.search, "cached, naive, one-shot")->capture_default_str()->group("How");
  app.add_option("--threads", threads, "workers, each on one core; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024))
      ->group("How");
  app.add_option("--baselines", baselines,
                 "measured beside the method: none, quick (random x3, shortgpt, last), all (blockpruner too)")
      ->capture_default_str()
      ->check(CLI::IsMember({"none", "quick", "all"}))
      ->group("How");
  app.add_flag("--resume", resume, "go on from where a stopped run of the same command was")->group("How");
  app.add_option("--export", forms,
                 "hf-compact, hf-zeroed, hf-perlayer, gguf, gguf:f16, gguf:f32, gguf:q8_0; comma-separated")
      ->group("What is written");
  app.add_option("--dtype", dtype,
                 "type of the folders' weights: float32, float16, bfloat16 (default: as they came)")
      ->group("What is written");
  app.add_flag("--plan-only", plan_only, "write plan and report, no model")->group("What is written");
  app.add_flag("--no-measure", no_measure,
               "no before and after, no report: the plan alone (needs --plan-only)")
      ->group("What is written");
  app.add_flag("--force", force, "replace the output folder")->group("What is written");
  app.add_flag("--json", json, "one object on stdout")->group("What is written");
  app.add_flag("-q,--quiet", quiet, "no progress");
  parse(app, argc, argv);

  if (no_measure && !plan_only) fail("--no-measure goes with --plan-only: a model is not written unmeasured");
  Terminal terminal({.quiet = quiet || json});
  const Watch watch = terminal.watch();
  const Method& chosen = method_by_name(method.method);
  method.units = units.empty() ? std::string(chosen.default_units) : units;
  if (chosen.fixed_units && method.units != chosen.default_units)
    fail("--units {}: {} cuts {}s and nothing else", method.units, chosen.title, chosen.default_units);
  if (chosen.score.empty()) {
    metric_from_name(method.metric);
  } else {
    // What is not used is refused, so that no plan says that it was.
    if (app.count("--metric") > 0 && method.metric != chosen.score)
      fail("--metric {}: {} judges by its own score ({})", method.metric, chosen.title, chosen.score);
    if (!freeze.empty()) fail("--freeze {}: only finercut has a closed front", freeze);
    method.metric = chosen.score;
  }
  search_from_name(method.search);
  method.freeze = freeze_share(freeze);
  method.threads = thread_count(threads);
  ExportOptions export_options{.dtype = {}, .watch = watch};
  if (!dtype.empty()) {
    export_options.dtype = dtype_from_name(dtype);
    if (!export_options.dtype || !is_floating(*export_options.dtype) || is_quantized(*export_options.dtype))
      fail("--dtype {}: float32, float16 and bfloat16 are possible", in_quotes(dtype));
  }
  const std::vector<FormRequest> asked = forms.empty() ? std::vector<FormRequest>{} : parse_forms(forms);
  StagedFolder folder(
      out, {.replace = force, .resume = resume ? kJournal : "", .inputs = {model, calibration, heldout}});
  const Session session = open_session(model, {});
  method.remove = remove_count(remove, session.opened.blueprint, method.units);
  const NamedText text = calibration.empty() ? embedded_calibration() : text_from(calibration);
  const auto ids = calibration_samples(text.text, session.tokenizer,
                                       {.samples = samples, .length = length, .what = text.name});
  const std::string hash = session.opened.checkpoint.hash(watch);

  Json identity = options_to_json(method);
  identity.erase("threads");
  identity["freeze"] = method.freeze ? Json(*method.freeze) : Json();
  identity["samples"] = samples;
  identity["length"] = length;
  identity["model_sha256"] = hash;
  identity["calibration_sha256"] = text.sha256;
  identity["version"] = version_text();
  Journal journal(folder.path() / kJournal, identity);
  const std::vector<Step> done = resume ? journal.resume() : std::vector<Step>{};
  journal.open(done);

  if (length > session.opened.blueprint.context)
    fail("--length {}: this model was made for {} tokens", length, session.opened.blueprint.context);
  for (const FormRequest& request : asked) {  // before hours are spent on a plan for it
    const Answer answer = can_write(request.form, session.opened, {});
    if (!answer.possible && asked.size() == 1)
      fail("--export {}: is not possible for this model: {}", request.text(), answer.note);
  }
  KeptNotice kept;
  const double gemm_flops = gemm_speed(*session.model, length);
  const Proposal proposal =
      chosen.propose({*session.model, session.opened.checkpoint, ids}, method,
                     {.watch = watch, .done = done, .on_step = [&](const Step& step) {
                        journal.append(step);
                        kept.search = true;
                        folder.keep();  // from here to the end there is something to resume
                      }});
  PruneRun run{.session = session,
               .method = chosen,
               .options = method,
               .plan = proposal.plan,
               .evidence = proposal.evidence,
               .samples = ids,
               .calibration = text,
               .heldout = heldout.empty() ? embedded_heldout() : text_from(heldout),
               .command = command_line(argc, argv, "prune"),
               .model_sha256 = hash,
               .baselines = baselines,
               .gemm_flops = gemm_flops,
               .watch = watch};
  run.plan.provenance = {
      {"lamina", version_text()},
      {"method", options_to_json(method)},
      {"model", {{"name", shown(model.filename())}, {"sha256", hash}}},
      {"calibration",
       {{"name", text.name}, {"sha256", text.sha256}, {"samples", samples}, {"length", length}}}};
  const Work& work = proposal.evidence.work;
  run.plan.provenance["work"] = {{"seconds", work.seconds},
                                 {"matrix_flops", work.matrix_flops},
                                 {"gemm_flops_a_second", gemm_flops},
                                 {"evaluations", work.evaluations},
                                 {"naive_evaluations", work.full_evaluations},
                                 {"threads", method.threads}};
  run.plan.provenance["method"]["freeze"] = method.freeze ? Json(*method.freeze) : Json();

  if (no_measure) {
    write_file(folder.path() / "plan.json", to_json(run.plan).dump(2) + "\n");
    fs::remove(folder.path() / kJournal);
    folder.commit();
    kept.search = false;
    return Status::ok;
  }
  PruneOutcome outcome = measure(run);
  std::vector<Written> written;
  if (!plan_only) {
    // A form asked for that this plan cannot take is named and left out; the plan was not known when it was
    // asked for.
    std::vector<FormRequest> possible;
    for (const FormRequest& request : asked.empty() ? default_forms(session.opened, run.plan) : asked) {
      const Answer answer = can_write(request.form, session.opened, run.plan);
      if (answer.possible)
        possible.push_back(request);
      else
        outcome.refused.emplace_back(request.text(), answer.note);
    }
    if (possible.empty())
      fail("none of the forms asked for is possible: {}: {}", outcome.refused[0].first,
           outcome.refused[0].second);
    written = write_forms(session.opened, run.plan, possible, folder.path(), export_options);
  }
  finish(run, outcome, written, folder.path());
  fs::remove(folder.path() / kJournal);
  folder.commit();
  kept.search = false;
  terminal.clear();
  print(json ? summary_json(run, outcome, written, folder.target()).dump(2) + "\n"
             : summary_text(run, outcome, written, folder.target()));
  return Status::ok;
}

}  // namespace lamina::cli
