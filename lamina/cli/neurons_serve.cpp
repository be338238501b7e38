// lamina neurons serve: an atlas as a page on this machine, and with a model beside it a place to try clamps.
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "lamina/atlas/atlas.h"
#include "lamina/base/error.h"
#include "lamina/base/json_number.h"
#include "lamina/base/text.h"
#include "lamina/cli/chat.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/neurons_page.h"
#include "lamina/cli/session.h"
#include "lamina/data/text_set.h"
#include "lamina/eval/generate.h"
#include "lamina/methods/neurons/clamp.h"
#include "lamina/model/clamping.h"
#include "lamina/serve/local_page.h"

extern char** environ;

namespace lamina::cli {

namespace {

namespace fs = std::filesystem;
using atlas::Atlas;
using atlas::NeuronId;
using serve::Lines;
using serve::Query;

// What one request may ask for.
constexpr int64_t kPromptTokens = 512, kAnswerTokens = 200, kListed = 200, kClamps = 8;
// The text on which a neuron's standard deviation is taken; `neurons clamp` takes the same unless told
// otherwise.
constexpr int64_t kSamples = 4, kSampleTokens = 256;
constexpr size_t kRemembered = 256;  // statistics kept
constexpr int64_t kNext = 8;         // likeliest next tokens shown

// ---- numbers and texts of a query

int64_t integer_of(const Query& query, const std::string& name, std::optional<int64_t> otherwise,
                   IntegerRange range) {
  const auto found = query.find(name);
  if (found == query.end()) {
    if (!otherwise) fail("the address lacks {}=", name);
    return *otherwise;
  }
  int64_t value = 0;
  const char* end = found->second.data() + found->second.size();
  const auto [stopped, wrong] = std::from_chars(found->second.data(), end, value);
  if (wrong != std::errc() || stopped != end || value < range.min || value > range.max)
    fail("{}={}: a whole number from {} to {} is expected", name, in_quotes(found->second), range.min,
         range.max);
  return value;
}

std::string text_of(const Query& query, const std::string& name) {
  const auto found = query.find(name);
  return found == query.end() ? "" : found->second;
}

atlas::Rows rows_of(const Query& query) {
  const std::string name = text_of(query, "rows");
  for (const atlas::Rows rows : {atlas::Rows::up, atlas::Rows::gate, atlas::Rows::down}) {
    if (name.empty() || name == atlas::rows_name(rows)) return rows;
  }
  fail("rows={}: up, gate and down are known", in_quotes(name));
}

Json to_json(atlas::Set set) {
  return {{"rows", atlas::rows_name(set.rows)}, {"head", atlas::head_name(set.head)}};
}

Json to_json(const atlas::Reading& reading) {
  return {{"token", reading.token},
          {"text", reading.text},
          {"score", number_or_null(reading.score)},
          {"p", number_or_null(reading.p_pole)}};
}

// ---- the reading half

// The atlas, asked by one connection at a time.
class Shelf {
 public:
  explicit Shelf(const fs::path& path) : atlas_(path) {}

  Json header() {
    const std::lock_guard lock(mutex_);
    const atlas::Header& header = atlas_.header();
    Json sets = Json::array();
    for (const atlas::Set set : atlas_.sets()) sets.push_back(to_json(set));
    return {{"model", header.model},
            {"model_sha256", header.model_sha256},
            {"head_model", header.head_model},
            {"lens", header.lens},
            {"norm", header.norm},
            {"lamina", header.lamina},
            {"width", header.width},
            {"neurons", header.neurons},
            {"vocabulary", header.vocabulary},
            {"blocks", header.blocks},
            {"decoded_blocks", header.decoded_blocks},
            {"top", header.top},
            {"random", header.random},
            {"sets", sets}};
  }

  Json tokens(const Query& query) {
    const std::lock_guard lock(mutex_);
    Json tokens = Json::array();
    const std::string start = text_of(query, "start");
    if (!start.empty()) {
      for (const int32_t token : atlas_.tokens_like(start, integer_of(query, "limit", 12, {1, 50})))
        tokens.push_back({{"token", token}, {"text", atlas_.token_text(token)}});
    }
    return {{"tokens", tokens}};
  }

