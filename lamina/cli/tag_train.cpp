// lamina tag train: a token classifier out of a causal language model, with the causal mask gone from some of
// its blocks; several plans and seeds side by side, and the best one written.
#include "lamina/cli/tag_train.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "lamina/base/error.h"
#include "lamina/base/fields.h"
#include "lamina/base/hash.h"
#include "lamina/base/staging.h"
#include "lamina/base/text.h"
#include "lamina/cli/session.h"
#include "lamina/report/chart.h"

namespace lamina::cli {

namespace fs = std::filesystem;
using unmask::Learns;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void add_tag_flags(CLI::App& app, TagFlags& flags) {
  app.add_option("MODEL", flags.model, "causal language model: folder or GGUF file")->required();
  app.add_option("-o,--output", flags.out, "folder to write")->required();
  const char* data = "Data";
  app.add_option("--train", flags.train, "sentences to learn from: a word and its tag a line, CoNLL")
      ->required()
      ->group(data);
  app.add_option("--dev", flags.dev, "sentences that the best plan and run are chosen by")
      ->required()
      ->group(data);
  app.add_option("--test", flags.test, "sentences that nothing is chosen by")->group(data);
  add_conll_flags(app, flags.conll);
  app.add_option("--length", flags.length,
                 "tokens in a window; longer sentences are split into windows that overlap (default: 128, or "
                 "what the model's context allows)")
      ->check(CLI::Range(4, 1 << 20))
      ->group(data);
  app.add_option("--answer", flags.answer, "the token of a word that its tag is read from: first, last")
      ->capture_default_str()
      ->group(data);
  const char* what = "What is compared";
  app.add_option("--mask", flags.masks,
                 "which blocks look right: a bit a group, the leftmost nearest the input (0011), from:16, "
                 "blocks:8-15, middle, none, all; several times: several plans (default: the upper half)")
      ->allow_extra_args(false)
      ->group(what);
  app.add_option("--search", flags.groups, "all plans of so many groups (default: 4)")
      ->expected(0, 1)
      ->check(CLI::Range(1, 8))
      ->group(what);
  app.add_option("--repeat", flags.repeats,
                 "copies of a sentence in front of the one that is tagged; several times: several arms")
      ->allow_extra_args(false)
      ->check(CLI::Range(0, 64))
      ->group(what);
  app.add_flag("--probe", flags.probe, "an arm more: a classifier alone on the model as it came")
      ->group(what);
  app.add_option("--probe-lr", flags.probe_rate, "its learning rate")->capture_default_str()->group(what);
  app.add_option("--seeds", flags.seeds, "runs of each arm, from --seed on (default: 1; of several arms 5)")
      ->check(CLI::Range(1, 1000))
      ->group(what);
  const char* learns = "What learns";
  app.add_option("--lora", flags.rank,
                 "rank of the adapters, which learn beside the classifier unless --full says otherwise")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 16))
      ->group(learns);
  app.add_option("--alpha", flags.alpha, "of the adapters: what they say is multiplied by alpha / rank")
      ->capture_default_str()
      ->group(learns);
  app.add_option("--targets", flags.targets,
                 "linear maps that get an adapter, globs over their paths, comma-separated: "
                 "'*.q_proj,*.v_proj' (default: all of every part)")
      ->group(learns);
  app.add_option("--lora-dropout", flags.lora_dropout, "of what an adapter reads")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 0.99))
      ->group(learns);
  app.add_flag("--full", flags.full, "every weight, in place of adapters")->group(learns);
  app.add_flag("--from-scratch", flags.from_scratch, "every weight, from new first numbers")->group(learns);
  app.add_option("--dropout", flags.dropout, "in front of the classifier")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 0.99))
      ->group(learns);
  app.add_option("--adapt", flags.adapt,
                 "first learn the text of the sentences under the plan's mask: mntp:STEPS (hidden tokens) or "
                 "causal:STEPS (next tokens)")
      ->group(learns);
  app.add_option("--adapt-lr", flags.adapt_rate, "largest learning rate of that (default: --lr)")
      ->group(learns);
  app.add_option("--mask-token", flags.mask_token,
                 "token that hides others (default: the tokenizer's, else _)")
      ->group(learns);
  app.add_option("--epochs", flags.epochs, "times over the training data, where --steps is not given")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000))
      ->group("Training");
  app.add_flag("--best-epoch", flags.best_epoch,
               "keep the epoch that is best on the development set (default: the last)")
      ->group("Training");
  app.add_flag("--adapter-only", flags.adapter_only,
               "write the adapter, not the model that it is merged into")
      ->group("What is written");
  app.add_option("--weights", flags.weights,
                 "type of the weights written: float32, float16, bfloat16 (default: as they came)")
      ->group("What is written");
}

