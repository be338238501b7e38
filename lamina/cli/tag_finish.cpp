// What becomes of `lamina tag train` when all runs are done: the chosen model, written and opened again, its
// report and its card.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/tag_train.h"
#include "lamina/heal/adapter.h"
#include "lamina/models/registry.h"
#include "lamina/report/model_card.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

constexpr size_t kExamplesInOrder = 20, kWorstExamples = 4;

std::vector<label::Tags> gold_of(const std::vector<label::Sentence>& sentences) {
  std::vector<label::Tags> tags;
  for (const label::Sentence& sentence : sentences) tags.push_back(sentence.tags);
  return tags;
}

// The first sentences with an entity in them, and those with the most faults: none is chosen for its answer.
std::vector<TagExample> examples_of(const std::vector<label::Sentence>& sentences,
                                    const std::vector<label::Tags>& said,
                                    const std::vector<label::Mistake>& mistakes) {
  std::vector<std::vector<label::Mistake>> of(sentences.size());
  for (const label::Mistake& mistake : mistakes) of[static_cast<size_t>(mistake.sentence)].push_back(mistake);
  std::vector<size_t> shown;
  const auto has_entity = [](const label::Tags& tags) {
    return std::ranges::any_of(tags, [](const std::string& tag) { return tag != "O"; });
  };
  for (size_t i = 0; i < sentences.size() && shown.size() < kExamplesInOrder; ++i) {
    if (has_entity(sentences[i].tags) || has_entity(said[i])) shown.push_back(i);
  }
  std::vector<size_t> worst;
  for (size_t i = 0; i < sentences.size(); ++i) {
    if (!of[i].empty() && std::ranges::find(shown, i) == shown.end()) worst.push_back(i);
  }
  std::ranges::stable_sort(worst, std::greater<>(), [&](size_t i) { return of[i].size(); });
  worst.resize(std::min(worst.size(), kWorstExamples));
  shown.insert(shown.end(), worst.begin(), worst.end());
  std::vector<TagExample> examples;
  for (size_t i : shown) {
    label::Sentence sentence = sentences[i];
    sentence.rows.clear();
    examples.push_back({.sentence = std::move(sentence), .said = said[i], .mistakes = of[i]});
  }
  return examples;
}

struct Made {
  Opened model;  // as it is written, or as the adapter makes it
  std::vector<Written> written = {};
  fs::path adapter = {};  // relative to OUT; empty: none was written
};

void write_curves(const TagJob& job, const fs::path& folder) {
  fs::create_directories(folder);
  for (size_t a = 0; a < job.arms.size(); ++a) {
    size_t i = 0;
    for (const TagRun& run : job.runs) {
      if (run.arm != a) continue;
      const unmask::RunResult& result = job.arms[a].runs.at(i++);
      std::string text;
      const auto add = [&](const Trained& trained, const char* phase) {
        for (const StepRecord& record : trained.curve) {
          Json line = record_json(record);
          if (phase) line["phase"] = phase;
          text += line.dump() + "\n";
        }
      };
      if (result.adapted) add(*result.adapted, "adaptation");
      add(result.trained, nullptr);
      write_file(folder / (run.name + ".jsonl"), text);
    }
  }
}

// How the folder is used, in a shell and, where stock classes compute the same, in Python.
report::Section open_section(const TagJob& job, const Made& made, const fs::path& target) {
  const std::string where = shown(target);
  std::string code;
  if (job.flags.adapter_only) {
    code = fmt::format(
        "lamina tag predict {0} --model {1} < text\nlamina tag eval {0} --model {1} --data test.conll\n",
        where, shown(job.flags.model));
  } else {
    code = fmt::format("lamina tag predict {0} < text\nlamina tag eval {0} --data test.conll\n", where);
  }
  std::string text =
      made.model.blueprint.causal()
          ? "Its blocks keep their causal mask, so that transformers' class for token classification "
            "computes "
            "the same; words go in one by one, with a space in front."
          : "Some of its blocks look right, which transformers' classes cannot be told: the model type in "
            "config.json is one that they refuse, and lamina runs it.";
  if (!made.adapter.empty())
    text += fmt::format(
        " The adapter in {} opens in peft, whose base then keeps its causal mask everywhere: "
        "the plan is in lamina_tagger.json.",
        made.adapter == "." ? "this folder" : "adapter/");
  return {.title = "Open it elsewhere",
          .elements = {report::Text{.text = std::move(text)},
                       report::Text{.text = std::move(code), .form = report::Text::Form::code}}};
}