  Json find(const Query& query) {
    const std::lock_guard lock(mutex_);
    atlas::Atlas::FindOptions options{.top = integer_of(query, "top", 20, {1, kListed})};
    if (query.contains("rows")) options.rows = {rows_of(query)};
    const std::string wanted = text_of(query, "concept");
    if (trim(wanted).empty()) fail("a concept is expected: a word that is one token");
    const atlas::Found found = atlas_.find(wanted, options);
    Json spellings = Json::array(), hits = Json::array(), controls = Json::array();
    for (const int32_t token : found.spellings)
      spellings.push_back({{"token", token}, {"text", atlas_.token_text(token)}});
    for (const atlas::Hit& hit : found.hits) hits.push_back(to_json(hit));
    for (const atlas::Control& control : found.controls) controls.push_back(to_json(control));
    return {{"concept", wanted}, {"spellings", spellings}, {"hits", hits}, {"controls", controls}};
  }

  Json blocks(const Query& query) {
    const std::lock_guard lock(mutex_);
    Json blocks = Json::array();
    for (const Atlas::BlockSummary& block : atlas_.summary({rows_of(query), atlas::Head::own}))
      blocks.push_back({{"block", block.block},
                        {"neurons", block.neurons},
                        {"median_kurtosis", number_or_null(block.median_kurtosis)},
                        {"high_kurtosis", number_or_null(block.high_kurtosis)}});
    return {{"blocks", blocks}};
  }

  Json neurons(const Query& query) {
    const std::lock_guard lock(mutex_);
    const int64_t last = atlas_.header().blocks - 1;
    const int64_t block = integer_of(query, "block", std::nullopt, {-1, last});
    const int64_t limit = integer_of(query, "limit", 50, {1, kListed});
    const int64_t offset = integer_of(query, "offset", 0, {0, int64_t{1} << 40});
    const atlas::Set set{rows_of(query), atlas::Head::own};
    Json hits = Json::array();
    for (const atlas::Hit& hit : atlas_.by_kurtosis(set, static_cast<int>(block), limit, offset)) {
      Json entry = to_json(hit);
      if (const auto shown = atlas_.show(set, hit.id)) {
        entry["top"] = labels(shown->top, 3);
        entry["bottom"] = labels(shown->bottom, 3);
      }
      hits.push_back(std::move(entry));
    }
    return {{"block", block}, {"offset", offset}, {"limit", limit}, {"hits", hits}};
  }

  Json neuron(const Query& query) {
    const std::lock_guard lock(mutex_);
    const NeuronId id = checked(text_of(query, "id"));
    Json sets = Json::array();
    for (const atlas::Set set : atlas_.sets()) {
      if (set.rows == atlas::Rows::random) continue;
      const auto shown = atlas_.show(set, id);
      if (!shown) continue;
      Json entry = to_json(set);
      entry["top"] = labels(shown->top, -1);
      entry["bottom"] = labels(shown->bottom, -1);
      entry["norm"] = number_or_null(shown->decoded.norm);
      entry["mean"] = number_or_null(shown->decoded.mean);
      entry["deviation"] = number_or_null(shown->decoded.deviation);
      entry["kurtosis"] = number_or_null(shown->decoded.kurtosis);
      entry["kurtosis_rank"] = shown->kurtosis_rank;
      entry["of"] = shown->of;
      sets.push_back(std::move(entry));
    }
    if (sets.empty()) fail("neuron {} is not in this atlas; its block was not mapped", name_of(id));
    Json answer = {{"id", name_of(id)}, {"sets", sets}, {"angles", nullptr}};
    if (const auto angles = atlas_.angles(id))
      answer["angles"] = {{"gate_up", number_or_null(angles->gate_up)},
                          {"up_down", number_or_null(angles->up_down)},
                          {"gate_down", number_or_null(angles->gate_down)}};
    return answer;
  }

  std::string token_text(int32_t token) {
    const std::lock_guard lock(mutex_);
    return atlas_.token_text(token);
  }
  std::vector<int32_t> spellings(std::string_view wanted) {
    const std::lock_guard lock(mutex_);
    std::vector<int32_t> tokens = atlas_.spellings(wanted);
    if (tokens.empty()) fail("no single token spells {}; choose another word", in_quotes(wanted));
    return tokens;
  }
  NeuronId neuron_id(std::string_view text) {
    const std::lock_guard lock(mutex_);
    return checked(text);
  }
  std::string model_hash() { return atlas_.header().model_sha256; }
  std::string model_name() { return atlas_.header().model; }
  int64_t vocabulary() { return atlas_.header().vocabulary; }

