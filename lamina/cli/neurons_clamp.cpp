// lamina neurons clamp: hold neurons at a value, see what changes, write it into the weights. And undo.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/staging.h"
#include "lamina/base/text.h"
#include "lamina/cli/chat.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/neurons_shared.h"
#include "lamina/cli/session.h"
#include "lamina/data/text_set.h"
#include "lamina/methods/neurons/clamp.h"
#include "lamina/plan/undo.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// The paper's values are not public; these are the sheet's.
constexpr double kSweep[] = {-50, -20, -10, -5, -2, -1, 1, 2, 5, 10, 20, 50};

// "12.345=+10sd": a neuron and what it is held at.
struct Setting {
  atlas::NeuronId id;
  double value = 0;
  enum class Unit { absolute, deviations, largest } unit = Unit::absolute;
};

Setting setting_from(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos)
    fail("--set {}: write BLOCK.NEURON=VALUE, like 12.345=+10sd", in_quotes(text));
  Setting setting{.id = atlas::neuron_id(text.substr(0, equals))};
  const std::string value = text.substr(equals + 1);
  char* end = nullptr;
  setting.value = std::strtod(value.c_str(), &end);
  const std::string_view unit = end;
  if (unit == "sd")
    setting.unit = Setting::Unit::deviations;
  else if (unit == "max")
    setting.unit = Setting::Unit::largest;
  if (value.empty() || end == value.c_str() || !std::isfinite(setting.value) ||
      (setting.unit == Setting::Unit::absolute && !unit.empty()))
    fail(
        "--set {}: a number is expected after the =, alone or with sd (standard deviations of the neuron) or "
        "max (its largest value)",
        in_quotes(text));
  return setting;
}

Site site_of(const Blueprint& blueprint, const atlas::NeuronId& id) {
  for (Site site : blueprint.with_neurons()) {
    if (blueprint.part(site).block == id.block) return site;
  }
  fail("{}.{}: block {} of this model has no feed-forward with neurons (it has blocks 0 to {})", id.block,
       id.neuron, id.block, blueprint.blocks - 1);
}

// Text of tokens on one line, for a table.
std::string one_line(std::string text, size_t limit) {
  std::ranges::replace(text, '\n', ' ');
  if (text.size() <= limit) return text;
  text.resize(limit);
  while (!text.empty() && !is_utf8(text)) text.pop_back();
  return text + "...";
}

struct Held {
  Setting setting;
  Clamp clamp;
  neurons::NeuronStatistics statistics;
};

Json to_json(const neurons::Answer& answer, const Tokenizer& tokenizer, bool concept_given) {
  Json json = {{"text", tokenizer.decode(answer.ids, {.skip_special = true})},
               {"ids", answer.ids},
               {"kl", answer.kl},
               {"mean_kl", answer.mean_kl},
               {"next", Json::array()}};
  if (concept_given) json["concept_log_p"] = answer.concept_log_p;
  for (const auto& [token, p] : answer.next)
    json["next"].push_back({{"id", token}, {"token", tokenizer.decode(std::span(&token, 1))}, {"p", p}});
  return json;
}

struct SweepRow {
  double factor, value;
  neurons::Answer answer;
};

report::Table sweep_table(const std::vector<SweepRow>& sweep, const neurons::Answer& before,
                          const Tokenizer& tokenizer, bool concept_given) {
  using Kind = report::Column::Kind;
  report::Table table{.columns = {{.name = "sd", .format = {report::Notation::significant, 2, ""}},
                                  {.name = "value", .format = {report::Notation::significant, 3, ""}}}};
  if (concept_given) table.columns.push_back({.name = "d log p", .format = {report::Notation::fixed, 2, ""}});
  table.columns.push_back({.name = "KL", .format = {report::Notation::significant, 3, ""}});
  table.columns.push_back({.name = "mean KL", .format = {report::Notation::significant, 3, ""}});
  table.columns.push_back({.name = "answer", .kind = Kind::label});
  for (const SweepRow& row : sweep) {
    report::TableRow cells{.cells = {row.factor, row.value}};
    if (concept_given) cells.cells.push_back(row.answer.concept_log_p - before.concept_log_p);
    cells.cells.push_back(row.answer.kl);
    cells.cells.push_back(row.answer.mean_kl);
    cells.cells.push_back(one_line(tokenizer.decode(row.answer.ids, {.skip_special = true}), 60));
    table.rows.push_back(std::move(cells));
  }
  return table;
}

}  // namespace