// What is not used is refused, so that no report says that it was.
void check_flags(const CLI::App& app, const TagFlags& flags) {
  const bool whole = flags.full || flags.from_scratch;
  for (const char* flag : {"--lora", "--alpha", "--targets", "--lora-dropout", "--adapter-only"}) {
    if (whole && app.count(flag) > 0)
      fail("{} goes with adapters, and {} trains every weight", flag,
           flags.full ? "--full" : "--from-scratch");
  }
  if (flags.search && !flags.masks.empty())
    fail("--search tries every plan; leave --mask out, or --search for the plans that --mask names");
  for (const char* flag : {"--adapt-lr", "--mask-token"}) {
    if (app.count(flag) > 0 && flags.adapt.empty()) fail("{} goes with --adapt", flag);
  }
  if (app.count("--mask-token") > 0 && flags.adapt.starts_with("causal"))
    fail("--mask-token goes with --adapt mntp; causal hides nothing");
  if (app.count("--probe-lr") > 0 && !flags.probe) fail("--probe-lr goes with --probe");
  if (flags.probe && flags.from_scratch)
    fail("--probe: with --from-scratch there is nothing in the model to probe");
  if (flags.adapter_only && !flags.adapt.empty())
    fail("--adapter-only: --adapt changes the model that the adapter would stand on; leave one of them out");
  if (app.count("--evaluate-every") > 0)
    fail("--evaluate-every: the development set is looked at after every epoch, and there is no other text");
  if (app.count("--steps") > 0 && app.count("--epochs") > 0)
    fail("--steps and --epochs both say how long a run is; leave one of them out");
  if (!(flags.adapt_rate >= 0) || !std::isfinite(flags.adapt_rate) || !(flags.probe_rate > 0) ||
      !std::isfinite(flags.probe_rate))
    fail("--{}: a number above 0 is expected", flags.probe_rate > 0 ? "adapt-lr" : "probe-lr");
}

// ---- arms and runs

std::vector<TagArm> arms_of(const TagFlags& flags, const Blueprint& blueprint) {
  std::vector<MaskPlan> plans;
  if (flags.search) {
    const int groups = flags.groups > 0 ? flags.groups : std::min(4, blueprint.blocks);
    if (groups > blueprint.blocks)
      fail("--search {}: the model has {} block{}; search no more groups than that", groups, blueprint.blocks,
           blueprint.blocks == 1 ? "" : "s");
    plans = every_mask_plan(groups, blueprint);
  } else if (flags.masks.empty()) {
    plans = {mask_plan(blueprint.blocks >= 4 ? "0011" : blueprint.blocks >= 2 ? "01" : "1", blueprint)};
  } else {
    for (const std::string& spelling : flags.masks) {
      MaskPlan plan;
      try {
        plan = mask_plan(spelling, blueprint);
      } catch (const Error& error) {
        fail("--mask: {}", error.what());
      }
      for (const MaskPlan& other : plans) {
        if (other.blocks == plan.blocks)
          fail("--mask {} and --mask {} are one plan here; leave one of them out", other.name, plan.name);
      }
      plans.push_back(std::move(plan));
    }
  }
  const std::vector<int64_t> repeats = flags.repeats.empty() ? std::vector<int64_t>{0} : flags.repeats;
  std::vector<TagArm> arms;
  for (const int64_t repeat : repeats) {
    if (std::ranges::count(repeats, repeat) > 1) fail("--repeat {} was given twice", repeat);
    for (const MaskPlan& plan : plans)
      arms.push_back({.name = repeat > 0 ? fmt::format("{} r={}", plan.name, repeat) : plan.name,
                      .mask = plan,
                      .repeat = repeat,
                      .compute = static_cast<double>(repeat + 1)});
  }
  if (flags.probe) arms.push_back({.name = "probe", .mask = {.name = "none"}, .probe = true});
  return arms;
}