std::string card_text(const TagJob& job, const TagOutcome& outcome, const Made& made,
                      const report::Verdict& verdict) {
  const TagArm& arm = outcome.arms[outcome.chosen];
  report::ModelCard card;
  if (made.written.empty()) {
    card.base_model = job.base_name;
    card.library = "peft";
    card.version = std::string(version_of());
    card.date = today();
    card.command = job.command;
  } else {
    card = card_of(made.model, Plan{}, made.written.front(), job.command);
    card.base_model = job.base_name;
    card.openings.clear();
    if (!made.model.blueprint.causal()) card.library.clear();
  }
  card.title = outcome.title;
  card.tags = {"token-classification", "named-entity-recognition"};
  card.pipeline = "token-classification";
  card.summary = verdict.sentence;
  card.figures = verdict.figures;
  const bool tested = !job.flags.test.empty();
  const fs::path& set = tested ? job.flags.test : job.flags.dev;
  card.metrics = {{.task = "token-classification",
                   .dataset_name = shown(set.filename()),
                   .dataset = shown(set.filename()),
                   .name = "F1 of entities, strict",
                   .type = "f1",
                   .value = outcome.score.all.f1()}};
  card.plan = {fmt::format("mask plan {}: {}", arm.mask.name, looks_right(arm.mask.blocks))};
  if (arm.repeat > 0) card.plan.push_back(fmt::format("every sentence is fed {} times over", arm.repeat + 1));
  if (made.model.blueprint.causal() && !made.written.empty())
    card.openings.push_back(
        {.tool = "transformers",
         .checked = "",
         .code = "from transformers import AutoModelForTokenClassification, AutoTokenizer\nmodel = "
                 "AutoModelForTokenClassification.from_pretrained(\".\")\ntokenizer = "
                 "AutoTokenizer.from_pretrained(\".\")",
         .language = "python"});
  card.openings.push_back(
      {.tool = "lamina",
       .checked = "opened again, and its tags compared with those of the run",
       .code = job.flags.adapter_only
                   ? fmt::format("lamina tag predict . --model {} < text", shown(job.flags.model))
                   : "lamina tag predict . < text",
       .language = "sh"});
  card.limits = outcome.warnings;
  if (!tested)
    card.limits.emplace_back("There was no test set: the development set chose the run and gives its score.");
  return report::to_markdown(card);
}

Made write_model(const TagJob& job, const RunFiles& files, const TagRun& run, const Opened& classifier,
                 const fs::path& folder, const Watch& watch) {
  const fs::path kept = files.kept_at(run.name);
  if (!files.kept(run.name))
    fail("{}: what the chosen run learnt is not there any more; start again without --resume", kept.string());
  const bool adapter = fs::exists(kept / "adapter_config.json") && run.options.adaptation.steps == 0;
  const Opened whole = with_kept(classifier, kept);
  Made made{.model = whole};
  if (adapter) {
    made.adapter = job.flags.adapter_only ? "." : "adapter";
    const fs::path to = folder / made.adapter;
    fs::create_directories(to);
    Json config = parse_json(read_file(kept / "adapter_config.json"), kept.string());
    config["base_model_name_or_path"] = shown(job.flags.model);
    write_file(to / "adapter_config.json", config.dump(2) + "\n");
    fs::copy_file(kept / "adapter_model.safetensors", to / "adapter_model.safetensors",
                  fs::copy_options::overwrite_existing);
    write_tagger_note({.base = job.base_name,
                       .base_sha256 = job.base_sha256,
                       .labels = job.data.labels,
                       .blocks = job.base.blueprint.blocks,
                       .unmasked = run.options.mask.blocks,
                       .feeding = run.options.feeding},
                      to);
  }
  if (job.flags.adapter_only) return made;
  made.model = in_types_of(whole, job.base, job.weights);
  made.written = write_forms(made.model, Plan{}, default_forms(made.model, Plan{}), folder,
                             {.dtype = job.weights, .watch = watch});
  return made;
}