 private:
  NeuronId checked(std::string_view text) const {
    const NeuronId id = atlas::neuron_id(text);
    const atlas::Header& header = atlas_.header();
    if (id.block < 0 || id.block >= header.blocks || id.neuron < 0 || id.neuron >= header.neurons)
      fail("{} is no neuron of {}: blocks go from 0 to {} and neurons from 0 to {}", name_of(id),
           in_quotes(header.model), header.blocks - 1, header.neurons - 1);
    return id;
  }

  static Json labels(const std::vector<atlas::Reading>& readings, int64_t most) {
    Json list = Json::array();
    for (const atlas::Reading& reading : readings) {
      if (most >= 0 && static_cast<int64_t>(list.size()) >= most) break;
      list.push_back(to_json(reading));
    }
    return list;
  }

  static Json to_json(atlas::Set set) { return cli::to_json(set); }
  static Json to_json(const atlas::Reading& reading) { return cli::to_json(reading); }
  static Json to_json(const atlas::Hit& hit) {
    return {{"id", name_of(hit.id)},
            {"rows", atlas::rows_name(hit.set.rows)},
            {"head", atlas::head_name(hit.set.head)},
            {"pole", hit.bottom ? "bottom" : "top"},
            {"rank", hit.rank},
            {"reading", cli::to_json(hit.reading)},
            {"kurtosis", number_or_null(hit.kurtosis)},
            {"first", hit.first}};
  }
  Json to_json(const atlas::Control& control) const {
    Json entry = {{"rows", atlas::rows_name(control.set.rows)},
                  {"head", atlas::head_name(control.set.head)},
                  {"pole", control.bottom ? "bottom" : "top"},
                  {"token", control.token},
                  {"text", atlas_.token_text(control.token)},
                  {"best", name_of(NeuronId{control.best.block, control.best.neuron})},
                  {"best_p", number_or_null(std::exp(control.best.log_p))},
                  {"random_p", nullptr},
                  {"random_directions", control.random_directions},
                  {"above_tokens", number_or_null(control.above_tokens)}};
    if (control.random) entry["random_p"] = number_or_null(std::exp(control.random->log_p));
    return entry;
  }

  std::mutex mutex_;
  Atlas atlas_;
};

// ---- the computing half

struct WantedClamp {
  NeuronId id;
  Clamp clamp;
  Site site;
  bool in_deviations = false;
  double value = 0;  // as given
};

struct Wanted {
  std::vector<int32_t> prompt, concept_tokens;
  std::vector<WantedClamp> clamps;
  int64_t tokens = 0;
};

template <class Value>
Value chosen(const Json& object, std::string_view key, std::span<const Value> values,
             std::string_view (*name)(Value)) {
  const std::string asked = json_string_or(object, key, name(values.front()), "the request");
  std::string known;
  for (const Value value : values) {
    if (asked == name(value)) return value;
    known += (known.empty() ? "" : ", ") + std::string(name(value));
  }
  fail("{} {}: known are {}", key, in_quotes(asked), known);
}

// A model and what it said last. Called by one computation at a time.
class Bench {
 public:
  Bench(Session session, Shelf& shelf, int threads)
      : session_(std::move(session)), shelf_(shelf), threads_(threads) {}

  Json about() const {
    const Blueprint& blueprint = session_.opened.blueprint;
    Json places = Json::array();
    const auto sites = blueprint.with_neurons();
    const bool gated = !sites.empty() && !blueprint.part(sites.front()).neurons->gate.empty();
    for (const NeuronPlace place : {NeuronPlace::post, NeuronPlace::linear, NeuronPlace::gate})
      if (place != NeuronPlace::gate || gated) places.push_back(place_name(place));
    return {{"path", shown(session_.opened.checkpoint.path)},
            {"chat", session_.tokenizer.chat_template().has_value()},
            {"places", places},
            {"prompt_tokens", kPromptTokens},
            {"answer_tokens", kAnswerTokens},
            {"statistics_tokens", kSamples * kSampleTokens}};
  }