unmask::Adaptation adaptation_of(const TagFlags& flags, const Tokenizer& tokenizer) {
  unmask::Adaptation adaptation{.learning_rate = flags.adapt_rate};
  if (flags.adapt.empty()) return adaptation;
  const size_t colon = flags.adapt.find(':');
  const std::string kind = flags.adapt.substr(0, colon),
                    count = colon == std::string::npos ? "" : flags.adapt.substr(colon + 1);
  const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), adaptation.steps);
  if ((kind != "mntp" && kind != "causal") || count.empty() || error != std::errc() ||
      end != count.data() + count.size() || adaptation.steps < 1)
    fail("--adapt {}: mntp:STEPS and causal:STEPS are possible, such as mntp:400", in_quotes(flags.adapt));
  adaptation.masked = kind == "mntp";
  if (!adaptation.masked) return adaptation;
  if (!flags.mask_token.empty()) {
    const auto id = tokenizer.id_of(flags.mask_token);
    if (!id) fail("--mask-token {}: the tokenizer has no such token", in_quotes(flags.mask_token));
    adaptation.mask_token = *id;
    return adaptation;
  }
  for (const char* name : {"<mask>", "[MASK]", "<|mask|>", "_"}) {
    if (const auto id = tokenizer.id_of(name)) {
      adaptation.mask_token = *id;
      return adaptation;
    }
  }
  fail("--adapt mntp: the tokenizer has no token for what is hidden; name one with --mask-token");
}

// Steps of a run over so many windows.
int64_t steps_over(int64_t windows, const TrainOptions& training, int64_t epochs) {
  const int64_t a_step = training.batch * training.accumulate;
  return epochs > 0 ? (windows * epochs + a_step - 1) / a_step : training.steps;
}

RunFields fields_of(const TagJob& job, const unmask::RunOptions& options) {
  RunFields fields = {
      {"model sha256", job.base_sha256},
      {"mask", fmt::format("{}", fmt::join(options.mask.blocks, ","))},
      {"repeat", std::to_string(options.feeding.repeat)},
      {"length", std::to_string(options.feeding.encode.length)},
      {"overlap", std::to_string(options.feeding.encode.overlap)},
      {"answer", std::string(answer_name(options.feeding.encode.answer))},
      {"dropout", fmt::format("{}", options.dropout)},
      {"epochs", std::to_string(options.epochs)},
      {"best epoch", options.best_epoch ? "yes" : "no"},
      {"from scratch", options.from_scratch ? "yes" : "no"},
      {"arithmetic", job.training.dtype},
      {"weights written", job.weights ? std::string(dtype_name(*job.weights)) : "as they came"},
      {"schedule", std::string(schedule_name(options.training.schedule))}};
  for (const auto& [name, sentences] :
       {std::pair("--train sha256", &job.data.train), std::pair("--dev sha256", &job.data.dev),
        std::pair("--test sha256", &job.data.test)}) {
    Sha256 hash;
    for (const label::Sentence& sentence : *sentences)
      hash.add(label::conll_text({.words = sentence.words, .tags = sentence.tags}, {}));
    fields[name] = hash.hex();
  }
  fields["what learns"] =
      options.learns == Learns::head ? "the classifier"
      : options.learns == Learns::everything
          ? "every weight"
          : fmt::format("adapters of rank {}, alpha {}, dropout {}, on {}", options.lora.rank,
                        options.lora.alpha, options.lora_dropout, fmt::join(options.lora.targets, ","));
  if (options.adaptation.steps > 0)
    fields["adaptation"] = fmt::format("{} {} at {} with {}", options.adaptation.masked ? "mntp" : "causal",
                                       options.adaptation.steps, options.adaptation.learning_rate,
                                       options.adaptation.mask_token);
  const Json training = options_to_json(options.training);
  for (const auto& [name, value] : training.items()) {
    if (name != "evaluate-every" && name != "checkpoint-every" && name != "gradient-checkpointing")
      fields[name] = value.dump();
  }
  return fields;
}

