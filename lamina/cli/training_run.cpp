#include "lamina/cli/training_run.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/heal/adapter.h"
#include "lamina/models/registry.h"
#include "lamina/report/chart.h"
#include "lamina/report/model_card.h"

namespace lamina::cli {

namespace fs = std::filesystem;
using report::Notation;

namespace {

struct Outcome {
  Trained trained;
  std::optional<Evaluation> before, after;
  std::vector<std::string> prompts, answers_before, answers_after;
  std::vector<Written> written;
  int64_t parameters = 0, learning = 0;  // numbers in the model, and those that were trained
  double seconds = 0;
  int64_t tokens = 0;
  uint64_t peak = 0;  // bytes of memory
  Estimate needs = {};
};

uint64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return 1024 * static_cast<uint64_t>(usage.ru_maxrss);
}

// The mean of the first or the last tenth of the steps: one step alone says little.
double tenth(const std::vector<StepRecord>& curve, size_t first, size_t count) {
  double sum = 0;
  for (size_t i = first; i < first + count; ++i) sum += curve[i].loss;
  return sum / static_cast<double>(count);
}

std::string steps_of(int64_t steps) {
  return fmt::format("{} step{}", thousands(steps), steps == 1 ? "" : "s");
}

report::Verdict verdict_of(const TrainingJob& job, const Outcome& outcome) {
  using Better = report::Figure::Better;
  const std::vector<StepRecord>& curve = outcome.trained.curve;
  const size_t some = std::max<size_t>(1, curve.size() / 10);
  const double first = tenth(curve, 0, some), last = tenth(curve, curve.size() - some, some);
  report::Verdict verdict;
  const std::string learnt =
      outcome.learning == outcome.parameters
          ? fmt::format("all {} parameters", human_count(static_cast<double>(outcome.parameters)))
          : fmt::format("{} parameters beside the {} of the model",
                        human_count(static_cast<double>(outcome.learning)),
                        human_count(static_cast<double>(outcome.parameters)));
  verdict.sentence =
      outcome.before && outcome.after
          ? fmt::format(
                "{} over {} tokens took the loss on text that was held out from {:#.4g} to {:#.4g} nats a "
                "token; {} were trained.",
                steps_of(std::ssize(curve)), thousands(outcome.tokens), outcome.before->loss,
                outcome.after->loss, learnt)
          : fmt::format(
                "{} over {} tokens took the training loss from {:#.4g} to {:#.4g} nats a token; nothing was "
                "held out; {} were trained.",
                steps_of(std::ssize(curve)), thousands(outcome.tokens), first, last, learnt);
  if (outcome.trained.broke_at > 0)
    verdict.sentence += fmt::format(" At step {} {} was not a number, and the run ended there.",
                                    outcome.trained.broke_at, outcome.trained.broke_on);
  if (outcome.before && outcome.after) {
    verdict.figures.push_back({.name = "Validation loss",
                               .before = outcome.before->loss,
                               .after = outcome.after->loss,
                               .format = {Notation::significant, 4, "nats"},
                               .better = Better::lower,
                               .measured = job.data.validation_said});
    verdict.figures.push_back({.name = "Validation perplexity",
                               .before = std::exp(outcome.before->loss),
                               .after = std::exp(outcome.after->loss),
                               .format = {Notation::significant, 4, ""},
                               .better = Better::lower,
                               .measured = "of the same samples, each from its first token on"});
  }
  verdict.figures.push_back(
      {.name = "Training loss",
       .before = first,
       .after = last,
       .format = {Notation::significant, 4, "nats"},
       .better = Better::lower,
       .measured = some == 1 ? "the first step and the last"
                             : fmt::format("means of the first {0} steps and the last {0}", some)});
  verdict.figures.push_back({.name = "Tokens learnt from",
                             .after = static_cast<double>(outcome.tokens),
                             .format = {Notation::scaled, 3},
                             .measured = job.data.train_said});
  verdict.figures.push_back({.name = "Parameters trained",
                             .after = static_cast<double>(outcome.learning),
                             .format = {Notation::scaled, 3},
                             .measured = fmt::format("the model has {}", thousands(outcome.parameters))});
  verdict.figures.push_back({.name = "Time",
                             .after = outcome.seconds,
                             .format = {Notation::significant, 3, "s"},
                             .measured = "of the steps alone, on " + processor_name()});
  return verdict;
}

std::vector<std::string> limits_of(const TrainingJob& job, const Outcome& outcome) {
  std::vector<std::string> limits;
  if (!outcome.after)
    limits.emplace_back(
        "No text was held out: that the training loss fell shows that these samples were learnt, "
        "and nothing more.");
  else
    limits.emplace_back(
        "The loss was measured on one text that was held out; on other text it may have risen.");
  limits.emplace_back(
      "One run with one seed; another seed gives other numbers, and how far apart they lie was not "
      "measured.");
  if (job.data.train && outcome.tokens > 2 * job.data.train_tokens)
    limits.push_back(fmt::format(
        "The text was seen {:.1f} times over; what is repeated is remembered before it is understood.",
        static_cast<double>(outcome.tokens) / static_cast<double>(job.data.train_tokens)));
  if (outcome.trained.broke_at > 0)
    limits.push_back(fmt::format("The run ended before its time: at step {} {} was not a number.",
                                 outcome.trained.broke_at, outcome.trained.broke_on));
  limits.insert(limits.end(), job.limits.begin(), job.limits.end());
  return limits;
}

report::Report report_of(const TrainingJob& job, const Outcome& outcome) {
  report::Report report{
      .title = fmt::format("{}, {}", job.title, steps_of(std::ssize(outcome.trained.curve))),
      .date = today(),
      .version = std::string(version_of()),
      .command = job.command,
      .verdict = verdict_of(job, outcome),
      .sections = {}};
  const Arm arm{.name = "train", .trained = outcome.trained};
  report.sections.push_back(curve_section(std::span(&arm, 1)));
  report.sections.push_back(
      {.title = "What to look at yourself",
       .elements = {answers_table(outcome.prompts, outcome.answers_before, outcome.answers_after)}});
  Settings rows = job.settings;
  for (auto& row : settings_of(job.options)) rows.push_back(std::move(row));
  rows.emplace_back("learnt from", job.data.train_said);
  rows.emplace_back("held out", job.data.validation_said.empty() ? "nothing" : job.data.validation_said);
  rows.emplace_back("hardware", processor_name());
  rows.emplace_back("memory", fmt::format("at most {}; about {} were expected", human_bytes(outcome.peak),
                                          human_bytes(outcome.needs.memory)));
  if (outcome.trained.resumed_from > 0)
    rows.emplace_back("went on",
                      fmt::format("from step {} of an earlier process", outcome.trained.resumed_from));
  for (const std::string& note : outcome.trained.notes) rows.emplace_back("note", note);
  report.sections.push_back({.title = "How it was done", .elements = {settings_table(rows)}, .folded = true});
  report.sections.push_back(
      {.title = "What does not hold",
       .elements = {report::Text{.text = fmt::format("{}", fmt::join(limits_of(job, outcome), "\n\n")),
                                 .form = report::Text::Form::list}}});
  report.sections.push_back(open_section(outcome.written, "This run wrote no model."));
  return report;
}

std::string card_text(const TrainingJob& job, const Outcome& outcome, const Opened& after,
                      const Written& entry) {
  report::ModelCard card = card_of(after, Plan{}, entry, job.command);
  const report::Verdict verdict = verdict_of(job, outcome);
  card.title = job.card_title;
  card.base_model = job.base_model;
  card.tags = {job.base_model.empty() ? "trained" : "healed"};
  card.summary = verdict.sentence;
  card.figures = verdict.figures;
  if (outcome.after)
    card.metrics = {{.dataset_name = "held-out text",
                     .dataset = "held-out text",
                     .name = fmt::format("Perplexity (samples of {})", job.data.length),
                     .type = "perplexity",
                     .value = std::exp(outcome.after->loss)}};
  card.limits = limits_of(job, outcome);
  return report::to_markdown(card);
}

void write_reports(const TrainingJob& job, const Outcome& outcome, const Opened& after,
                   const fs::path& folder) {
  const report::Report report = report_of(job, outcome);
  const std::string html = report::to_html(report), json = report::to_json(report).dump(2) + "\n";
  std::set<fs::path> folders = {folder};  // each may be moved away from the others
  for (const Written& entry : outcome.written) {
    if (entry.request.form == Form::gguf) continue;
    write_file(folder / entry.path / "README.md", card_text(job, outcome, after, entry));
    folders.insert((folder / entry.path / "").parent_path());
  }
  for (const fs::path& each : folders) {
    write_file(each / "report.html", html);
    write_file(each / "report.json", json);
  }
}

std::string summary_text(const TrainingJob& job, const Outcome& outcome, const fs::path& target) {
  const report::Style style = style_of(STDOUT_FILENO);
  const Arm arm{.name = "train", .trained = outcome.trained};
  std::string text = fmt::format(
      "{}, {}\n\n{}\n{}\n{}\n  before: {}\n  after:  {}\n\n", job.title,
      steps_of(std::ssize(outcome.trained.curve)), report::terminal_verdict(verdict_of(job, outcome), style),
      report::terminal_chart(loss_series(std::span(&arm, 1)), style), outcome.prompts[0],
      in_quotes(outcome.answers_before[0], 200), in_quotes(outcome.answers_after[0], 200));
  for (const Written& entry : outcome.written)
    text += fmt::format("{:<12} {:>8}  {}\n{:<23}opens in {}\n", entry.request.text(),
                        human_bytes(entry.weight_bytes), (target / entry.path).lexically_normal().string(),
                        "", entry.opens_in);
  if (!job.adapter_base.empty())
    text += fmt::format("{:<12} {:>8}  {}\n", "adapter", "", (target / "adapter").string());
  text += fmt::format("report       {}\ncurve        {}\n", (target / "report.html").string(),
                      (target / "curve.jsonl").string());
  return text + fmt::format("time         {}, at most {} of memory\n", human_seconds(outcome.seconds),
                            human_bytes(outcome.peak));
}

Json summary_json(const TrainingJob& job, const Outcome& outcome, const fs::path& target) {
  Json json = report::to_json(report_of(job, outcome));
  json["training"] = curve_json(outcome.trained);
  json["training"]["resumed_from"] = outcome.trained.resumed_from;
  json["training"]["broke_at"] = outcome.trained.broke_at;
  json["training"]["broke_on"] = outcome.trained.broke_on;
  json["data"] = job.data.provenance;
  json["written"] = Json::array();
  for (const Written& entry : outcome.written)
    json["written"].push_back({{"form", entry.request.text()},
                               {"path", shown((target / entry.path).lexically_normal())},
                               {"weight_bytes", entry.weight_bytes}});
  return json;
}

}  // namespace