  serve::Work prepare(const Json& body) {
    constexpr std::string_view what = "the request";
    Wanted wanted;
    const std::string prompt = json_string(body, "prompt", what);
    if (json_bool_or(body, "chat", false, what))
      wanted.prompt = chat_prompt(session_.tokenizer, prompt);
    else
      wanted.prompt = session_.tokenizer.encode(prompt);
    if (wanted.prompt.empty()) fail("the prompt is empty; write something that the model can go on from");
    if (static_cast<int64_t>(wanted.prompt.size()) > kPromptTokens)
      fail("the prompt has {} tokens where this page takes {}; shorten it", wanted.prompt.size(),
           kPromptTokens);
    for (const int32_t id : wanted.prompt)
      if (id < 0 || id >= session_.opened.blueprint.vocabulary)
        fail("the prompt holds a token that the model does not know; leave out its special words");
    wanted.tokens = json_integer_or(body, "tokens", 40, what, {0, kAnswerTokens});
    const std::string wanted_concept = json_string_or(body, "concept", "", what);
    if (!trim(wanted_concept).empty()) wanted.concept_tokens = shelf_.spellings(wanted_concept);
    if (!json_has(body, "clamps") || !body.at("clamps").is_array() || body.at("clamps").empty())
      fail("the request lacks \"clamps\": a list of neurons and what to hold them at");
    if (static_cast<int64_t>(body.at("clamps").size()) > kClamps)
      fail("at most {} clamps at a time", kClamps);
    for (const Json& one : body.at("clamps")) wanted.clamps.push_back(clamp_of(one));
    return [this, wanted = std::move(wanted)](Lines& lines) { work(wanted, lines); };
  }

 private:
  WantedClamp clamp_of(const Json& one) const {
    constexpr std::string_view what = "a clamp of the request";
    const Blueprint& blueprint = session_.opened.blueprint;
    WantedClamp wanted;
    wanted.id = shelf_.neuron_id(json_string(one, "id", what));
    const auto sites = blueprint.with_neurons();
    const auto found =
        std::ranges::find_if(sites, [&](Site site) { return blueprint.part(site).block == wanted.id.block; });
    if (found == sites.end()) fail("block {} of this model has no feed-forward", wanted.id.block);
    wanted.site = *found;
    constexpr std::array places = {NeuronPlace::post, NeuronPlace::linear, NeuronPlace::gate};
    constexpr std::array modes = {ClampMode::set, ClampMode::add, ClampMode::scale, ClampMode::max,
                                  ClampMode::if_active};
    wanted.clamp = {.site = blueprint.part(wanted.site).path,
                    .neuron = wanted.id.neuron,
                    .place = chosen<NeuronPlace>(one, "place", places, place_name),
                    .mode = chosen<ClampMode>(one, "mode", modes, mode_name)};
    const double none = std::nan("");
    wanted.value = json_number_or(one, "value", none, what);
    if (!std::isfinite(wanted.value) || std::abs(wanted.value) > 1e6)
      fail("value: a number of at most a million is expected");
    const std::string unit = json_string_or(one, "unit", "sd", what);
    if (unit != "sd" && unit != "absolute") fail("unit {}: sd and absolute are known", in_quotes(unit));
    // A factor has no unit.
    wanted.in_deviations = unit == "sd" && wanted.clamp.mode != ClampMode::scale;
    check_plan({.edits = {wanted.clamp}}, blueprint);
    return wanted;
  }

  const neurons::NeuronStatistics& statistics(const WantedClamp& wanted) {
    const auto key = std::tuple(wanted.site, wanted.id.neuron, wanted.clamp.place);
    if (const auto known = statistics_.find(key); known != statistics_.end()) return known->second;
    if (samples_.empty()) {
      const NamedText text = embedded_calibration();
      samples_ = calibration_samples(text.text, session_.tokenizer,
                                     {.samples = kSamples,
                                      .length = std::min(kSampleTokens, session_.opened.blueprint.context),
                                      .what = text.name});
    }
    if (statistics_.size() >= kRemembered) statistics_.clear();
    return statistics_
        .emplace(key, neurons::neuron_statistics(*session_.model, wanted.site, wanted.id.neuron,
                                                 wanted.clamp.place, samples_))
        .first->second;
  }

  Json side(const neurons::Answer& answer, const Wanted& wanted) const {
    Json next = Json::array();
    for (const neurons::TokenProbability& one : answer.next)
      next.push_back({{"token", one.token}, {"text", shelf_.token_text(one.token)}, {"p", one.p}});
    return {{"next", next},
            {"concept_log_p",
             wanted.concept_tokens.empty() ? Json(nullptr) : number_or_null(answer.concept_log_p)}};
  }

