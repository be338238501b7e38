// What a run of training shows: its line while it lasts, its log, its curves and answers in reports.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/base/fields.h"
#include "lamina/base/json_number.h"
#include "lamina/base/text.h"
#include "lamina/cli/chat.h"
#include "lamina/cli/training.h"
#include "lamina/eval/generate.h"
#include "lamina/report/chart.h"

namespace lamina::cli {

namespace fs = std::filesystem;
using report::Notation;

namespace {

constexpr size_t kPoints = 200;     // of a curve on a page
constexpr size_t kRemembered = 24;  // steps that the line looks back on

const report::Format kLoss{Notation::significant, 4, ""};
const report::Format kRate{Notation::significant, 3, ""};

Json evaluation_json(const Evaluation& evaluation) {
  return {{"step", evaluation.step},
          {"validation_loss", number_or_null(evaluation.loss)},
          {"positions", evaluation.positions}};
}

// Where each of at most `kPoints` stretches of a curve ends.
std::vector<size_t> stretches(size_t count) {
  std::vector<size_t> ends;
  const size_t points = std::min(count, kPoints);
  for (size_t i = 1; i <= points; ++i) ends.push_back(i * count / points);
  return ends;
}

report::Curve thinned(const std::vector<StepRecord>& records, std::string name,
                      const std::function<double(const StepRecord&)>& value) {
  report::Curve curve{.name = std::move(name)};
  const bool banded = records.size() > kPoints;
  size_t first = 0;
  for (const size_t end : stretches(records.size())) {
    double sum = 0, low = INFINITY, high = -INFINITY;
    for (size_t i = first; i < end; ++i) {
      const double v = value(records[i]);
      sum += v, low = std::min(low, v), high = std::max(high, v);
    }
    curve.x.push_back(static_cast<double>(records[end - 1].step));
    curve.y.push_back(sum / static_cast<double>(end - first));
    if (banded) curve.low.push_back(low), curve.high.push_back(high);
    first = end;
  }
  return curve;
}

}  // namespace

Json record_json(const StepRecord& record) {
  Json json = {{"step", record.step},
               {"loss", number_or_null(record.loss)},
               {"objective", number_or_null(record.objective)},
               {"learning_rate", record.learning_rate},
               {"gradient_norm", number_or_null(record.gradient_norm)},
               {"tokens", record.tokens},
               {"seconds", record.seconds}};
  for (const auto& [name, value] : record.terms) json[name] = number_or_null(value);
  return json;
}

// ---- progress

struct Follow::State {
  Watch watch;  // the terminal's
  Options options;
  int64_t steps = 0;
  report::Style style;
  int64_t first = 0;  // steps that an earlier process had done
  bool started = false;
  Tick line;
  std::vector<double> losses, tokens, seconds;
  std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();
  std::FILE* log = nullptr;