int run_neurons_clamp(int argc, char** argv) {
  CLI::App app(
      "Hold neurons at a value while the model answers, and see what that does.\n\n"
      "Example: lamina neurons clamp MODEL --set 12.345=+10sd --concept dog --chat -p 'Your favourite "
      "animal?'\n"
      "         lamina neurons clamp MODEL --set 12.345=+10sd --bake -o OUT     (into the weights; neurons "
      "undo "
      "takes it back)\n"
      "A value is a number, or a multiple of the neuron's own standard deviation (sd) or largest value (max) "
      "on\n"
      "the calibration text. With one neuron and a prompt, a sweep over +-1, 2, 5, 10, 20, 50 sd is shown "
      "too.",
      "neurons clamp");
  fs::path model, out, calibration;
  std::vector<std::string> sets;
  std::string place = "post", mode = "set", prompt, concept_text;
  int64_t tokens = 40, samples = 4, length = 256;
  int threads = 1;
  bool chat = false, bake = false, no_sweep = false, force = false, json = false, quiet = false;
  app.add_option("MODEL", model, "folder or GGUF file")->required();
  app.add_option("--set", sets, "BLOCK.NEURON=VALUE; may be given several times")->required();
  app.add_option("--site", place,
                 "post (after the gate: what the neuron writes), linear (the up projection), gate")
      ->capture_default_str();
  app.add_option(
         "--mode", mode,
         "set: to the value. add: plus it. scale: times it. max: at least as strong as it. if-active: "
         "to it where the neuron is on its side of zero")
      ->capture_default_str();
  app.add_option("-p,--prompt", prompt, "the text to answer; - reads standard input");
  app.add_flag("--chat", chat, "put the prompt into the model's chat template");
  app.add_option("--concept", concept_text, "a word whose probability after the prompt is followed");
  app.add_option("--tokens", tokens, "of each answer")->capture_default_str()->check(CLI::Range(0, 1 << 16));
  app.add_flag("--no-sweep", no_sweep, "only the value that was set");
  app.add_option("--calibration", calibration, "UTF-8 text for sd and max (default: the embedded one)");
  app.add_option("--samples", samples, "of it")->capture_default_str()->check(CLI::Range(1, 100000));
  app.add_option("--length", length, "tokens in each")->capture_default_str()->check(CLI::Range(1, 1 << 20));
  app.add_flag("--bake", bake, "write the clamped model to -o");
  app.add_option("-o,--output", out, "folder to write with --bake");
  app.add_flag("--force", force, "replace the output folder");
  app.add_option("--threads", threads, "threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_flag("--json", json, "one object on stdout");
  app.add_flag("-q,--quiet", quiet, "no progress");
  parse(app, argc, argv);
  if (bake == out.empty()) fail("--bake and -o OUT go together");
  if (!bake && prompt.empty())
    fail("give a prompt (-p) to see what the clamp does, or --bake -o OUT to write it");
  const auto where = place_from_name(place);
  if (!where) fail("--site {}: post, linear and gate are possible", in_quotes(place));
  const auto how = mode_from_name(mode);
  if (!how) fail("--mode {}: set, add, scale, max and if-active are possible", in_quotes(mode));
  std::vector<Held> held;
  for (const std::string& text : sets)
    held.push_back({.setting = setting_from(text), .clamp = {}, .statistics = {}});
  for (const Held& h : held) {
    if (*how == ClampMode::scale && h.setting.unit != Setting::Unit::absolute)
      fail("--mode scale: takes a plain factor, not standard deviations");
  }
  if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});

  Terminal terminal({.quiet = quiet || json});
  const Watch watch = terminal.watch();
  const Session session =
      open_session(model, {.dtype = "float32", .threads = thread_count(threads), .keep_narrow = true});
  const Blueprint& blueprint = session.opened.blueprint;
  const NamedText text = calibration.empty() ? embedded_calibration() : text_from(calibration);
  std::vector<Clamp> clamps;
  for (Held& h : held) {
    const Site site = site_of(blueprint, h.setting.id);
    h.clamp = {.site = blueprint.part(site).path,
               .neuron = h.setting.id.neuron,
               .place = *where,
               .mode = *how,
               .value = h.setting.value};
    check_plan({.edits = {h.clamp}}, blueprint);
  }
  const bool measured = *how != ClampMode::scale;  // a factor needs no unit
  std::vector<std::vector<int32_t>> ids;
  if (measured)
    ids = calibration_samples(
        text.text, session.tokenizer,
        {.samples = samples, .length = std::min(length, blueprint.context), .what = text.name});
  for (Held& h : held) {
    watch.report({"measure", 0, 0, ""});
    if (watch.stop.stop_requested()) throw Stopped{};
    if (measured) {
      h.statistics = neurons::neuron_statistics(*session.model, site_of(blueprint, h.setting.id),
                                                h.clamp.neuron, *where, ids);
      if (h.setting.unit == Setting::Unit::deviations) h.clamp.value *= h.statistics.deviation;
      if (h.setting.unit == Setting::Unit::largest)
        h.clamp.value *= std::max(std::abs(h.statistics.largest), std::abs(h.statistics.smallest));
    }
    clamps.push_back(h.clamp);
  }
  check_plan({.edits = {clamps.begin(), clamps.end()}}, blueprint);

  Json record = {{"site", place}, {"mode", mode}, {"clamps", Json::array()}};
  std::string shown_text;
  for (const Held& h : held) {
    Json entry = {{"neuron", name_of(h.setting.id)}, {"value", h.clamp.value}};
    shown_text += fmt::format("{}.{} at {}, {} {:.4g}", h.setting.id.block, h.setting.id.neuron, place, mode,
                              h.clamp.value);
    if (measured) {
      const auto& s = h.statistics;
      entry["statistics"] = {{"mean", s.mean},
                             {"sd", s.deviation},
                             {"min", s.smallest},
                             {"max", s.largest},
                             {"positions", s.positions}};
      shown_text += fmt::format("   (on {} tokens: mean {:.3g}, sd {:.3g}, from {:.3g} to {:.3g})",
                                thousands(s.positions), s.mean, s.deviation, s.smallest, s.largest);
    }
    shown_text += "\n";
    record["clamps"].push_back(std::move(entry));
  }

  if (!prompt.empty()) {
    neurons::ClampInput input{
        .prompt = chat ? chat_prompt(session.tokenizer, prompt) : session.tokenizer.encode(prompt),
        .concept_tokens = {},
        .stop = stop_ids(session.opened, session.tokenizer),
        .tokens = tokens};
    const bool concept_given = !concept_text.empty();
    if (concept_given) input.concept_tokens = spellings(session.tokenizer, concept_text);
    const auto going = [&](int32_t) {
      watch.report({"answer", 0, 0, ""});  // which is where a signal is seen
      return !watch.stop.stop_requested();
    };
    const neurons::Unclamped before = neurons::unclamped(*session.model, input, going);
    const neurons::Answer after = neurons::clamped_answer(*session.model, clamps, input, before, going);
    std::vector<SweepRow> sweep;
    if (held.size() == 1 && !no_sweep && measured) {
      neurons::ClampInput shorter = input;
      shorter.tokens = std::min<int64_t>(tokens, 16);
      for (double factor : kSweep) {
        if (watch.stop.stop_requested()) throw Stopped{};
        watch.report({"sweep", static_cast<double>(sweep.size()), std::size(kSweep), ""});
        Clamp clamp = clamps.front();
        clamp.value = factor * held.front().statistics.deviation;
        sweep.push_back(
            {factor, clamp.value, neurons::clamped_answer(*session.model, {clamp}, shorter, before, going)});
      }
    }
    if (watch.stop.stop_requested()) throw Stopped{};
    terminal.clear();
    record["prompt_tokens"] = input.prompt.size();
    record["before"] = to_json(before.answer, session.tokenizer, concept_given);
    record["after"] = to_json(after, session.tokenizer, concept_given);
    if (concept_given) {
      record["concept"] = {{"word", concept_text},
                           {"tokens", input.concept_tokens},
                           {"delta_log_p", after.concept_log_p - before.answer.concept_log_p}};
    }
    for (const SweepRow& row : sweep) {
      Json entry = to_json(row.answer, session.tokenizer, concept_given);
      entry["sd"] = row.factor;
      entry["value"] = row.value;
      if (concept_given) entry["delta_log_p"] = row.answer.concept_log_p - before.answer.concept_log_p;
      record["sweep"].push_back(std::move(entry));
    }
    const auto answer_text = [&](const neurons::Answer& answer) {
      return session.tokenizer.decode(answer.ids, {.skip_special = true});
    };
    if (concept_given)
      shown_text += fmt::format("log p of {} after the prompt: {:.3f} -> {:.3f} ({:+.3f})\n",
                                in_quotes(concept_text), before.answer.concept_log_p, after.concept_log_p,
                                after.concept_log_p - before.answer.concept_log_p);
    shown_text +=
        fmt::format("KL to the unclamped model: {:.4g} nats at the next token, {:.4g} over the prompt\n",
                    after.kl, after.mean_kl);
    if (tokens > 0)
      shown_text += fmt::format("\nbefore  {}\nafter   {}\n", answer_text(before.answer), answer_text(after));
    if (!sweep.empty())
      shown_text +=
          "\n" + report::terminal_table(sweep_table(sweep, before.answer, session.tokenizer, concept_given),
                                        style_of(1));
  }

  if (bake) {
    Plan plan{.edits = {clamps.begin(), clamps.end()}};
    plan.provenance = {
        {"lamina", version_text()},
        {"method", {{"method", "neurons clamp"}, {"set", sets}, {"site", place}, {"mode", mode}}},
        {"model", {{"name", shown(model.filename())}, {"sha256", session.opened.checkpoint.hash(watch)}}}};
    const std::vector<Clamp> beyond =
        beyond_weights(plan, blueprint, clamps_of(session.opened.checkpoint.config, blueprint, shown(model)));
    const std::string type = json_string_or(session.opened.checkpoint.config, "model_type", "", shown(model));
    const std::string how_exact =
        beyond.empty()
            ? fmt::format("The clamp stands in the weights, exact up to the rounding of their type; {}.",
                          stock_name(type) == type ? "stock loaders open it"
                                                   : "lamina opens it, as it does the model that came in")
            : fmt::format(
                  "{} of {} clamps cannot be written into weights and stand in config.json: lamina runs "
                  "them, stock loaders refuse the folder.",
                  beyond.size(), clamps.size());
    const Written written = write_edited(session.opened, plan,
                                         {.out = out,
                                          .replace = force,
                                          .command = command_line(argc, argv, "neurons clamp"),
                                          .summary = how_exact},
                                         watch);
    terminal.clear();
    record["written"] = {{"folder", shown(out)}, {"exact", beyond.empty()}, {"opens_in", written.opens_in}};
    shown_text += fmt::format("\n{}  {}\n{}\nlamina neurons undo {} -o ORIGINAL takes it back\n", shown(out),
                              human_bytes(written.weight_bytes), how_exact, shown(out));
  }
  print(json ? record.dump(2, ' ', false, Json::error_handler_t::replace) + "\n" : shown_text);
  return Status::ok;
}

int run_neurons_undo(int argc, char** argv) {
  CLI::App app(
      "Take back what neurons clamp --bake or neurons erase wrote: the weights and config that were "
      "there.\n\n"
      "Example: lamina neurons undo CLAMPED -o original",
      "neurons undo");
  fs::path model, out;
  bool force = false, quiet = false;
  app.add_option("MODEL", model, "the folder that was written")->required();
  app.add_option("-o,--output", out, "folder to write")->required();
  app.add_flag("--force", force, "replace the output folder");
  app.add_flag("-q,--quiet", quiet, "no progress");
  parse(app, argc, argv);
  Terminal terminal({.quiet = quiet});
  const Checkpoint original = undo(model, terminal.watch());
  StagedFolder folder(out, {.replace = force, .inputs = {model}});
  const WriteOptions options{.dtype = {}, .watch = terminal.watch()};
  write_folder(original, folder.path(), options);
  const Opened again = open(folder.path());
  check_equal(original, again.checkpoint, options);
  const std::string hash = again.checkpoint.hash(terminal.watch());
  folder.commit();
  terminal.clear();
  print(fmt::format("{}  as it was (sha256 {})\n", shown(folder.target()), hash));
  return Status::ok;
}

}  // namespace lamina::cli
