// lamina analyse: what is measured of models with and without norms, side by side.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/staging.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/session.h"
#include "lamina/eval/analyses.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// As asked, or the folders' names, numbered where two are alike.
std::vector<std::string> names_of(const std::string& list, const std::vector<fs::path>& models,
                                  const std::vector<Opened>& opened) {
  std::vector<std::string> names;
  if (!list.empty()) {
    for (const std::string& name : split(list, ',')) names.emplace_back(trim(name));
    if (names.size() != models.size())
      fail("--names {}: has {} names for {} models", in_quotes(list), names.size(), models.size());
    if (std::set(names.begin(), names.end()).size() != names.size() ||
        std::ranges::find(names, "") != names.end())
      fail("--names {}: every model needs a name of its own", in_quotes(list));
    return names;
  }
  for (const Opened& one : opened) {
    const std::string name = model_name(one);
    std::string fresh = name;
    for (int number = 2; std::ranges::find(names, fresh) != names.end(); ++number)
      fresh = fmt::format("{} ({})", name, number);
    names.push_back(fresh);
  }
  return names;
}

report::Verdict verdict_of(const std::vector<Arm>& arms) {
  const Analyses &first = arms.front().analyses, &last = arms.back().analyses;
  const bool one = arms.size() == 1;
  const auto figure = [&](std::string name, double before, double after, report::Format format,
                          report::Figure::Better better, std::string measured) {
    return report::Figure{.name = std::move(name),
                          .before = one ? report::not_measured : before,
                          .after = after,
                          .format = std::move(format),
                          .better = better,
                          .measured = std::move(measured)};
  };
  using Better = report::Figure::Better;
  const std::string tokens = fmt::format("on {} tokens", thousands(first.calibration.tokens));
  report::Verdict verdict;
  if (one) {
    verdict.sentence =
        fmt::format("{}: {:.4f} nats a token.", arms.front().name, first.calibration.cross_entropy);
  } else {
    const Estimate moved = paired_difference(first.calibration.by_sample, last.calibration.by_sample);
    verdict.sentence =
        fmt::format("{} against {}: {:+.4f} nats a token", arms.back().name, arms.front().name, moved.value);
    if (std::isfinite(moved.low))
      verdict.sentence += fmt::format(" (95 % interval {:+.4f} to {:+.4f})", moved.low, moved.high);
    verdict.sentence += ".";
  }
  for (const std::string& warning : analysis_warnings(arms)) verdict.sentence += " " + warning + ".";
  verdict.figures = {
      figure("Cross-entropy", first.calibration.cross_entropy, last.calibration.cross_entropy,
             {report::Notation::fixed, 4, "nats"}, Better::lower, tokens),
      figure("Entropy", first.calibration.entropy, last.calibration.entropy,
             {report::Notation::fixed, 4, "nats"}, Better::neither, tokens),
      figure("Calibration error", first.calibration.error, last.calibration.error,
             {report::Notation::fixed, 4}, Better::lower, tokens),
      figure("DLA against DE", 100 * first.attribution.head_mean, 100 * last.attribution.head_mean,
             {report::Notation::significant, 3, "%"}, Better::neither, "mean over heads")};
  if (first.strange && last.strange)
    verdict.figures.push_back(figure("Largest loss out of domain", first.strange->most, last.strange->most,
                                     {report::Notation::significant, 3, "nats"}, Better::lower,
                                     fmt::format("on {} tokens", thousands(first.strange->tokens))));
  return verdict;
}