  // The continuation, each piece of text as soon as its characters are whole.
  std::vector<std::string> write(const Wanted& wanted, Tap& tap, std::string_view name, Lines& lines) const {
    std::vector<std::string> pieces;
    TokenStream stream(session_.tokenizer, {.skip_special = true});
    stream.push(wanted.prompt.back());  // the text of a token can depend on the one before
    const auto say = [&](std::string piece) {
      if (piece.empty()) return;
      lines.add({{"event", "text"}, {"side", name}, {"text", piece}});
      pieces.push_back(std::move(piece));
    };
    const Generated made = generate(*session_.model, wanted.prompt,
                                    {.tokens = wanted.tokens,
                                     .stop = stop_ids(session_.opened, session_.tokenizer),
                                     .on_token =
                                         [&](int32_t id) {
                                           say(stream.push(id));
                                           return lines.wanted();
                                         }},
                                    tap);
    if (!lines.wanted()) throw Stopped{};
    say(stream.finish());
    lines.add({{"event", "end"}, {"side", name}, {"tokens", made.ids.size()}});
    return pieces;
  }

  void work(const Wanted& wanted, Lines& lines) {
    const InferenceMode evaluating;
    use_threads(threads_);
    std::vector<Clamp> clamps;
    Json held = Json::array();
    for (const WantedClamp& one : wanted.clamps) {
      lines.add({{"event", "measuring"}, {"id", name_of(one.id)}});
      const neurons::NeuronStatistics& seen = statistics(one);
      if (one.in_deviations && !(seen.deviation > 0))
        fail(
            "neuron {} never changes on the calibration text, so it has no standard deviation; give a value "
            "of its own",
            name_of(one.id));
      clamps.push_back(one.clamp);
      clamps.back().value = one.in_deviations ? one.value * seen.deviation : one.value;
      held.push_back({{"id", name_of(one.id)},
                      {"place", place_name(one.clamp.place)},
                      {"mode", mode_name(one.clamp.mode)},
                      {"value", clamps.back().value},
                      {"mean", seen.mean},
                      {"deviation", seen.deviation},
                      {"smallest", seen.smallest},
                      {"largest", seen.largest},
                      {"positions", seen.positions}});
    }
    lines.add({{"event", "start"}, {"prompt_tokens", wanted.prompt.size()}, {"clamps", held}});

    // What the model says unclamped does not change from one slider to the next.
    neurons::ClampInput input{
        .prompt = wanted.prompt, .concept_tokens = wanted.concept_tokens, .tokens = 0, .next = kNext};
    const bool same =
        last_ && last_->prompt == wanted.prompt && last_->concept_tokens == wanted.concept_tokens;
    if (!same)
      last_ = Last{wanted.prompt, wanted.concept_tokens, neurons::unclamped(*session_.model, input), {}, -1};
    lines.add({{"event", "before"}, {"answer", side(last_->reference.answer, wanted)}});
    const neurons::Answer after = neurons::clamped_answer(*session_.model, clamps, input, last_->reference);
    Json effect = side(after, wanted);
    effect["kl"] = number_or_null(after.kl);
    effect["mean_kl"] = number_or_null(after.mean_kl);
    if (!wanted.concept_tokens.empty())
      effect["change"] = number_or_null(after.concept_log_p - last_->reference.answer.concept_log_p);
    lines.add({{"event", "after"}, {"answer", effect}});
    if (wanted.tokens > 0) {
      if (last_->tokens == wanted.tokens) {
        for (const std::string& piece : last_->pieces)
          lines.add({{"event", "text"}, {"side", "before"}, {"text", piece}});
        lines.add({{"event", "end"}, {"side", "before"}});
      } else {
        Tap none;
        last_->tokens = -1;
        last_->pieces = write(wanted, none, "before", lines);
        last_->tokens = wanted.tokens;
      }
      Clamping tap(session_.model->blueprint(), clamps);
      write(wanted, tap, "after", lines);
    }
    lines.add({{"event", "done"}});
  }

  struct Last {
    std::vector<int32_t> prompt, concept_tokens;
    neurons::Unclamped reference;
    std::vector<std::string> pieces;
    int64_t tokens = -1;  // that were asked for; -1: the text is not there
  };