int run_training(Group& group, TrainingFolder& folder, Terminal& terminal, TrainingJob job) {
  const bool first = group.rank() == 0;
  const TrainOptions options = folder.with_state(job.options);
  const ExportOptions exporting{.dtype = job.weights, .watch = terminal.watch()};
  std::vector<FormRequest> forms = job.forms.empty() ? default_forms(job.opened, Plan{}) : job.forms;
  for (const FormRequest& request : forms) {  // before hours are spent on it
    if (const Answer answer = can_write(request.form, job.opened, Plan{}); !answer.possible)
      fail("--export {}: is not possible for this model: {}", request.text(), answer.note);
  }
  const Estimate needs = estimate({.blueprint = job.opened.blueprint,
                                   .options = options,
                                   .length = job.data.length,
                                   .lora = job.student.lora ? &*job.student.lora : nullptr,
                                   .bytes_a_number = job.student.dtype == at::kDouble ? 8 : 4,
                                   .written = bytes_needed(job.opened, Plan{}, forms, exporting)},
                                  folder.path());
  check(needs, folder.path());

  Student student(std::move(job.opened), job.student);
  std::unique_ptr<Objective> objective =
      job.teacher ? distillation(job.teacher, job.distil) : cross_entropy();
  Outcome outcome;
  outcome.needs = needs;
  outcome.parameters = student.opened().blueprint.parameters();
  for (const Parameter& parameter : student.parameters()) outcome.learning += parameter.value.numel();

  Follow follow(terminal, options, {.log = folder.log(), .quiet = !first});
  const Watch watch = follow.watch();
  Tap none;
  // Answers are made where any model runs.
  const auto answers = [&] {
    if (job.student.device.is_cpu())
      return answers_of(student.model(), student.opened(), job.tokenizer, watch);
    const Opened here = student.now();
    return answers_of(*build_model(here), here, job.tokenizer, watch);
  };
  if (first) {
    group.at("measuring what the model is like before");
    outcome.prompts = prompts_for(job.tokenizer);
    watch.report({"before", 0, 0, ""});
    if (watch.stop.stop_requested()) throw Stopped{};
    if (job.data.validation)
      outcome.before =
          evaluate(student.model(), *job.data.validation, job.validation_samples, options.batch, none);
    outcome.answers_before = answers();
  }
  Hook hook;
  outcome.trained = train(student, *objective, job.data.parts(job.validation_samples), options, hook, group,
                          watch, follow.on_step());
  const Trained& trained = outcome.trained;
  if (trained.curve.empty())
    fail("step {}: {} is not a number, so that nothing was learnt; are the weights and the data sound?",
         trained.broke_at, trained.broke_on);
  const bool broke = trained.broke_at > 0;
  if (!first) return broke ? Status::failed : Status::ok;

  if (job.data.validation) {
    if (!trained.evaluations.empty() && trained.evaluations.back().step == std::ssize(trained.curve))
      outcome.after = trained.evaluations.back();
    else
      outcome.after =
          evaluate(student.model(), *job.data.validation, job.validation_samples, options.batch, none);
    outcome.after->step = std::ssize(trained.curve);
    outcome.trained.evaluations.insert(outcome.trained.evaluations.begin(), *outcome.before);
    if (broke) outcome.trained.evaluations.push_back(*outcome.after);
  }
  for (const StepRecord& record : trained.curve) {
    outcome.seconds += record.seconds;
    outcome.tokens += record.tokens;
  }
  watch.report({"after", 0, 0, ""});
  outcome.answers_after = answers();
  follow.finish(outcome.trained);

  const Opened after = student.now();
  outcome.written = write_forms(after, Plan{}, forms, folder.path(), exporting);
  if (!job.adapter_base.empty()) write_adapter(student, job.adapter_base, folder.path() / "adapter");
  outcome.peak = peak_memory();
  write_reports(job, outcome, after, folder.path());
  folder.commit();
  terminal.clear();
  print(job.json ? summary_json(job, outcome, folder.target()).dump(2) + "\n"
                 : summary_text(job, outcome, folder.target()));
  if (!broke) return Status::ok;
  std::fputs(
      fmt::format(
          "lamina: step {}: {} was not a number; {} holds the weights after step {}; a lower --lr or a "
          "longer --warmup may help\n",
          trained.broke_at, trained.broke_on, folder.target().string(), std::ssize(trained.curve))
          .c_str(),
      stderr);
  return Status::failed;
}

}  // namespace lamina::cli
