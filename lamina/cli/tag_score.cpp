// lamina tag score: precision, recall and F1 of the entities in a file of gold and predicted tags. Free of
// torch.
#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/tag_table.h"
#include "lamina/label/conll.h"
#include "lamina/label/score.h"

namespace lamina::cli {

namespace {

using namespace label;

std::string standard_input() {
  constexpr size_t most = size_t{1} << 30;
  std::string text;
  std::array<char, 1 << 16> part;
  while (const size_t count = std::fread(part.data(), 1, part.size(), stdin)) {
    text.append(part.data(), count);
    if (text.size() > most) fail("the standard input: holds more than {}", human_bytes(most));
  }
  if (std::ferror(stdin) != 0) fail("the standard input cannot be read: {}", std::strerror(errno));
  return text;
}

// A strict reading has no word for another scheme's prefixes: says where one stands, and what reads it.
void check_prefixes(const Scored& scored, Scheme scheme, std::string_view what) {
  for (size_t s = 0; s < scored.gold.size(); ++s) {
    for (size_t i = 0; i < scored.gold[s].size(); ++i) {
      for (const bool gold : {true, false}) {
        const std::vector<Tags>& side = gold ? scored.gold : scored.predicted;
        const std::string& tag = side[s][i];
        if (tag == "O" || prefixes(scheme).find(tag[0]) != std::string_view::npos) continue;
        const auto right = scheme_of(side);
        fail("{}: line {}: the {} tag {} has a prefix that {} does not have; {}", what,
             scored.lines[s] + static_cast<int64_t>(i), gold ? "gold" : "predicted", in_quotes(tag),
             scheme_name(scheme),
             right ? fmt::format("--scheme {} is theirs", scheme_name(*right))
                   : std::string("--mode default reads every prefix"));
      }
    }
  }
}

// What a strict reading leaves out of the gold tags is easily overlooked.
void note_breaks(Scored& scored, Scheme scheme, std::string_view what) {
  const Breaks broken = breaks(scored.gold, scheme);
  if (broken.count == 0) return;
  const auto right = scheme_of(scored.gold);
  scored.notes.push_back(
      fmt::format("{}: gold tags break {} in {} {} and are not all read as entities, first in line {}; {}",
                  what, scheme_name(scheme), thousands(broken.count), broken.count == 1 ? "place" : "places",
                  scored.lines[static_cast<size_t>(broken.sentence)] + broken.word,
                  right ? fmt::format("--scheme {} is theirs", scheme_name(*right))
                        : std::string("--mode default reads whatever can be read")));
}

}  // namespace

int run_tag_score(int argc, char** argv) {
  CLI::App app(
      "Precision, recall and F1 of the entities in FILE, as seqeval counts them: one is right when its type, "
      "its "
      "first and its last word are.\n"
      "FILE has a word a line in columns, the last two the gold and the predicted tag, and an empty line "
      "between "
      "sentences.\n\n"
      "Example: lamina tag score predictions.conll\n"
      "         paste gold.tags predicted.tags | lamina tag score - --scheme IOBES --json | jq .f1",
      "tag score");
  std::filesystem::path file;
  std::string mode = "strict", scheme_word;
  bool as_json = false;
  app.add_option("FILE", file, "file in CoNLL columns; - reads the standard input")->required();
  app.add_option("--mode", mode,
                 "strict: entities that the scheme allows; default: all that conlleval would read")
      ->capture_default_str();
  app.add_option("--scheme", scheme_word,
                 "of --mode strict: IOB2 (taken if not named), IOB1, IOBES or BILOU");
  app.add_flag("--json", as_json, "one object on stdout, shares from 0 to 1");
  parse(app, argc, argv);

  if (mode != "strict" && mode != "default")
    fail("--mode: {} is neither strict nor default", in_quotes(mode));
  const bool strict = mode == "strict";
  if (!strict && !scheme_word.empty())
    fail("--scheme: --mode default reads every scheme alike; leave one of them out");
  const Scheme scheme = scheme_word.empty() ? Scheme::iob2 : scheme_from_name(scheme_word);

  const bool from_stdin = file == "-";
  const std::string what = from_stdin ? "the standard input" : shown(file);
  Scored scored = parse_scored(from_stdin ? standard_input() : read_file(file), what);
  if (strict) {
    check_prefixes(scored, scheme, what);
    note_breaks(scored, scheme, what);
  }
  const Reading reading = strict ? Reading::strict : Reading::lenient;
  const Score result = score(scored.gold, scored.predicted, scheme, reading);
  const std::vector<Mistake> wrong = mistakes(scored.gold, scored.predicted, scheme, reading);

  if (as_json) {
    Json json = {{"file", what}, {"mode", mode}, {"scheme", strict ? Json(scheme_name(scheme)) : Json()}};
    json.update(to_json(result));
    json["mistakes"] = faults_json(wrong);
    json["notes"] = scored.notes;
    print(json.dump(2) + "\n");
    return Status::ok;
  }
  std::string text = wrapped(fmt::format(
      "{}: {} sentences, {} words; read {}", what, thousands(result.sentences), thousands(result.words),
      strict ? fmt::format("strictly as {}", scheme_name(scheme)) : std::string("as conlleval would")));
  text += "\n" + score_table(result) + "\n" + faults_said(wrong, result);
  for (const std::string& note : scored.notes) text += "\n" + wrapped(note);
  print(text);
  return Status::ok;
}

}  // namespace lamina::cli