void plan_runs(TagJob& job, const TrainOptions& training, bool rate_given, at::Device device) {
  const TagFlags& flags = job.flags;
  const bool whole = flags.full || flags.from_scratch;
  const unmask::Adaptation adaptation = adaptation_of(flags, job.tokenizer);
  const int64_t windows = std::ssize(unmask::windows(job.data.train, job.tokenizer, job.feeding.encode));
  for (size_t a = 0; a < job.arms.size(); ++a) {
    const TagArm& arm = job.arms[a];
    for (int64_t i = 0; i < flags.seeds; ++i) {
      TagRun run{.arm = a};
      unmask::RunOptions& options = run.options;
      options.mask = arm.mask;
      options.feeding = job.feeding;
      options.feeding.repeat = arm.repeat;
      options.learns = arm.probe ? Learns::head : whole ? Learns::everything : Learns::adapters;
      options.lora = {.rank = flags.rank, .alpha = flags.alpha, .targets = globs_of(flags.targets)};
      options.dropout = flags.dropout;
      options.lora_dropout = flags.lora_dropout;
      options.from_scratch = flags.from_scratch;
      if (!arm.probe) options.adaptation = adaptation;
      options.training = training;
      options.training.seed = training.seed + static_cast<uint64_t>(i);
      if (arm.probe)
        options.training.learning_rate = flags.probe_rate;
      else if (!rate_given)
        options.training.learning_rate = flags.from_scratch ? 5e-4 : flags.full ? 5e-5 : 2e-4;
      options.epochs = flags.epochs;
      options.training.steps = steps_over(windows, training, flags.epochs);
      options.best_epoch = flags.best_epoch;
      options.dtype = arithmetic_of(job.training.dtype);
      options.device = device;
      if (options.training.minimum_rate > options.training.learning_rate)
        fail("--min-lr {}: the floor lies above the largest rate, {}", options.training.minimum_rate,
             options.training.learning_rate);
      run.name = fmt::format("{}-seed{}", slug(arm.name), options.training.seed);
      run.fields = fields_of(job, options);
      run.steps = options.training.steps + options.adaptation.steps;
      job.runs.push_back(std::move(run));
    }
  }
}

// ---- while it lasts

