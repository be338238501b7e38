// lamina neurons find, show, compare, export: what an atlas says. Free of torch, so that a lookup takes
// milliseconds.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lamina/atlas/atlas.h"
#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"

namespace lamina::cli {

namespace {

namespace fs = std::filesystem;
using namespace atlas;
using report::Cell;
using report::Column;
using report::Format;
using report::Notation;

constexpr std::array kRows = {Rows::up, Rows::gate, Rows::down, Rows::random};

std::vector<Rows> rows_of(const std::string& list) {
  std::vector<Rows> rows;
  if (list.empty()) return rows;
  for (const std::string& word : split(list, ',')) {
    const auto it = std::ranges::find(kRows, word, rows_name);
    if (it == kRows.end()) fail("--rows: {} is none of up, gate, down, random", in_quotes(word));
    if (std::ranges::find(rows, *it) == rows.end()) rows.push_back(*it);
  }
  return rows;
}

std::string set_name(Set set) {
  return set.head == Head::own ? std::string(rows_name(set.rows))
                               : fmt::format("{}, other head", rows_name(set.rows));
}

const char* pole_name(bool bottom) {
  return bottom ? "bottom" : "top";
}

// A share or probability with three digits, as small as it may be.
std::string figure(double value) {
  return std::isfinite(value) ? fmt::format("{:.3g}", value) : "none";
}

// Rounded, but never to a whole that it is not.
std::string percent(double share) {
  const std::string text = fmt::format("{:.1f} %", 100 * share);
  return text == "100.0 %" && share < 1 ? "over 99.9 %" : text == "0.0 %" && share > 0 ? "under 0.1 %" : text;
}

std::string wrapped(std::string_view text) {
  return report::terminal_verdict({.sentence = std::string(text), .figures = {}}, style_of(STDOUT_FILENO));
}

Json to_json(const Reading& reading, bool bottom) {
  Json json = {{"id", reading.token}, {"token", reading.text}, {"p", reading.p}, {"score", reading.score}};
  if (bottom) json["p_pole"] = reading.p_pole;
  return json;
}

Json to_json(const Best& best) {
  return {{"neuron", name_of(NeuronId{best.block, best.neuron})},
          {"p", std::exp(best.log_p)},
          {"score", best.score}};
}

Json to_json(const Found& found, const Atlas& atlas) {
  Json json = {{"spellings", Json::array()}, {"hits", Json::array()}, {"controls", Json::array()}};
  for (int32_t token : found.spellings)
    json["spellings"].push_back({{"id", token}, {"token", atlas.token_text(token)}});
  for (const Hit& hit : found.hits)
    json["hits"].push_back({{"neuron", name_of(hit.id)},
                            {"rows", rows_name(hit.set.rows)},
                            {"head", head_name(hit.set.head)},
                            {"pole", pole_name(hit.bottom)},
                            {"rank", hit.rank},
                            {"id", hit.reading.token},
                            {"token", hit.reading.text},
                            {"p", hit.reading.p},
                            {"p_pole", hit.reading.p_pole},
                            {"score", hit.reading.score},
                            {"kurtosis", hit.kurtosis},
                            {"first", hit.first}});
  for (const Control& control : found.controls)
    json["controls"].push_back({{"id", control.token},
                                {"rows", rows_name(control.set.rows)},
                                {"head", head_name(control.set.head)},
                                {"pole", pole_name(control.bottom)},
                                {"best", to_json(control.best)},
                                {"random", control.random ? to_json(*control.random) : Json()},
                                {"random_directions", control.random_directions},
                                {"above_tokens", control.above_tokens}});
  return json;
}

std::string csv_field(std::string_view text) {
  std::string out = "\"";
  for (char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string to_csv(const Found& found) {
  std::string text = "neuron,rows,head,pole,rank,id,token,p,p_pole,score,kurtosis,first\n";
  for (const Hit& hit : found.hits)
    text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{}\n", name_of(hit.id), rows_name(hit.set.rows),
                        head_name(hit.set.head), pole_name(hit.bottom), hit.rank, hit.reading.token,
                        csv_field(hit.reading.text), hit.reading.p, hit.reading.p_pole, hit.reading.score,
                        hit.kurtosis, csv_field(hit.first));
  return text;
}

// How far the best neuron of a set stands out; of all spellings and both poles, the likeliest.
std::string control_text(const Found& found, const Atlas& atlas) {
  std::string text;
  for (const Set& set : atlas.sets()) {
    const Control* best = nullptr;
    for (const Control& control : found.controls) {
      if (control.set == set && (!best || control.best.log_p > best->best.log_p)) best = &control;
    }
    if (!best) continue;
    const double p = std::exp(best->best.log_p);
    std::string sentence = fmt::format("{}: the likeliest for {} is {} ({} pole), p {}", set_name(set),
                                       in_quotes(atlas.token_text(best->token)),
                                       name_of(NeuronId{best->best.block, best->best.neuron}),
                                       pole_name(best->bottom), figure(p));
    if (best->random) {
      const double chance = std::exp(best->random->log_p);
      sentence += fmt::format("; the best of {} random directions of the same norms gives {}",
                              thousands(best->random_directions), figure(chance));
      sentence += p > chance ? fmt::format(", {:.3g} times less", p / chance) : ", no less: that is chance";
    } else {
      sentence += "; the atlas holds no random directions to compare with";
    }
    sentence += fmt::format("; {} of the other tokens have a best neuron with a smaller p",
                            percent(best->above_tokens));
    text += wrapped(sentence + ".");
  }
  return text;
}

std::string to_text(const Found& found, const Atlas& atlas) {
  std::string spellings;
  for (int32_t token : found.spellings)
    spellings +=
        fmt::format("{}{} ({})", spellings.empty() ? "" : ", ", in_quotes(atlas.token_text(token)), token);
  std::string text = wrapped("Tokens: " + spellings) + "\n";
  if (found.hits.empty()) {
    text += wrapped(fmt::format("No neuron has it among its {} labels at either pole.", atlas.header().top));
  } else {
    report::Table table{.title = {},
                        .columns = {{"neuron", Column::Kind::label, {}},
                                    {"rows", Column::Kind::label, {}},
                                    {"pole", Column::Kind::label, {}},
                                    {"token", Column::Kind::label, {}},
                                    {"rank", Column::Kind::number, report::whole()},
                                    {"p", Column::Kind::label, {}},
                                    {"score", Column::Kind::number, {Notation::fixed, 2}},
                                    {"kurtosis", Column::Kind::number, {Notation::fixed, 2}},
                                    {"first label", Column::Kind::label, {}}},
                        .rows = {},
                        .note = {}};
    for (const Hit& hit : found.hits)
      table.rows.push_back({.cells = {name_of(hit.id), set_name(hit.set), pole_name(hit.bottom),
                                      in_quotes(hit.reading.text), hit.rank, figure(hit.reading.p_pole),
                                      hit.reading.score, hit.kurtosis, in_quotes(hit.first)},
                            .mark = {}});
    text += report::terminal_table(table, style_of(STDOUT_FILENO));
  }
  return text + "\n" + control_text(found, atlas);
}

Json to_json(const Shown& shown) {
  Json json = {{"top", Json::array()},
               {"bottom", Json::array()},
               {"kurtosis", shown.decoded.kurtosis},
               {"norm", shown.decoded.norm},
               {"mean", shown.decoded.mean},
               {"deviation", shown.decoded.deviation},
               {"log_sum", shown.decoded.log_sum},
               {"log_sum_negated", shown.decoded.log_sum_negated},
               {"kurtosis_rank", shown.kurtosis_rank},
               {"of", shown.of}};
  for (const Reading& reading : shown.top) json["top"].push_back(to_json(reading, false));
  for (const Reading& reading : shown.bottom) json["bottom"].push_back(to_json(reading, true));
  return json;
}

// The two poles side by side.
std::string to_text(const Shown& shown, Set set) {
  const char* role = set.rows == Rows::down ? "writes" : set.rows == Rows::random ? "means nothing" : "reads";
  report::Table table{.title = fmt::format("{} ({}): norm {}, kurtosis {}, rank {} of {}", set_name(set),
                                           role, figure(shown.decoded.norm), figure(shown.decoded.kurtosis),
                                           thousands(shown.kurtosis_rank), thousands(shown.of)),
                      .columns = {{"top", Column::Kind::label, {}},
                                  {"p", Column::Kind::label, {}},
                                  {"score", Column::Kind::number, {Notation::fixed, 2}},
                                  {"bottom", Column::Kind::label, {}},
                                  {"p", Column::Kind::label, {}},
                                  {"score", Column::Kind::number, {Notation::fixed, 2}}},
                      .rows = {},
                      .note = {}};
  for (size_t i = 0; i < std::max(shown.top.size(), shown.bottom.size()); ++i) {
    std::vector<Cell> cells;
    for (const auto* readings : {&shown.top, &shown.bottom}) {
      if (i < readings->size()) {
        const Reading& reading = (*readings)[i];
        cells.insert(cells.end(),
                     {Cell(in_quotes(reading.text)), Cell(figure(reading.p_pole)), Cell(reading.score)});
      } else {
        cells.insert(cells.end(), {Cell(""), Cell(""), Cell(report::not_measured)});
      }
    }
    table.rows.push_back({.cells = std::move(cells), .mark = {}});
  }
  return report::terminal_table(table, style_of(STDOUT_FILENO));
}

std::string to_text(const Comparison& comparison) {
  std::string text = wrapped(fmt::format(
      "{}, {}: {} of {} neurons ({}) have the same first label; their top lists overlap by {:.3f} "
      "(mean Jaccard index).",
      rows_name(comparison.set.rows),
      comparison.heads == "each its own" ? "each model's own head" : "the head is " + comparison.heads,
      thousands(comparison.same), thousands(comparison.neurons),
      percent(static_cast<double>(comparison.same) / static_cast<double>(comparison.neurons)),
      comparison.overlap));
  report::Table table{.title = {},
                      .columns = {{"block", Column::Kind::number, report::whole()},
                                  {"neurons", Column::Kind::number, report::whole()},
                                  {"same", Column::Kind::number, report::whole()},
                                  {"share", Column::Kind::number, {Notation::fixed, 1, "%"}},
                                  {"overlap", Column::Kind::number, {Notation::fixed, 3}}},
                      .rows = {},
                      .note = {}};
  for (const Comparison::Block& block : comparison.blocks)
    table.rows.push_back(
        {.cells = {block.block, block.neurons, block.same,
                   100.0 * static_cast<double>(block.same) / static_cast<double>(block.neurons),
                   block.overlap},
         .mark = {}});
  return text + report::terminal_table(table, style_of(STDOUT_FILENO)) + "\n";
}

Json to_json(const Comparison& comparison) {
  const auto share = [](int64_t same, int64_t neurons) {
    return static_cast<double>(same) / static_cast<double>(neurons);
  };
  Json json = {{"rows", rows_name(comparison.set.rows)},
               {"heads", comparison.heads},
               {"neurons", comparison.neurons},
               {"same", comparison.same},
               {"share", share(comparison.same, comparison.neurons)},
               {"overlap", comparison.overlap},
               {"blocks", Json::array()}};
  for (const Comparison::Block& block : comparison.blocks)
    json["blocks"].push_back({{"block", block.block},
                              {"neurons", block.neurons},
                              {"same", block.same},
                              {"share", share(block.same, block.neurons)},
                              {"overlap", block.overlap}});
  return json;
}

}  // namespace

int run_neurons_find(int argc, char** argv) {
  CLI::App app(
      "Which neurons read or write a word: all tokens that spell it (white space and case set aside), at "
      "both "
      "poles, and how far that is from chance.\n\nExample: lamina neurons find atlas.sqlite dog --rows up "
      "--top 5",
      "neurons find");
  fs::path path;
  std::string concept_text, rows;
  int64_t top = 20;
  bool as_json = false, as_csv = false;
  app.add_option("ATLAS", path, "made by lamina neurons map")->required();
  app.add_option("CONCEPT", concept_text, "a word that is one token")->required();
  app.add_option("--rows", rows, "of up,gate,down (and random) those to look in; all there are if left out");
  app.add_option("--top", top, "neurons to list")->capture_default_str()->check(CLI::Range(1, 100000));
  auto* json = app.add_flag("--json", as_json, "one object on stdout");
  app.add_flag("--csv", as_csv, "a line a neuron on stdout")->excludes(json);
  parse(app, argc, argv);
  const std::vector<Rows> wanted = rows_of(rows);
  const Atlas atlas(path);
  const Found found = atlas.find(concept_text, {.rows = wanted, .top = top});
  print(as_json ? to_json(found, atlas).dump(2) + "\n" : as_csv ? to_csv(found) : to_text(found, atlas));
  return Status::ok;
}

int run_neurons_show(int argc, char** argv) {
  CLI::App app(
      "What a neuron reads and writes: the tokens at both poles of its rows, and where it stands among "
      "all.\n\n"
      "Example: lamina neurons show atlas.sqlite 12.345",
      "neurons show");
  fs::path path;
  std::string name;
  bool as_json = false;
  app.add_option("ATLAS", path, "made by lamina neurons map")->required();
  app.add_option("NEURON", name, "BLOCK.NEURON")->required();
  app.add_flag("--json", as_json, "one object on stdout; p is always that of the whole softmax");
  parse(app, argc, argv);
  const NeuronId id = neuron_id(name);
  const Atlas atlas(path);
  Json json = Json::object();
  std::string text;
  for (const Set& set : atlas.sets()) {
    if (set.rows == Rows::random) continue;
    const std::optional<Shown> shown = atlas.show(set, id);
    if (!shown) continue;
    (set.head == Head::own ? json : json["other_head"])[std::string(rows_name(set.rows))] = to_json(*shown);
    text += to_text(*shown, set) + "\n";
  }
  if (json.empty()) {
    const Header& header = atlas.header();
    fail("{}: holds no neuron {}; the model has {} blocks of {} neurons, and {} of the blocks were mapped",
         shown(path), name_of(id), header.blocks, header.neurons, header.decoded_blocks.size());
  }
  json["cosines"] = Json::object();
  if (const std::optional<Angles> angles = atlas.angles(id)) {
    json["cosines"] = {
        {"gate_up", angles->gate_up}, {"up_down", angles->up_down}, {"gate_down", angles->gate_down}};
    text += fmt::format("cosines: up and down {}, gate and down {}, gate and up {}\n",
                        figure(angles->up_down), figure(angles->gate_down), figure(angles->gate_up));
  }
  print(as_json ? json.dump(2) + "\n"
                : fmt::format("neuron {} of {}\n\n", name_of(id), in_quotes(atlas.header().model)) + text);
  return Status::ok;
}

int run_neurons_compare(int argc, char** argv) {
  CLI::App app(
      "How many neurons of two models of one shape have the same first label, block by block.\n\nExample: "
      "lamina "
      "neurons compare base.sqlite instruct.sqlite --json | jq '.comparisons[0].share'",
      "neurons compare");
  fs::path first_path, second_path;
  bool as_json = false;
  app.add_option("ATLAS", first_path, "made by lamina neurons map")->required();
  app.add_option("ATLAS2", second_path, "of a model of the same shape")->required();
  app.add_flag("--json", as_json, "one object on stdout");
  parse(app, argc, argv);
  const Atlas first(first_path), second(second_path);
  const std::vector<Comparison> comparisons = compare(first, second);
  Json json = {
      {"first", first.header().model},
      {"second", second.header().model},
      {"paper",
       {{"share", 0.754}, {"of", "Llama 3.1 8B and its Instruct version, up rows (arXiv 2501.02688)"}}},
      {"comparisons", Json::array()}};
  std::string text;
  bool one_head = false;
  for (const Comparison& comparison : comparisons) {
    json["comparisons"].push_back(to_json(comparison));
    text += to_text(comparison);
    one_head |= comparison.set.head == Head::other;
  }
  text += wrapped(
      "The paper (arXiv 2501.02688) gives 75.4 % for the up rows of Llama 3.1 8B and its Instruct version.");
  if (!one_head)
    text += wrapped(
        "With the first model's head for both, which leaves out what changed in the head alone: lamina "
        "neurons map "
        "MODEL2 --head MODEL1 -o ATLAS3, then compare ATLAS with ATLAS3.");
  print(as_json ? json.dump(2) + "\n" : text);
  return Status::ok;
}

int run_neurons_export(int argc, char** argv) {
  CLI::App app(
      "An atlas as CSV (a line a label) or JSON (a line a neuron), by the file's ending.\n\nExample: lamina "
      "neurons "
      "export atlas.sqlite -o atlas.csv",
      "neurons export");
  fs::path path, out;
  app.add_option("ATLAS", path, "made by lamina neurons map")->required();
  bool force = false;
  app.add_option("-o,--output", out, "FILE.csv or FILE.json")->required();
  app.add_flag("--force", force, "replace an existing file");
  parse(app, argc, argv);
  const bool as_csv = out.extension() == ".csv";
  if (!as_csv && out.extension() != ".json") fail("{}: name a file that ends in .csv or .json", shown(out));
  std::error_code error;
  if (fs::equivalent(path, out, error)) fail("{}: is the atlas itself; name another file", shown(out));
  if (!force && fs::exists(out, error))
    fail("{}: exists already; name another file or add --force", shown(out));
  const Atlas atlas(path);
  as_csv ? atlas.write_csv(out) : atlas.write_json(out);
  print(fmt::format("{}  {}\n", shown(out), human_bytes(fs::file_size(out))));
  return Status::ok;
}

}  // namespace lamina::cli