// The chosen run's tags once more, by what was written.
struct Reopened {
  unmask::MaskTest mask;
  std::vector<label::Tags> said;
  std::vector<unmask::Span> spans;
};
Reopened reopen(const TagJob& job, const TagRun& run, const fs::path& folder, const Watch& watch,
                const std::vector<label::Sentence>& sentences, const std::vector<unmask::Window>& windows) {
  OpenedTagger opened = open_tagger({.path = folder,
                                     .base = job.flags.adapter_only ? job.flags.model : fs::path(),
                                     .any_base = job.flags.adapter_only},
                                    watch);
  const unmask::Tagger tagger(std::move(opened.opened), std::move(opened.tokenizer),
                              {.dtype = run.options.dtype});
  Reopened found{.mask = tagger.tested(), .said = {}, .spans = {}};
  for (unmask::Tagger::Tagged& tagged : tagger.tag(sentences, watch))
    found.said.push_back(std::move(tagged.tags));
  found.spans = unmask::attention_spans(tagger.model(), windows, run.options.feeding.repeat,
                                        unmask::pad_of(job.tokenizer));
  return found;
}

int64_t differing(const std::vector<label::Tags>& a, const std::vector<label::Tags>& b) {
  int64_t count = 0;
  for (size_t s = 0; s < a.size(); ++s) {
    for (size_t w = 0; w < a[s].size(); ++w) count += a[s][w] != b[s][w] ? 1 : 0;
  }
  return count;
}

std::string summary_text(const TagOutcome& outcome, const report::Report& report, const Made& made,
                         const fs::path& target) {
  const report::Style style = style_of(STDOUT_FILENO);
  std::string text =
      fmt::format("\n{}\n\n{}\n", outcome.title, report::terminal_verdict(report.verdict, style));
  if (outcome.arms.size() > 1) text += report::terminal_table(tag_table(outcome), style) + "\n";
  for (const Written& entry : made.written)
    text += fmt::format("{:<12} {:>8}  {}\n", entry.request.text(), human_bytes(entry.weight_bytes),
                        (target / entry.path).lexically_normal().string());
  if (!made.adapter.empty())
    text +=
        fmt::format("{:<12} {:>8}  {}\n", "adapter", "", (target / made.adapter).lexically_normal().string());
  text += fmt::format("report       {}\nuse it       lamina tag predict {}\n",
                      (target / "report.html").string(), target.string());
  return text;
}

}  // namespace