  ~State() {
    if (log) std::fclose(log);
  }
  // Lines of steps that come again are taken out: the run went on from before them.
  void open_log(int64_t step) {
    std::string kept;
    if (fs::exists(options.log)) {
      for (const std::string& text : split(read_file(options.log), '\n')) {
        if (trim(text).empty()) continue;
        const Json json = Json::parse(text, nullptr, false);  // the last line may have been cut
        if (json.is_object() && json.value("step", step) < step) kept += text + "\n";
      }
    }
    write_file(options.log, kept);
    log = std::fopen(options.log.c_str(), "a");
  }
};

Follow::Follow(Terminal& terminal, const TrainOptions& training, Options options)
    : state_(std::make_shared<State>()) {
  state_->watch = terminal.watch();
  state_->options = std::move(options);
  state_->steps = training.steps;
  state_->style = style_of(STDERR_FILENO);
  state_->line = {
      .phase = state_->options.name, .done = 0, .total = static_cast<double>(training.steps), .detail = ""};
}

Follow::~Follow() = default;

Watch Follow::watch() {
  return {.tick =
              [state = state_](const Tick& tick) {
                // The line stays that of the steps, so that its rate is theirs; what else goes on stands
                // behind.
                Tick line = state->line;
                if (line.detail.empty()) line.detail = tick.phase == "train" ? "" : tick.phase;
                state->watch.report(line);
              },
          .stop = state_->watch.stop};
}

std::function<void(const StepRecord&)> Follow::on_step() {
  return [state = state_](const StepRecord& record) {
    State& s = *state;
    if (s.options.quiet) return;
    if (!s.started) {
      s.started = true;
      s.first = record.step - 1;
      if (s.first > 0) s.line.phase += fmt::format(" from step {}", s.first);
      s.line.total = static_cast<double>(s.steps - s.first);
      if (!s.options.log.empty()) s.open_log(record.step);
    }
    s.losses.push_back(record.loss);
    s.tokens.push_back(static_cast<double>(record.tokens));
    s.seconds.push_back(record.seconds);
    s.line.done = static_cast<double>(record.step - s.first);
    const auto last = [](const std::vector<double>& values) {
      return std::span(values).last(std::min(values.size(), kRemembered));
    };
    const auto sum = [&](const std::vector<double>& values) {
      return std::accumulate(last(values).begin(), last(values).end(), 0.0);
    };
    const std::string loss =
        fmt::format("loss {:#.4g} {}", record.loss, report::sparkline(s.losses, 6, s.style));
    const std::string rate = fmt::format("rate {:.2g}", record.learning_rate);
    const double spent_on_steps = std::max(1e-9, sum(s.seconds));
    const auto samples = static_cast<double>(s.options.samples) * static_cast<double>(last(s.seconds).size());
    const std::string speed =
        s.options.samples > 0
            ? fmt::format("{:.3g} samples/s", samples / spent_on_steps)
            : fmt::format("{} tok/s", human_count(std::round(sum(s.tokens) / spent_on_steps)));
    // Whole pieces alone: half a number would be another.
    s.line.detail.clear();
    const double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - s.began).count();
    const int room = s.style.width - 3 - report::display_width(report::progress_line(s.line, spent, s.style));
    for (const std::string& detail : {loss + "  " + rate + "  " + speed, loss + "  " + speed, loss}) {
      s.line.detail = detail;
      if (report::display_width(detail) <= room) break;
    }
    s.watch.report(s.line);
    // A full disk is said where it matters: by the checkpoint.
    if (s.log) {
      std::fputs((record_json(record).dump() + "\n").c_str(), s.log);
      std::fflush(s.log);
    }
  };
}

void Follow::finish(const Trained& trained) {
  State& s = *state_;
  if (s.options.quiet || s.options.log.empty()) return;
  if (s.log) std::fclose(std::exchange(s.log, nullptr));
  std::string text;
  auto evaluation = trained.evaluations.begin();
  const auto evaluations_before = [&](int64_t step) {
    for (; evaluation != trained.evaluations.end() && evaluation->step < step; ++evaluation)
      text += evaluation_json(*evaluation).dump() + "\n";
  };
  for (const StepRecord& record : trained.curve) {
    evaluations_before(record.step);
    text += record_json(record).dump() + "\n";
  }
  evaluations_before(INT64_MAX);
  write_file(s.options.log, text);
}

// ---- what is shown at the end

report::Series loss_series(std::span<const Arm> arms) {
  report::Series series{.title = "Loss against steps",
                        .x = {.name = "step", .format = report::whole()},
                        .y = {.name = "cross-entropy, nats a token", .format = kLoss}};
  const bool several = arms.size() > 1;
  bool banded = false;
  for (size_t i = 0; i < arms.size(); ++i) {
    const Arm& arm = arms[i];
    if (arm.trained.curve.empty()) continue;
    report::Curve curve =
        thinned(arm.trained.curve, arm.name, [](const StepRecord& record) { return record.loss; });
    if (i == 0) curve.role = report::Curve::Role::method;
    banded |= !curve.low.empty();
    series.curves.push_back(std::move(curve));
    report::Curve validation{.name = several ? arm.name + ", validation" : "validation"};
    for (const Evaluation& evaluation : arm.trained.evaluations) {
      validation.x.push_back(static_cast<double>(evaluation.step));
      validation.y.push_back(evaluation.loss);
    }
    if (!validation.x.empty()) series.curves.push_back(std::move(validation));
  }
  if (banded)
    series.note = fmt::format(
        "Of the training loss each point is the mean of a stretch of steps, {} stretches in all; the band is "
        "its "
        "smallest and its largest step.",
        kPoints);
  return series;
}