// The report's tables say all; a terminal has 80 columns.
std::vector<report::Table> short_tables(const std::vector<Arm>& arms) {
  using report::Column;
  const Column name{.name = "model", .kind = Column::Kind::label};
  const report::Format nats{report::Notation::fixed, 4}, percent{report::Notation::significant, 3, "%"};
  report::Table identities{
      .title = "Identities: zero to rounding where the last norm is frozen or gone",
      .columns = {name,
                  {.name = "DLA/DE, heads", .format = percent},
                  {.name = "DLA/DE, all", .format = percent},
                  {.name = "neurons' scale effect", .format = {report::Notation::significant, 3, "nats"}}}};
  report::Table loss{.title = "Findings",
                     .columns = {name,
                                 {.name = "loss", .format = nats},
                                 {.name = "entropy", .format = nats},
                                 {.name = "ECE", .format = nats},
                                 {.name = "sinks", .format = percent},
                                 {.name = "patching", .format = {}}}};
  report::Table tails{
      .title = "Largest losses, nats",
      .columns = {
          name, {.name = "text"}, {.name = "99.9 %"}, {.name = "out of domain"}, {.name = "unseen tokens"}}};
  for (const Arm& arm : arms) {
    const Analyses& a = arm.analyses;
    double scale = 0;
    for (const NeuronEffects::Neuron& neuron : a.neurons.neurons)
      scale = std::max(scale, std::abs(neuron.total.cross_entropy - neuron.frozen.cross_entropy));
    identities.rows.push_back(
        {.cells = {arm.name, 100 * a.attribution.head_mean, 100 * a.attribution.global.value, scale}});
    loss.rows.push_back({.cells = {arm.name, a.calibration.cross_entropy, a.calibration.entropy,
                                   a.calibration.error, 100 * a.sinks.queries.value,
                                   a.patching.pairs > 0 ? report::Cell(a.patching.error) : report::Cell()}});
    tails.rows.push_back({.cells = {arm.name, a.text.most, a.text.permille,
                                    a.strange ? report::Cell(a.strange->most) : report::Cell(),
                                    a.unseen ? report::Cell(a.unseen->most) : report::Cell()}});
  }
  return {identities, loss, tails};
}

}  // namespace