int finish_tagging(TagJob& job, const RunFiles& files, TrainingFolder& folder, Terminal& terminal) {
  const Watch watch = terminal.watch();
  const TagChoice choice = choice_of(job.arms);
  const TagArm& arm = job.arms[choice.arm];
  size_t place = 0, nth = 0;
  for (size_t r = 0; r < job.runs.size(); ++r) {
    if (job.runs[r].arm == choice.arm && nth++ == choice.run) place = r;
  }
  const TagRun& run = job.runs[place];
  const unmask::RunResult& result = arm.runs[choice.run];
  watch.report({"write", 0, 0, ""});

  const Opened classifier =
      masked_classifier(job.base, job.data.labels, run.options.feeding, run.options.mask);
  const Made made = write_model(job, files, run, classifier, folder.path(), watch);
  const bool tested = !job.flags.test.empty();
  const std::vector<label::Sentence>& sentences = tested ? job.data.test : job.data.dev;
  const std::vector<unmask::Window> windows = looked_at(job, run);

  TagOutcome outcome{.model = job.base_name,
                     .title = fmt::format("{} as a tagger, mask plan {}", job.base_name, arm.name),
                     .command = job.command,
                     .labels = job.data.labels,
                     .blocks = job.base.blueprint.blocks,
                     .arms = job.arms,
                     .chosen = choice.arm,
                     .chosen_run = choice.run,
                     .searched = std::ranges::count(job.arms, false, &TagArm::probe) > 1,
                     .train_sentences = std::ssize(job.data.train),
                     .dev_sentences = std::ssize(job.data.dev),
                     .test_sentences = std::ssize(job.data.test),
                     .split_sentences = job.split_sentences,
                     .feeding = run.options.feeding,
                     .settings = job.settings,
                     .warnings = job.warnings};
  if (!run.options.from_scratch)
    outcome.before = unmask::attention_spans(*build_model(classifier, {.dtype = run.options.dtype}), windows,
                                             run.options.feeding.repeat, unmask::pad_of(job.tokenizer));
  const Reopened reopened = reopen(job, run, folder.path(), watch, sentences, windows);
  outcome.after = reopened.spans;
  outcome.mask_test = reopened.mask;
  const std::vector<label::Tags> gold = gold_of(sentences);
  outcome.score = label::score(gold, reopened.said, label::Scheme::iob2, label::Reading::strict);
  outcome.mistakes = label::mistakes(gold, reopened.said, label::Scheme::iob2, label::Reading::strict);
  outcome.examples = examples_of(sentences, reopened.said, outcome.mistakes);
  const int64_t other = differing(tested ? result.test_tags : result.dev_tags, reopened.said);
  outcome.settings.emplace_back(
      "opened again", fmt::format("{} of {} tags are those of the run",
                                  thousands(outcome.score.words - other), thousands(outcome.score.words)));
  if (other > 0)
    outcome.warnings.push_back(fmt::format(
        "What was written, rounded to its type, gives {} of {} words another tag than the run had: "
        "F1 {:.2f} for {:.2f}.",
        thousands(other), thousands(outcome.score.words), 100 * outcome.score.all.f1(),
        100 * (tested ? *result.test : *result.dev).all.f1()));
  const bool broke = result.trained.broke_at > 0;
  if (broke)
    outcome.warnings.push_back(fmt::format("The run ended before its time: at step {} {} was not a number.",
                                           result.trained.broke_at, result.trained.broke_on));
  for (const std::string& note : result.trained.notes) outcome.settings.emplace_back("note", note);

  report::Report report = tag_report(outcome);
  report.sections.push_back(open_section(job, made, folder.target()));
  Json results = tag_json(outcome);
  write_file(folder.path() / "report.html", report::to_html(report));
  write_file(folder.path() / "report.json", report::to_json(report).dump(2) + "\n");
  write_file(folder.path() / "results.json", results.dump(2) + "\n");
  write_file(folder.path() / "README.md", card_text(job, outcome, made, report.verdict));
  write_curves(job, folder.path() / "curves");
  folder.commit();
  terminal.clear();
  if (job.training.json) {
    results["folder"] = shown(folder.target());
    results["adapter"] =
        made.adapter.empty() ? Json() : Json(shown((folder.target() / made.adapter).lexically_normal()));
    print(results.dump(2) + "\n");
  } else {
    print(summary_text(outcome, report, made, folder.target()));
  }
  if (!broke) return Status::ok;
  std::fputs(fmt::format("lamina: step {}: {} was not a number; {} holds the weights of the step before; a "
                         "lower --lr or a longer --warmup may help\n",
                         result.trained.broke_at, result.trained.broke_on, folder.target().string())
                 .c_str(),
             stderr);
  return Status::failed;
}

}  // namespace lamina::cli
