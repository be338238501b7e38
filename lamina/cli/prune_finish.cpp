// Where the results of prune go: plan.json, report.html and report.json, a model card in every folder, the
// terminal.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/prune_run.h"
#include "lamina/report/model_card.h"
#include "lamina/report/report.h"
#include "lamina/report/terminal.h"

namespace lamina::cli {

namespace fs = std::filesystem;
using report::Cell;
using report::Notation;

namespace {

std::string title_of(const PruneRun& run) {
  return fmt::format("{}: {} of {} sub-layers cut from {}", run.method.title, run.plan.edits.size(),
                     run.session.opened.blueprint.present().size(), model_name(run.session.opened));
}

const std::string& label_of(const PruneRun& run, const Step& step) {
  return run.evidence.units[static_cast<size_t>(step.unit)].label;
}

std::string protocol(const PerplexityOptions& options, const NamedText& text) {
  return fmt::format(
      "{}, windows of {} tokens, stride {}{}, float32", text.name, options.length, options.stride,
      options.max_tokens ? fmt::format(", first {} tokens", thousands(options.max_tokens)) : "");
}

// The smallest thing that was written; the file it is compared with is the one that came in.
const Written* smallest(const std::vector<Written>& written) {
  const auto it = std::ranges::min_element(written, {}, &Written::weight_bytes);
  return it == written.end() ? nullptr : &*it;
}

report::Verdict verdict_of(const PruneRun& run, const PruneOutcome& outcome,
                           const std::vector<Written>& written) {
  const Side &b = outcome.before, &a = outcome.after;
  using Better = report::Figure::Better;
  report::Verdict verdict;
  verdict.sentence = fmt::format(
      "{} of {} sub-layers are gone: {:.1f} % of the parameters and {:.1f} % of the key-value cache, for a "
      "held-out perplexity of {:.2f} where it was {:.2f}.",
      run.plan.edits.size(), run.session.opened.blueprint.present().size(),
      100.0 * (1 - static_cast<double>(a.parameters) / static_cast<double>(b.parameters)),
      b.kv_bytes ? 100.0 * (1 - static_cast<double>(a.kv_bytes) / static_cast<double>(b.kv_bytes)) : 0.0,
      a.heldout.value, b.heldout.value);
  verdict.figures = counted_figures(run.session.opened, run.plan, smallest(written));
  verdict.figures.push_back({.name = "Decoding speed",
                             .before = b.tokens_per_second,
                             .after = a.tokens_per_second,
                             .format = {Notation::significant, 3, "tokens/s"},
                             .better = Better::higher,
                             .measured = "greedy, float32, one core of this machine, after the prompt"});
  verdict.figures.push_back({.name = "Held-out perplexity",
                             .before = b.heldout.value,
                             .after = a.heldout.value,
                             .format = {Notation::significant, 3, ""},
                             .better = Better::lower,
                             .measured = protocol(outcome.headline, run.heldout),
                             .uncertainty = a.heldout.stderr_nll * a.heldout.value});
  return verdict;
}

report::Network network_of(const PruneRun& run) {
  const Blueprint& blueprint = run.session.opened.blueprint;
  std::vector<double> score(blueprint.parts.size(), report::not_measured);
  std::vector<int> step(blueprint.parts.size(), 0);
  const std::vector<Step>& steps = run.evidence.steps;
  if (!steps.empty()) {
    for (const Step::Candidate& c : steps.front().candidates) {
      for (Site site : run.evidence.units[static_cast<size_t>(c.unit)].sites)
        score[static_cast<size_t>(site.index)] = c.score;
    }
  }
  for (size_t k = 0; k < steps.size(); ++k) {
    for (Site site : run.evidence.units[static_cast<size_t>(steps[k].unit)].sites)
      step[static_cast<size_t>(site.index)] = static_cast<int>(k) + 1;
  }
  report::Network network{
      .title = "The stack, first block on top",
      .score_name = fmt::format("{} when it alone is cut (a lower bound where the search gave up early)",
                                run.options.metric),
      .format = {},
      .scale = report::Scale::logarithmic};
  for (size_t i = 0; i < blueprint.parts.size(); ++i) {
    const Part& part = blueprint.parts[i];
    if (network.blocks.empty() || network.blocks.back().name != std::to_string(part.block))
      network.blocks.push_back({.name = std::to_string(part.block)});
    const bool cut = step[i] > 0 || !part.present;
    network.blocks.back().parts.push_back(
        {.label = part.label(),
         .state = cut ? report::Part::State::cut : report::Part::State::kept,
         .score = score[i],
         .step = step[i],
         .note = part.present
                     ? fmt::format("{} parameters", thousands(blueprint.parameters({static_cast<int>(i)})))
                     : "gone before this run"});
  }
  return network;
}

report::Series main_curve(const PruneRun& run, const PruneOutcome& outcome) {
  report::Series series{
      .title = "Held-out perplexity against sub-layers removed",
      .x = {.name = "sub-layers removed", .format = report::whole()},
      .y = {.name = "held-out perplexity", .format = {}, .scale = report::Scale::logarithmic}};
  const auto points = [](const Curve& curve) {
    return std::vector<double>(curve.removed.begin(), curve.removed.end());
  };
  for (size_t i = 0; i < outcome.curves.size(); ++i) {
    series.curves.push_back({.name = outcome.curves[i].name,
                             .role = i == 0 ? report::Curve::Role::method : report::Curve::Role::baseline,
                             .x = points(outcome.curves[i]),
                             .y = outcome.curves[i].values});
  }
  if (!outcome.random.empty()) {
    report::Curve band{.name = fmt::format("Random ({} seeds)", outcome.random.size()),
                       .x = points(outcome.random[0])};
    for (size_t k = 0; k < band.x.size(); ++k) {
      double low = INFINITY, high = 0, sum = 0;
      for (const Curve& curve : outcome.random)
        low = std::min(low, curve.values[k]), high = std::max(high, curve.values[k]),
        sum += std::log(curve.values[k]);
      band.low.push_back(low);
      band.high.push_back(high);
      band.y.push_back(std::exp(sum / static_cast<double>(outcome.random.size())));
    }
    series.curves.push_back(std::move(band));
  }
  series.chosen = series.curves.front().x.back();
  series.note = fmt::format(
      "{}. The band is the smallest and the largest of the random seeds, its line their geometric mean.",
      protocol(outcome.curve, run.heldout));
  return series;
}

report::HeatMap heat_of(const PruneRun& run) {
  report::HeatMap heat{
      .title = "What every candidate would have cost, step by step",
      .column_axis = "candidate",
      .row_axis = "step",
      .value_name = run.options.metric,
      .format = {},
      .scale = report::Scale::logarithmic,
      .note = "A candidate that could no longer win was given up early; its value is then a lower bound."};
  for (const Unit& unit : run.evidence.units) heat.columns.push_back(unit.label);
  for (size_t k = 0; k < run.evidence.steps.size(); ++k) {
    const Step& step = run.evidence.steps[k];
    if (step.candidates.empty()) continue;
    heat.rows.push_back(std::to_string(k + 1));
    std::vector<report::HeatCell> row(run.evidence.units.size(), {.sort = report::HeatCell::Sort::absent});
    for (const Step::Candidate& c : step.candidates) {
      row[static_cast<size_t>(c.unit)] = {
          c.score, c.complete ? report::HeatCell::Sort::measured : report::HeatCell::Sort::bound,
          c.unit == step.unit};
    }
    heat.cells.insert(heat.cells.end(), row.begin(), row.end());
  }
  return heat;
}

report::Table steps_table(const PruneRun& run, const PruneOutcome& outcome) {
  using Kind = report::Column::Kind;
  report::Table table{
      .title = "In-sample score against held-out perplexity",
      .columns = {{.name = "step", .kind = Kind::number, .format = report::whole()},
                  {.name = "cut", .kind = Kind::label},
                  {.name = fmt::format("{} on calibration", run.options.metric), .kind = Kind::number},
                  {.name = "held-out perplexity", .kind = Kind::number}}};
  const Curve& curve = outcome.curves.front();
  for (size_t k = 0; k < run.evidence.steps.size(); ++k) {
    const Step& step = run.evidence.steps[k];
    double heldout = report::not_measured;
    int parts = 0;
    for (size_t j = 0; j <= k; ++j)
      parts +=
          static_cast<int>(run.evidence.units[static_cast<size_t>(run.evidence.steps[j].unit)].sites.size());
    if (const auto it = std::ranges::find(curve.removed, parts); it != curve.removed.end())
      heldout = curve.values[static_cast<size_t>(it - curve.removed.begin())];
    table.rows.push_back({.cells = {static_cast<double>(k + 1), label_of(run, step), step.score, heldout}});
  }
  table.note = "The score is measured on the text the cut was chosen by; held-out text was not seen.";
  return table;
}

report::Table baselines_table(const PruneRun& run, const PruneOutcome& outcome) {
  using Kind = report::Column::Kind;
  report::Table table{.title = "The same budget, or the next smaller one, by other means",
                      .columns = {{.name = "method", .kind = Kind::label},
                                  {.name = "sub-layers cut", .kind = Kind::number, .format = report::whole()},
                                  {.name = "held-out perplexity", .kind = Kind::number}}};
  for (size_t i = 0; i < outcome.curves.size(); ++i) {
    table.rows.push_back(
        {.cells = {outcome.curves[i].name, static_cast<double>(outcome.curves[i].removed.back()),
                   outcome.curves[i].values.back()},
         .mark = i == 0 ? "chosen" : ""});
  }
  for (size_t s = 0; s < outcome.random.size(); ++s)
    table.rows.push_back(
        {.cells = {fmt::format("Random, seed {}", s), static_cast<double>(outcome.random[s].removed.back()),
                   outcome.random[s].values.back()}});
  table.note = fmt::format("{}: a shorter protocol than that of the figures above, the same for every row.",
                           protocol(outcome.curve, run.heldout));
  return table;
}

report::Table samples_table(const PruneOutcome& outcome) {
  using Kind = report::Column::Kind;
  report::Table table{.title = "Greedy answers to fixed prompts",
                      .columns = {{.name = "prompt", .kind = Kind::prose},
                                  {.name = "before", .kind = Kind::prose},
                                  {.name = "after", .kind = Kind::prose}}};
  for (size_t i = 0; i < outcome.prompts.size(); ++i)
    table.rows.push_back(
        {.cells = {outcome.prompts[i], outcome.before.answers[i], outcome.after.answers[i]}});
  table.note = "The prompts are the same for every model and every cut; all of them are shown.";
  return table;
}

// Labels as text: "dog", " Dog".
std::string label_text(const PruneRun& run, const std::vector<atlas::Label>& labels) {
  std::string text;
  for (const atlas::Label& label : labels) {
    const int32_t id = label.token;
    text += fmt::format("{}{}", text.empty() ? "" : " ",
                        in_quotes(run.session.tokenizer.decode(std::span(&id, 1)), 40));
  }
  return text;
}

report::Section neurons_section(const PruneRun& run, const PruneOutcome& outcome) {
  using Kind = report::Column::Kind;
  report::Section section{.title = "Neurons that went with the feed-forwards", .elements = {}};
  if (outcome.lost.empty()) {
    section.elements.push_back(report::Text{.text = outcome.lost_note.empty()
                                                        ? "No feed-forward was cut, so no neuron went."
                                                        : outcome.lost_note});
    return section;
  }
  report::Table units{.title = "How much the neurons of each unit said",
                      .columns = {{.name = "unit", .kind = Kind::label},
                                  {.name = "neurons", .format = report::whole()},
                                  {.name = "median kurtosis", .format = {report::Notation::fixed, 2, ""}},
                                  {.name = "% above 4", .format = {report::Notation::fixed, 1, ""}}}};
  report::Table named{.title = "Those that said most",
                      .columns = {{.name = "neuron", .kind = Kind::label},
                                  {.name = "kurtosis", .format = {report::Notation::fixed, 1, ""}},
                                  {.name = "listens for", .kind = Kind::prose},
                                  {.name = "writes", .kind = Kind::prose}}};
  for (const neurons::LostPart& lost : outcome.lost) {
    const Part& part = run.session.opened.blueprint.part(lost.site);
    units.rows.push_back(
        {.cells = {part.label(), static_cast<double>(lost.neurons), lost.median_kurtosis, 100 * lost.above}});
    for (const auto& neuron : lost.labelled) {
      named.rows.push_back({.cells = {fmt::format("{}.{}", part.block, neuron.index), neuron.kurtosis,
                                      label_text(run, neuron.reads), label_text(run, neuron.writes)}});
    }
  }
  units.note =
      "The rows of the up projection read through the LM head; the kurtosis of their scores over the "
      "vocabulary "
      "is 3 for a normal distribution, and little more for directions at random.";
  named.note =
      "The first tokens of the up row and of the down column, each at its likelier end. One token does not "
      "make a "
      "neuron a concept.";
  section.elements.push_back(units);
  section.elements.push_back(named);
  return section;
}

report::Section how_section(const PruneRun& run, const PruneOutcome& outcome) {
  using Kind = report::Column::Kind;
  report::Table table{
      .title = "Settings and provenance",
      .columns = {{.name = "what", .kind = Kind::label}, {.name = "value", .kind = Kind::prose}}};
  const auto row = [&](std::string name, std::string value) {
    table.rows.push_back({.cells = {std::move(name), std::move(value)}});
  };
  for (const auto& [key, value] : run.plan.provenance.at("method").items())
    row(key, value.is_string() ? value.get<std::string>() : value.dump());
  row("model", fmt::format("{} (sha256 {})", model_name(run.session.opened), run.model_sha256));
  row("calibration", fmt::format("{}: {} samples of {} tokens (sha256 {})", run.calibration.name,
                                 run.samples.size(), run.samples[0].size(), run.calibration.sha256));
  row("held-out text", fmt::format("{} (sha256 {})", run.heldout.name, run.heldout.sha256));
  row("hardware", fmt::format("{}; {} worker{}", processor_name(), run.options.threads,
                              run.options.threads == 1 ? "" : "s"));
  report::Table time{
      .title = "Time by phase",
      .columns = {{.name = "phase", .kind = Kind::label},
                  {.name = "seconds", .kind = Kind::number, .format = {Notation::fixed, 1, "s"}}}};
  for (const auto& [phase, seconds] : outcome.seconds) time.rows.push_back({.cells = {phase, seconds}});
  report::Section section{.title = "How it was done", .elements = {table, time}, .folded = true};
  const Work& work = run.evidence.work;
  if (work.matrix_flops > 0 && run.gemm_flops > 0) {
    const double floor = work.matrix_flops / run.gemm_flops / static_cast<double>(run.options.threads);
    report::Table distance{
        .title = "Distance from the floor",
        .columns = {{.name = "what", .kind = Kind::label},
                    {.name = "value", .kind = Kind::number, .format = {Notation::significant, 3}}},
        .rows = {
            {.cells = {"TFLOP in matrix products", work.matrix_flops / 1e12}},
            {.cells = {"GFLOP/s of a matrix product of this shape, one core, same run",
                       run.gemm_flops / 1e9}},
            {.cells = {"seconds these products need at that speed", floor}},
            {.cells = {"seconds the search took", work.seconds}},
            {.cells = {"share of the search at matrix speed", floor / work.seconds}},
            {.cells = {"evaluations of a candidate on a sample", static_cast<double>(work.evaluations)}},
            {.cells = {"evaluations a naive search makes", static_cast<double>(work.full_evaluations)}}}};
    section.elements.push_back(distance);
  }
  return section;
}

std::vector<std::string> limits_of(const PruneOutcome& outcome) {
  std::vector<std::string> limits = {
      "A share of sub-layers is not a share of parameters, of time or of quality: read the figures above, "
      "not the count.",
      fmt::format(
          "FinerCut's published results (90 % of Llama-3-8B's performance with 25 % of its layers cut, 95 % "
          "of Llama-3-70B's with 30 %) are of models with 8 and 70 billion parameters; this one has {}, and "
          "small models have less to spare.",
          human_count(static_cast<double>(outcome.before.parameters))),
      "Perplexity and four prompts say little about reasoning, which suffers earlier; measure the task you "
      "need.",
  };
  for (size_t i = 1; i < outcome.curves.size(); ++i) {
    if (outcome.curves[i].removed.back() >= outcome.curves[0].removed.back() &&
        outcome.curves[i].values.back() < outcome.curves[0].values.back())
      limits.push_back(fmt::format("{} does better here at the same budget ({:.2f} against {:.2f}).",
                                   outcome.curves[i].name, outcome.curves[i].values.back(),
                                   outcome.curves[0].values.back()));
  }
  for (size_t s = 0; s < outcome.random.size(); ++s) {
    if (outcome.random[s].values.back() < outcome.curves[0].values.back())
      limits.push_back(
          fmt::format("Random cuts (seed {}) do better here ({:.2f}).", s, outcome.random[s].values.back()));
  }
  return limits;
}

report::Report report_of(const PruneRun& run, const PruneOutcome& outcome,
                         const std::vector<Written>& written) {
  report::Report report{.title = title_of(run),
                        .date = today(),
                        .version = std::string(version_of()),
                        .command = run.command,
                        .verdict = verdict_of(run, outcome, written),
                        .sections = {}};
  report.sections.push_back({.title = "The network", .elements = {network_of(run)}});
  report.sections.push_back({.title = "Quality against budget",
                             .elements = {main_curve(run, outcome), baselines_table(run, outcome)}});
  report::Section search{.title = "How the cut was chosen", .elements = {steps_table(run, outcome)}};
  if (const report::HeatMap heat = heat_of(run); !heat.rows.empty()) search.elements.push_back(heat);
  report.sections.push_back(std::move(search));
  report.sections.push_back({.title = "What to look at yourself", .elements = {samples_table(outcome)}});
  report.sections.push_back(neurons_section(run, outcome));
  report.sections.push_back(how_section(run, outcome));
  report.sections.push_back(
      {.title = "What does not hold",
       .elements = {report::Text{.text = fmt::format("{}", fmt::join(limits_of(outcome), "\n\n")),
                                 .form = report::Text::Form::list}}});
  report.sections.push_back(open_section(
      written, "This run wrote a plan and no model. `lamina apply MODEL plan.json -o OUT` writes one."));
  return report;
}

std::string measured_card(const PruneRun& run, const PruneOutcome& outcome, const Written& entry) {
  report::ModelCard card = card_of(run.session.opened, run.plan, entry, run.command);
  card.tags.emplace_back(run.method.name);
  const report::Verdict verdict = verdict_of(run, outcome, {entry});
  card.summary = verdict.sentence;
  card.figures = verdict.figures;
  card.metrics = {{.dataset_name = run.heldout.name,
                   .dataset = run.heldout.name,
                   .name = fmt::format("Perplexity (windows of {}, stride {})", outcome.headline.length,
                                       outcome.headline.stride),
                   .type = "perplexity",
                   .value = outcome.after.heldout.value}};
  card.limits = limits_of(outcome);
  return report::to_markdown(card);
}

}  // namespace

void finish(const PruneRun& run, const PruneOutcome& outcome, const std::vector<Written>& written,
            const fs::path& folder) {
  const std::string plan = to_json(run.plan).dump(2) + "\n";
  const report::Report report = report_of(run, outcome, written);
  const std::string html = report::to_html(report), json = report::to_json(report).dump(2) + "\n";
  // A folder may be moved away from the others: each is complete.
  std::set<fs::path> folders = {folder};
  for (const Written& entry : written) {
    if (entry.request.form == Form::gguf) continue;
    write_file(folder / entry.path / "README.md", measured_card(run, outcome, entry));
    folders.insert((folder / entry.path / "").parent_path());
  }
  for (const fs::path& each : folders) {
    write_file(each / "plan.json", plan);
    write_file(each / "report.html", html);
    write_file(each / "report.json", json);
  }
}

std::string summary_text(const PruneRun& run, const PruneOutcome& outcome,
                         const std::vector<Written>& written, const fs::path& target) {
  const report::Style style = style_of(STDOUT_FILENO);
  std::string text =
      title_of(run) + "\n\n" + report::terminal_verdict(verdict_of(run, outcome, written), style);
  text += "\nCut, in order:";
  for (const Step& step : run.evidence.steps) text += " " + label_of(run, step);
  text += "\n\n" + report::terminal_table(baselines_table(run, outcome), style);
  text += fmt::format("\n{}\n  before: {}\n  after:  {}\n\n", outcome.prompts[0], outcome.before.answers[0],
                      outcome.after.answers[0]);
  for (const Written& entry : written) {
    text += fmt::format("{:<12} {:>8}  {}\n{:<23}opens in {}\n", entry.request.text(),
                        human_bytes(entry.weight_bytes), (target / entry.path).lexically_normal().string(),
                        "", entry.opens_in);
  }
  for (const auto& [form, why] : outcome.refused) text += fmt::format("{:<12} not possible: {}\n", form, why);
  text += fmt::format("report       {}\nplan         {}\n", (target / "report.html").string(),
                      (target / "plan.json").string());
  std::string phases;
  for (const auto& [phase, seconds] : outcome.seconds)
    phases += fmt::format("{}{} {}", phases.empty() ? "" : ", ", phase, human_seconds(seconds));
  return text + "time         " + phases + "\n";
}

Json summary_json(const PruneRun& run, const PruneOutcome& outcome, const std::vector<Written>& written,
                  const fs::path& target) {
  Json json = report::to_json(report_of(run, outcome, written));
  json["plan"] = to_json(run.plan);
  json["written"] = Json::array();
  for (const Written& entry : written) {
    json["written"].push_back({{"form", entry.request.text()},
                               {"path", shown((target / entry.path).lexically_normal())},
                               {"weight_bytes", entry.weight_bytes}});
  }
  return json;
}

}  // namespace lamina::cli