// One line over all runs, so that the time left is that of all, and a log of each run's steps.
class Progress {
 public:
  Progress(Terminal& terminal, const TagJob& job, bool quiet)
      : watch_(terminal.watch()), job_(job), quiet_(quiet), style_(style_of(STDERR_FILENO)) {}
  ~Progress() { close(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Runs that are not done, before the first begins.
  void expect(const TagRun& run) { line_.total += weight(run); }
  void begin(const TagRun& run, size_t number, const fs::path& log) {
    run_ = &run;
    number_ = number;
    base_ = line_.done;
    losses_.clear();
    close();
    if (!quiet_ && !log.empty()) {
      fs::create_directories(log.parent_path());
      log_ = std::fopen(log.c_str(), "a");
    }
  }
  void end() {
    line_.done = base_ + weight(*run_);
    close();
  }
  Watch watch() {
    return {.tick = [this](const Tick&) { watch_.report(line_); }, .stop = watch_.stop};
  }
  void on_step(const StepRecord& record) {
    if (log_) {
      std::fputs((record_json(record).dump() + "\n").c_str(), log_);
      std::fflush(log_);
    }
    // Steps of an adaptation come first, and count from 1 too.
    ++steps_of_[run_->name];
    losses_.push_back(record.loss);
    const auto steps =
        std::max<double>(static_cast<double>(steps_of_[run_->name]), static_cast<double>(record.step));
    line_.done = base_ + weight(*run_) * std::min(1.0, steps / static_cast<double>(run_->steps));
    line_.detail = fmt::format("{} seed {}, run {} of {}, step {}  loss {:#.4g} {}", arm(),
                               run_->options.training.seed, number_, job_.runs.size(), record.step,
                               record.loss, report::sparkline(losses_, 6, style_));
    watch_.report(line_);
  }

 private:
  const std::string& arm() const { return job_.arms[run_->arm].name; }
  double weight(const TagRun& run) const {
    return static_cast<double>(run.steps) * job_.arms[run.arm].compute;
  }
  void close() {
    if (log_) std::fclose(std::exchange(log_, nullptr));
  }

  Watch watch_;
  const TagJob& job_;
  bool quiet_;
  report::Style style_;
  Tick line_ = {.phase = "tag", .done = 0, .total = 0, .detail = ""};
  const TagRun* run_ = nullptr;
  size_t number_ = 0;
  double base_ = 0;
  std::vector<double> losses_;
  std::map<std::string, int64_t> steps_of_;
  std::FILE* log_ = nullptr;
};

std::string run_line(const TagJob& job, const TagRun& run, const unmask::RunResult& result,
                     std::string_view time) {
  size_t width = 5;
  for (const TagArm& arm : job.arms) width = std::max(width, std::min<size_t>(arm.name.size(), 24));
  std::string text = fmt::format("{:<{}}  seed {:<4} dev F1 {:5.2f}", job.arms[run.arm].name, width,
                                 result.seed, 100 * result.dev->all.f1());
  if (result.test) text += fmt::format("  test F1 {:5.2f}", 100 * result.test->all.f1());
  text += fmt::format("  {}", time);
  if (result.trained.broke_at > 0)
    text += fmt::format("  (ended at step {}: {} was not a number)", result.trained.broke_at,
                        result.trained.broke_on);
  return text + "\n";
}

std::vector<unmask::Span> spans_of(const TagJob& job, const TagRun& run, const Model& model) {
  return unmask::attention_spans(model, looked_at(job, run), run.options.feeding.repeat,
                                 unmask::pad_of(job.tokenizer));
}

// ---- all of it

// What earlier processes had done. Of an arm that may still be chosen, the best run must have been kept too.
std::vector<std::optional<DoneRun>> done_before(const TagJob& job, const RunFiles& files) {
  std::vector<std::optional<DoneRun>> done;
  for (const TagRun& run : job.runs) done.push_back(files.find(run.name, run.fields));
  std::vector<TagArm> finished;
  const auto need = [&](const TagArm& arm, const std::vector<size_t>& places) {
    if (arm.runs.empty() || arm.probe) return;
    const size_t place = places[best_run(arm)];
    if (!files.kept(job.runs[place].name)) done[place].reset();
  };
  std::vector<std::vector<size_t>> places_of;
  for (size_t a = 0; a < job.arms.size(); ++a) {
    TagArm arm{.name = job.arms[a].name, .probe = job.arms[a].probe};
    std::vector<size_t> places;
    bool all = true;
    for (size_t r = 0; r < job.runs.size(); ++r) {
      if (job.runs[r].arm != a) continue;
      all &= done[r].has_value();
      if (!done[r]) continue;
      arm.runs.push_back(done[r]->result);
      places.push_back(r);
    }
    if (all) {
      finished.push_back(std::move(arm));
      places_of.push_back(std::move(places));
    } else {
      need(arm, places);
    }
  }
  if (!finished.empty()) {
    const size_t best = choice_of(finished).arm;
    need(finished[best], places_of[best]);
  }
  return done;
}

void run_all(TagJob& job, const RunFiles& files, TrainingFolder& folder, Terminal& terminal, Group& group) {
  const bool first = group.rank() == 0, silent = job.training.quiet || job.training.json || !first;
  std::vector<std::optional<DoneRun>> done(job.runs.size());
  if (first) done = done_before(job, files);
  // The ranks go through the same runs.
  Tensor there = at::zeros({std::ssize(job.runs)}, at::kLong);
  for (size_t r = 0; r < done.size(); ++r) there.data_ptr<int64_t>()[r] = done[r] ? 1 : 0;
  group.broadcast(there, 0);

  Progress progress(terminal, job, !first);
  const auto is_done = [&](size_t r) { return there.const_data_ptr<int64_t>()[r] != 0; };
  double left = 0, taken = 0, weighed = 0;  // of runs, by what they compute; seconds of those done here
  const auto weight = [&](const TagRun& run) {
    return static_cast<double>(run.steps) * job.arms[run.arm].compute;
  };
  for (size_t r = 0; r < job.runs.size(); ++r) {
    if (is_done(r)) continue;
    progress.expect(job.runs[r]);
    left += weight(job.runs[r]);
  }
  std::optional<size_t> leader;  // of the arms that are whole
  const auto drop_all = [&](size_t a) {
    for (const TagRun& run : job.runs) {
      if (run.arm == a) files.drop(run.name);
    }
  };
  for (size_t r = 0; r < job.runs.size(); ++r) {
    TagRun& run = job.runs[r];
    TagArm& arm = job.arms[run.arm];
    const bool first_of_arm = arm.runs.empty();
    if (is_done(r)) {
      if (first) {
        folder.keep();
        arm.runs.push_back(done[r]->result);
        if (!done[r]->spans.empty()) arm.spans = done[r]->spans;
        if (!silent) print(run_line(job, run, done[r]->result, "done before"));
      }
    } else {
      const Clock::time_point start = Clock::now();
      run.options.training = folder.with_state(run.options.training, run.name);
      progress.begin(run, r + 1, folder.state() / "curves" / (run.name + ".jsonl"));
      unmask::RunOutcome outcome =
          unmask::run(job.base, job.tokenizer, job.data, run.options, group, progress.watch(),
                      [&](const StepRecord& record) { progress.on_step(record); });
      progress.end();
      if (!first) {
        arm.runs.push_back(std::move(outcome.result));
        continue;
      }
      if (outcome.result.trained.curve.empty())
        fail(
            "{}, seed {}: step {}: {} is not a number, so that nothing was learnt; a smaller --lr or a "
            "longer "
            "--warmup may help",
            arm.name, run.options.training.seed, outcome.result.trained.broke_at,
            outcome.result.trained.broke_on);
      DoneRun finished{.result = std::move(outcome.result)};
      if (finished.result.trained.resumed_from > 0) {  // all of it, not this process's part alone
        finished.result.seconds = 0;
        for (const StepRecord& record : finished.result.trained.curve)
          finished.result.seconds += record.seconds;
      }
      if (first_of_arm && !arm.probe && run.options.device.is_cpu())
        finished.spans = spans_of(job, run, outcome.student->model());
      arm.runs.push_back(finished.result);
      if (!finished.spans.empty()) arm.spans = finished.spans;
      const size_t best = best_run(arm);
      // First what is kept, then the word that it is done: one that is killed in between makes it again.
      if (!arm.probe && best + 1 == arm.runs.size())
        files.keep(run.name, *outcome.student, job.base, job.weights);
      files.write(run.name, run.fields, finished);
      folder.keep();
      remove_folder(run.options.training.state);
      taken += seconds_since(start);
      weighed += weight(run);
      left -= weight(run);
      const std::string rest =
          left > 0 ? fmt::format("{}; {} of {} done, {} left", human_seconds(seconds_since(start)), r + 1,
                                 job.runs.size(), human_seconds(taken / weighed * left))
                   : human_seconds(seconds_since(start));
      terminal.clear();
      if (!silent) print(run_line(job, run, finished.result, rest));
    }
    if (!first) continue;
    // Of an arm its best run is kept; of arms that are whole, the best one's.
    const size_t best = best_run(arm);
    size_t place = 0;
    for (const TagRun& other : job.runs) {
      if (other.arm != run.arm) continue;
      // Of runs that were done before, those still to be looked at may hold the best.
      if (place < arm.runs.size() && place != best) files.drop(other.name);
      ++place;
    }
    if (r + 1 < job.runs.size() && job.runs[r + 1].arm == run.arm) continue;
    if (arm.probe) {
      drop_all(run.arm);
    } else if (!leader) {
      leader = run.arm;
    } else {
      const bool better = mean_dev_f1(arm) > mean_dev_f1(job.arms[*leader]);
      drop_all(better ? *leader : run.arm);
      if (better) leader = run.arm;
    }
  }
}

void describe(TagJob& job, const TrainOptions& training, Group& group) {
  const TagFlags& flags = job.flags;
  const unmask::RunOptions& options = job.runs.front().options;
  const auto add = [&](std::string name, std::string value) {
    job.settings.emplace_back(std::move(name), std::move(value));
  };
  add("model", fmt::format("{} (sha256 {})", job.base_name, job.base_sha256));
  for (const auto& [name, path] : {std::pair("learnt from", &flags.train), std::pair("chosen by", &flags.dev),
                                   std::pair("tested on", &flags.test)}) {
    if (!path->empty())
      add(name, fmt::format("{} (sha256 {})", shown(path->filename()), sha256_hex(read_file(*path))));
  }
  add("what learns", flags.from_scratch ? "every weight, from new first numbers"
                     : flags.full
                         ? "every weight"
                         : fmt::format("the classifier, and adapters of rank {}, alpha {}, dropout {}, on {}",
                                       flags.rank, flags.alpha, flags.lora_dropout,
                                       flags.targets.empty() ? "every linear map" : flags.targets));
  if (!flags.adapt.empty()) add("adapted before", flags.adapt);
  if (flags.probe) add("probe", fmt::format("the classifier alone, learning rate {}", flags.probe_rate));
  add("dropout before the classifier", fmt::format("{}", flags.dropout));
  add("words", fmt::format("windows of {} tokens that share {}, the tag read from a word's {} token",
                           job.feeding.encode.length, job.feeding.encode.overlap, flags.answer));
  add("epoch", flags.best_epoch ? "the best on the development set" : "the last");
  add("seeds",
      fmt::format("{} to {}", training.seed, training.seed + static_cast<uint64_t>(flags.seeds) - 1));
  TrainOptions shown_options = training;
  shown_options.steps = options.training.steps;
  shown_options.learning_rate = options.training.learning_rate;
  for (auto& row : settings_of(shown_options)) {
    if (row.first != "seed" && row.first != "evaluate-every") job.settings.push_back(std::move(row));
  }
  for (auto& row : running_settings(job.training.dtype, job.training, group))
    job.settings.push_back(std::move(row));
  add("hardware", processor_name());
}

int tag_train(Group& group, TagFlags flags, const TrainingFlags& training_flags, const TrainOptions& training,
              bool rate_given, const std::string& command) {
  const bool first = group.rank() == 0, silent = training_flags.quiet || training_flags.json || !first;
  Terminal terminal({.quiet = silent});
  const Watch watch = terminal.watch();
  std::optional<DType> weights;
  if (!flags.weights.empty()) weights = written_type(flags.weights);
  const at::Device device = device_of(training_flags.device, group);
  std::vector<fs::path> inputs = {flags.model, flags.train, flags.dev};
  if (!flags.test.empty()) inputs.push_back(flags.test);
  TrainingFolder folder(flags.out,
                        {.resume = training_flags.resume,
                         .replace = training_flags.force,
                         .inputs = inputs,
                         .command = command},
                        group);
  use_threads(thread_count(training_flags.threads));

  std::vector<std::string> notes;
  label::Document train = tagged_document(flags.train, flags.conll, notes), dev, test;
  const auto beside = [&](const fs::path& path) {
    label::Document document = tagged_document(path, flags.conll, notes);
    if (document.columns != train.columns)
      fail("{}: has {} columns where {} has {}; give files of one kind", shown(path), document.columns,
           shown(flags.train), train.columns);
    return document;
  };
  dev = beside(flags.dev);
  if (!flags.test.empty()) test = beside(flags.test);
  unmask::TagData data;
  try {
    data = unmask::tag_data(std::move(train), std::move(dev), std::move(test), notes);
  } catch (const Error& error) {
    fail("{}: {}", shown(flags.train), error.what());
  }

  Opened base = open(flags.model);
  if (base.blueprint.labels > 0)
    fail("{}: is a tagger already; name the language model that it was made from", shown(flags.model));
  check_speaks(base.blueprint, shown(flags.model));
  Tokenizer tokenizer = tokenizer_of(base.checkpoint);
  std::vector<TagArm> arms = arms_of(flags, base.blueprint);
  if (flags.seeds == 0) flags.seeds = arms.size() > 1 ? 5 : 1;
  int64_t copies = 1;
  for (const TagArm& arm : arms) copies = std::max(copies, arm.repeat + 1);
  unmask::Feeding feeding;
  feeding.encode.length =
      flags.length > 0 ? flags.length : std::min<int64_t>(128, base.blueprint.context / copies);
  feeding.encode.overlap = std::min<int64_t>(feeding.encode.overlap, feeding.encode.length / 4);
  feeding.encode.answer = unmask::answer_from_name(flags.answer);
  feeding.repeat = copies - 1;
  unmask::check_fits(feeding, base.blueprint);
  feeding.repeat = 0;

  const LoraOptions lora{.rank = flags.rank};
  check(estimate({.blueprint = base.blueprint,
                  .options = training,
                  .length = feeding.encode.length * copies,
                  .lora = flags.full || flags.from_scratch ? nullptr : &lora,
                  .bytes_a_number = training_flags.dtype == "float64" ? 8 : 4,
                  .written = static_cast<uint64_t>(base.blueprint.parameters()) * 4 * 3},
                 folder.path()),
        folder.path());

  TagJob job{.flags = flags,
             .training = training_flags,
             .command = command,
             .base_name = model_name(base),
             .base_sha256 = base.checkpoint.hash(watch),
             .tokenizer = std::move(tokenizer),
             .data = std::move(data),
             .arms = std::move(arms),
             .feeding = feeding,
             .weights = weights,
             .warnings = notes};
  job.base = std::move(base);
  plan_runs(job, training, rate_given, device);
  for (const std::vector<label::Sentence>* sentences : {&job.data.train, &job.data.dev, &job.data.test})
    job.split_sentences += split_count(*sentences, job.tokenizer, feeding.encode);
  describe(job, training, group);
  if (!silent) {
    terminal.clear();
    std::string text =
        fmt::format("{}: {} sentences to learn from, {} types; {} of {} steps\n", job.base_name,
                    thousands(std::ssize(job.data.train)), job.data.labels.size() / 2,
                    job.runs.size() == 1 ? "one run" : fmt::format("{} runs", job.runs.size()),
                    thousands(job.runs.front().steps));
    for (const std::string& note : notes) text += fmt::format("note: {}\n", note);
    print(text);
  }
  const RunFiles files(folder.state() / "runs", job.data);
  run_all(job, files, folder, terminal, group);
  return first ? finish_tagging(job, files, folder, terminal) : Status::ok;
}

}  // namespace

std::vector<unmask::Window> looked_at(const TagJob& job, const TagRun& run) {
  constexpr size_t kWindows = 32;
  std::vector<unmask::Window> windows =
      unmask::windows(job.data.dev, job.tokenizer, run.options.feeding.encode);
  if (windows.size() > kWindows) windows.resize(kWindows);
  return windows;
}

size_t best_run(const TagArm& arm) {
  // One that broke is taken where all did.
  const auto worth = [](const unmask::RunResult& run) {
    return std::pair(run.trained.broke_at == 0, run.dev->all.f1());
  };
  size_t best = 0;
  for (size_t i = 1; i < arm.runs.size(); ++i) {
    if (worth(arm.runs[i]) > worth(arm.runs[best])) best = i;
  }
  return best;
}

double mean_dev_f1(const TagArm& arm) {
  const auto by_seed = f1_by_seed(arm, HeldOut::development);
  if (by_seed.empty()) return -1;
  double sum = 0;
  for (const auto& [seed, f1] : by_seed) sum += f1;
  return sum / static_cast<double>(by_seed.size());
}

TagChoice choice_of(const std::vector<TagArm>& arms) {
  size_t best = 0;
  for (size_t a = 1; a < arms.size(); ++a) {
    // A probe is there to be compared with.
    if (!arms[a].probe && mean_dev_f1(arms[a]) > mean_dev_f1(arms[best])) best = a;
  }
  return {.arm = best, .run = best_run(arms[best])};
}

int run_tag_train(int argc, char** argv) {
  CLI::App app(
      "Make a token classifier out of a causal language model, and let some of its blocks look right: "
      "without "
      "their\ncausal mask they see what follows a word (Dukic and Snajder, 2024, arXiv 2401.14556). Adapters "
      "learn beside the\nclassifier; --full trains every weight.\n\n"
      "Example: lamina tag train MODEL --train train.conll --dev dev.conll --test test.conll -o tagger\n"
      "         lamina tag train MODEL --train train.conll --dev dev.conll --mask none --mask 0011 --mask "
      "all "
      "-o OUT\n"
      "         lamina tag train MODEL --train train.conll --dev dev.conll --search --lora 64 --alpha 16 \\\n"
      "           --targets '*.q_proj,*.v_proj' --epochs 5 -o OUT                        (as in the paper)\n"
      "Ctrl-C stops after the present step; the same command with --resume goes on, behind the runs that are "
      "done.",
      "tag train");
  TagFlags flags;
  TrainingFlags training;
  training.options = {
      .batch = 16, .learning_rate = 2e-4, .beta2 = 0.95, .weight_decay = 0.1, .checkpoint_every = 200};
  add_tag_flags(app, flags);
  add_training_flags(app, training);
  app.get_option("--steps")->default_str("")->description("optimizer steps of a run, in place of --epochs");
  app.get_option("--lr")->default_str("")->description(
      "largest learning rate (default: of adapters 2e-4, with --full 5e-5, with --from-scratch 5e-4)");
  app.get_option("--seed")->description("of the first run: of adapters, dropout and the order of the data");
  parse(app, argc, argv);
  flags.search = app.count("--search") > 0;
  check_flags(app, flags);
  const TrainOptions options = options_of(training);
  if (app.count("--steps") > 0) flags.epochs = 0;
  const bool rate_given = app.count("--lr") > 0;
  const std::string command = command_line(argc, argv, "tag train");
  keep_memory_between_steps();
  return together(group_options(training), [&](Group& group) {
    return tag_train(group, flags, training, options, rate_given, command);
  });
}

}  // namespace lamina::cli