int run_analyse(int argc, char** argv) {
  CLI::App app(
      "Models side by side, as they are measured with and without norms: direct logit attribution against "
      "direct effect, confidence neurons, attention sinks, attribution patching, calibration, tails of the "
      "loss.\n\n"
      "Example: lamina analyse ORIGINAL FINE-TUNED NORM-FREE --text heldout.txt -o report\n"
      "In this order the report says what fine-tuning did and what the removal did.",
      "analyse");
  std::vector<fs::path> models;
  fs::path text, strange, out;
  std::string names, target = "next", dtype = "float32";
  AnalysisDataOptions data_options;
  AnalysisOptions options;
  int threads = 1;
  bool json = false, quiet = false, force = false;
  app.add_option("MODEL", models, "folders or GGUF files that read the same tokens")->required();
  app.add_option("--text", text, "a UTF-8 file (default: the embedded held-out text)");
  app.add_option("--ood", strange,
                 "a text unlike it (default: control characters, tabs and random characters, made here)");
  app.add_option("--names", names, "of the models in the tables, comma-separated");
  app.add_option("--samples", data_options.samples, "texts cut from the file")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app.add_option("--length", data_options.length, "tokens in each")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20));
  app.add_option("--pairs", data_options.pairs, "pairs of prompts for attribution patching; 0: none")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 16));
  app.add_option("--target", target,
                 "of the attribution: the next token, or last-input, the last one read, as the paper's code "
                 "has it")
      ->capture_default_str()
      ->check(CLI::IsMember({"next", "last-input"}));
  app.add_option("--neurons", options.neurons.top, "confidence neurons held at their mean")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app.add_option("--sink-threshold", options.sinks.threshold, "attention that makes position 0 a sink")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--seed", data_options.seed, "of what is drawn")->capture_default_str();
  app.add_option("--dtype", dtype, "float32 or float64")->capture_default_str();
  app.add_option("--threads", threads, "threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_option("-o,--output", out, "a folder for report.html and report.json");
  app.add_flag("--force", force, "replace an existing folder");
  app.add_flag("--json", json, "one object on stdout");
  app.add_flag("-q,--quiet", quiet, "no progress");
  parse(app, argc, argv);
  if (target == "last-input") options.attribution.target = AttributionOptions::Target::last_input;

  Terminal terminal({.quiet = quiet || json});
  const Watch watch = terminal.watch();
  const NamedText source = text.empty() ? embedded_heldout() : text_from(text);
  const NamedText other = strange.empty() ? NamedText{"made here", "", ""} : text_from(strange);
  std::vector<Opened> opened;
  for (const fs::path& model : models) opened.push_back(open(model));
  const std::vector<std::string> arm_names = names_of(names, models, opened);
  for (size_t m = 0; m < opened.size(); ++m) {
    if (opened[m].blueprint.vocabulary != opened[0].blueprint.vocabulary)
      fail("{} has {} tokens and {} has {}; models side by side read the same ones", shown(models[m]),
           opened[m].blueprint.vocabulary, shown(models[0]), opened[0].blueprint.vocabulary);
    data_options.length = std::min(data_options.length, opened[m].blueprint.context);
  }
  std::optional<StagedFolder> folder;
  if (!out.empty()) folder.emplace(out, StagedFolder::Options{.replace = force, .inputs = models});

  std::vector<Arm> arms;
  std::optional<AnalysisData> data;
  for (size_t m = 0; m < models.size(); ++m) {
    const Session session = open_session(models[m], {.dtype = dtype, .threads = thread_count(threads)});
    AnalysisData own =
        analysis_data(source.text, other.text, session.tokenizer, *session.model, data_options);
    if (!data)
      data = std::move(own);
    else if (own.text != data->text)
      fail("{} reads other tokens than {}; models side by side share a tokenizer", shown(models[m]),
           shown(models[0]));
    Watch named = watch;
    if (watch.tick)
      named.tick = [&](Tick tick) {
        if (models.size() > 1) tick.phase = arm_names[m] + ": " + tick.phase;
        watch.tick(tick);
      };
    Tap none;
    arms.push_back({arm_names[m], analyse(*session.model, *data, options, none, named)});
  }

  report::Report report{.title = arms.size() == 1 ? "Analyses of " + arms[0].name
                                                  : fmt::format("{} models side by side", arms.size()),
                        .date = today(),
                        .version = std::string(version_of()),
                        .command = command_line(argc, argv, "analyse"),
                        .verdict = verdict_of(arms),
                        .sections = analysis_sections(arms)};
  report::Table read{.title = "What was read",
                     .columns = {{.name = "text", .kind = report::Column::Kind::label},
                                 {.name = "samples", .format = report::whole()},
                                 {.name = "tokens each", .format = report::whole()},
                                 {.name = "sha256", .kind = report::Column::Kind::code}},
                     .rows = {{.cells = {source.name, std::ssize(data->text), std::ssize(data->text[0]),
                                         source.sha256.substr(0, 16)}},
                              {.cells = {"out of domain: " + other.name, std::ssize(data->strange),
                                         std::ssize(data->strange[0]), other.sha256.substr(0, 16)}}},
                     .note = fmt::format("{}; the same tokens for all models.", dtype)};
  report.sections.push_back({.title = "Data", .elements = {std::move(read)}});
  report::check(report);

  Json record = {{"text", source.name},
                 {"text_sha256", source.sha256},
                 {"out_of_domain", other.name},
                 {"dtype", dtype},
                 {"samples", std::ssize(data->text)},
                 {"length", std::ssize(data->text[0])},
                 {"warnings", analysis_warnings(arms)}};
  record["prompts"] = Json::array();
  for (const PromptPair& pair : data->pairs) {
    record["prompts"].push_back({{"clean", pair.clean},
                                 {"corrupted", pair.corrupted},
                                 {"answer", pair.answer},
                                 {"other", pair.other}});
  }
  record["models"] = Json::array();
  for (size_t m = 0; m < arms.size(); ++m) {
    Json one = to_json(arms[m].analyses);
    one["name"] = arms[m].name;
    one["model"] = shown(models[m]);
    record["models"].push_back(std::move(one));
  }
  if (folder) {
    write_file(folder->path() / "report.html", report::to_html(report));
    write_file(folder->path() / "report.json", report::to_json(report).dump(2) + "\n");
    write_file(folder->path() / "analyses.json", record.dump(2) + "\n");
    folder->commit();
  }
  terminal.clear();
  if (json) {
    print(record.dump(2) + "\n");
    return Status::ok;
  }
  const report::Style style = style_of(STDOUT_FILENO);
  std::string said;
  for (const report::Table& table : short_tables(arms)) said += report::terminal_table(table, style) + "\n";
  for (const std::string& warning : analysis_warnings(arms)) said += "warning: " + warning + "\n";
  said += fmt::format("{} samples of {} tokens of {}; out of domain: {}; {}\n", data->text.size(),
                      data->text[0].size(), source.name, other.name, dtype);
  if (folder) said += fmt::format("report  {}\n", shown(folder->target() / "report.html"));
  print(said);
  return Status::ok;
}

}  // namespace lamina::cli