  Session session_;
  Shelf& shelf_;
  int threads_;
  std::vector<std::vector<int32_t>> samples_;
  std::map<std::tuple<Site, int, NeuronPlace>, neurons::NeuronStatistics> statistics_;
  std::optional<Last> last_;
};

// Asks the desktop to open the page; where there is none, or it does not, the address is on the terminal.
void open_in_browser(const std::string& address) {
  if (!std::getenv("DISPLAY") && !std::getenv("WAYLAND_DISPLAY")) return;
  std::string program = "xdg-open", argument = address;
  const std::array<char*, 3> words = {program.data(), argument.data(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    posix_spawn_file_actions_addopen(&actions, stream, "/dev/null", O_RDWR, 0);
  pid_t child = 0;
  if (posix_spawnp(&child, program.c_str(), &actions, nullptr, words.data(), environ) == 0)
    std::thread([child] { waitpid(child, nullptr, 0); }).detach();
  posix_spawn_file_actions_destroy(&actions);
}

}  // namespace

int run_neurons_serve(int argc, char** argv) {
  CLI::App app(
      "A page on this machine: search a token, walk the blocks, open a neuron; with a model, clamp it and "
      "watch the answer change.\n\n"
      "Example: lamina neurons serve ATLAS.sqlite --model MODEL\n"
      "The page answers to this machine alone, and only to who knows its whole address. Ctrl-C ends it.",
      "neurons serve");
  fs::path atlas_path, model;
  int port = 0, threads = 1;
  bool no_open = false, other_model = false;
  app.add_option("ATLAS", atlas_path, "what `lamina neurons map` wrote")->required();
  app.add_option("--model", model, "folder or GGUF file: neurons can then be clamped");
  app.add_option("--port", port, "of 127.0.0.1; 0: any that is free")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  app.add_option("--threads", threads, "threads")->capture_default_str()->check(CLI::Range(1, 1024));
  app.add_flag("--no-open", no_open, "do not open the page in a browser");
  app.add_flag("--other-model", other_model, "the model may be another one than that of the atlas");
  parse(app, argc, argv);
  if (other_model && model.empty()) fail("--other-model is of use with --model only");

  Terminal terminal({.quiet = true});
  const Watch watch = terminal.watch();
  Shelf shelf(atlas_path);
  std::unique_ptr<Bench> bench;
  if (!model.empty()) {
    Session session = open_session(model, {.dtype = "float32", .threads = threads, .keep_narrow = true});
    if (!other_model && session.opened.checkpoint.hash(watch) != shelf.model_hash())
      fail("{} is not the model of this atlas, {}; give that one, map this one, or add --other-model",
           model.string(), in_quotes(shelf.model_name()));
    if (session.opened.blueprint.vocabulary != shelf.vocabulary())
      fail("{} has {} tokens where the atlas has {}: its tokens are others", model.string(),
           session.opened.blueprint.vocabulary, shelf.vocabulary());
    bench = std::make_unique<Bench>(std::move(session), shelf, threads);
  }

  std::vector<EmbeddedFile> files;
  for (EmbeddedFile file : neurons_page()) {
    constexpr std::string_view folder = "assets/neurons/";
    // The report's style, so that the two look alike.
    file.name = file.name.starts_with(folder) ? file.name.substr(folder.size()) : "report.css";
    files.push_back(file);
  }
  serve::LocalPage page({.port = port, .files = std::move(files), .message = [](const std::exception& error) {
                           return message_of(error);
                         }});
  const std::string how = fmt::format("lamina neurons serve {} --model MODEL", shown(atlas_path));
  page.answer("api/header", [&](const Query&) {
    Json header = shelf.header();
    header["bench"] = bench ? bench->about() : Json(nullptr);
    header["how_to_clamp"] = how;
    return header;
  });
  page.answer("api/tokens", [&](const Query& query) { return shelf.tokens(query); });
  page.answer("api/find", [&](const Query& query) { return shelf.find(query); });
  page.answer("api/blocks", [&](const Query& query) { return shelf.blocks(query); });
  page.answer("api/neurons", [&](const Query& query) { return shelf.neurons(query); });
  page.answer("api/neuron", [&](const Query& query) { return shelf.neuron(query); });
  page.compute("api/clamp", [&](const Json& body) -> serve::Work {
    if (!bench) fail("this page only reads; to clamp, start it with {}", how);
    return bench->prepare(body);
  });
  print(page.address() + "\n");
  if (!no_open) open_in_browser(page.address());
  page.run(watch);
}

}  // namespace lamina::cli