report::Section curve_section(std::span<const Arm> arms, std::string title) {
  report::Section section{.title = std::move(title), .elements = {loss_series(arms)}};
  report::Series rate{.title = "Learning rate",
                      .x = {.name = "step", .format = report::whole()},
                      .y = {.name = "learning rate", .format = kRate}},
      norm{.title = "Norm of the gradient, before clipping",
           .x = {.name = "step", .format = report::whole()},
           .y = {.name = "norm", .format = kRate, .scale = report::Scale::logarithmic}};
  std::map<std::string, report::Series> terms;
  for (size_t i = 0; i < arms.size(); ++i) {
    const Arm& arm = arms[i];
    if (arm.trained.curve.empty()) continue;
    const auto add = [&](report::Series& series, const std::function<double(const StepRecord&)>& value) {
      report::Curve curve = thinned(arm.trained.curve, arm.name, value);
      if (series.curves.empty()) curve.role = report::Curve::Role::method;
      series.curves.push_back(std::move(curve));
    };
    add(rate, [](const StepRecord& record) { return record.learning_rate; });
    add(norm, [](const StepRecord& record) { return record.gradient_norm; });
    for (const auto& [name, value] : arm.trained.curve.back().terms) {
      auto [it, fresh] = terms.try_emplace(name);
      if (fresh)
        it->second = {.title = fmt::format("{} against steps", name),
                      .x = {.name = "step", .format = report::whole()},
                      .y = {.name = name, .format = kLoss}};
      add(it->second, [&name](const StepRecord& record) {
        const auto term = record.terms.find(name);
        return term == record.terms.end() ? report::not_measured : term->second;
      });
    }
  }
  if (!rate.curves.empty()) section.elements.push_back(std::move(rate));
  if (!norm.curves.empty()) section.elements.push_back(std::move(norm));
  for (auto& [name, series] : terms) section.elements.push_back(std::move(series));
  return section;
}

Json curve_json(const Trained& trained) {
  Json json = {{"steps", Json::array()}, {"evaluations", Json::array()}};
  for (const StepRecord& record : trained.curve) json["steps"].push_back(record_json(record));
  for (const Evaluation& evaluation : trained.evaluations)
    json["evaluations"].push_back(evaluation_json(evaluation));
  return json;
}

std::vector<std::string> prompts_for(const Tokenizer& tokenizer) {
  if (tokenizer.chat_template())
    return {"What is the capital of France?", "Explain in two sentences why the sky is blue.",
            "Write a short poem about a river.", "What is 7 plus 5?"};
  return {"Once upon a time", "The capital of France is", "She opened the door and",
          "There are many reasons"};
}

std::vector<std::string> answers_of(const Model& model, const Opened& opened, const Tokenizer& tokenizer,
                                    const Watch& watch, int64_t tokens) {
  std::vector<std::string> answers;
  Tap none;
  for (const std::string& prompt : prompts_for(tokenizer)) {
    if (watch.stop.stop_requested()) throw Stopped{};
    const std::vector<int32_t> ids =
        tokenizer.chat_template() ? chat_prompt(tokenizer, prompt) : tokenizer.encode(prompt);
    const int64_t room = opened.blueprint.context - std::ssize(ids);
    if (room < 1) {
      answers.emplace_back("(the prompt is longer than the model's context)");
      continue;
    }
    const Generated answer = generate(model, ids,
                                      {.tokens = std::min(tokens, room),
                                       .stop = stop_ids(opened, tokenizer),
                                       .on_token = [&](int32_t) { return !watch.stop.stop_requested(); }},
                                      none);
    answers.push_back(tokenizer.decode(answer.ids, {.skip_special = true}));
  }
  return answers;
}

report::Table answers_table(const std::vector<std::string>& prompts, const std::vector<std::string>& before,
                            const std::vector<std::string>& after) {
  using Kind = report::Column::Kind;
  report::Table table{.title = "Greedy answers to fixed prompts",
                      .columns = {{.name = "prompt", .kind = Kind::prose},
                                  {.name = "before", .kind = Kind::prose},
                                  {.name = "after", .kind = Kind::prose}}};
  for (size_t i = 0; i < prompts.size(); ++i)
    table.rows.push_back({.cells = {prompts[i], before.at(i), after.at(i)}});
  table.note = "The prompts are the same for every model; all of them are shown.";
  return table;
}

Settings settings_of(const TrainOptions& options) {
  Settings rows;
  const Json json = options_to_json(options);
  for (const auto& [key, value] : json.items())
    rows.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  rows.emplace_back("schedule", schedule_name(options.schedule));
  return rows;
}

report::Table settings_table(const Settings& rows) {
  using Kind = report::Column::Kind;
  report::Table table{
      .title = "Settings and provenance",
      .columns = {{.name = "what", .kind = Kind::label}, {.name = "value", .kind = Kind::prose}}};
  for (const auto& [name, value] : rows) table.rows.push_back({.cells = {name, value}});
  return table;
}

}  // namespace lamina::cli
