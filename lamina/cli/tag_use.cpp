// lamina tag eval and lamina tag predict: a tagger as it is used.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <optional>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/session.h"
#include "lamina/cli/tag_open.h"
#include "lamina/cli/tag_table.h"
#include "lamina/cli/training.h"
#include "lamina/cli/words.h"
#include "lamina/data/unicode.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

label::Reading reading_of(const std::string& mode) {
  if (mode == "strict") return label::Reading::strict;
  if (mode == "default") return label::Reading::lenient;
  fail("--mode: {} is neither strict nor default", in_quotes(mode));
}

void add_mode_flag(CLI::App& app, std::string& mode) {
  app.add_option("--mode", mode, "strict: entities that IOB2 allows; default: all that conlleval would read")
      ->capture_default_str();
}

constexpr auto kArithmetic = "of the arithmetic: float32, float64; bfloat16: products in it, faster";

at::ScalarType tagger_arithmetic(const std::string& dtype) {
  if (dtype == "bfloat16") return at::kBFloat16;
  if (dtype == "float32" || dtype == "float64") return arithmetic_of(dtype);
  fail("--dtype {}: float32, float64 and bfloat16 are possible", in_quotes(dtype));
}

struct Loaded {
  Tokenizer tokenizer;
  unmask::Tagger tagger;
};
Loaded tagger_from(const TaggerFlags& flags, const std::string& dtype, int threads, bool quiet,
                   const Watch& watch) {
  use_threads(thread_count(threads));
  keep_memory_between_steps();
  const at::ScalarType type = tagger_arithmetic(dtype);
  OpenedTagger opened = open_tagger(flags, watch);
  Loaded loaded{opened.tokenizer, {std::move(opened.opened), opened.tokenizer, {.dtype = type}}};
  if (!quiet) fmt::print(stderr, "lamina: {}\n", mask_line(loaded.tagger));
  return loaded;
}

// Types of the data that the tagger has no class for.
void note_unknown_types(const label::Document& document, const std::vector<std::string>& labels,
                        std::vector<std::string>& notes) {
  std::map<std::string, int64_t> unknown;
  for (const label::Sentence& sentence : document.sentences) {
    for (const std::string& tag : sentence.tags) {
      if (tag.starts_with("B-") && std::ranges::find(labels, tag) == labels.end()) ++unknown[tag.substr(2)];
    }
  }
  for (const auto& [type, count] : unknown)
    notes.push_back(
        fmt::format("the tagger has no class for {}, of which the data has {}: such entities can "
                    "only be missed",
                    in_quotes(type), thousands(count)));
}

// ---- predict: what comes in

// Lines as they come, and whether the next one would have to be waited for.
class Lines {
 public:
  explicit Lines(const fs::path& path)
      : name_(path.empty() || path == "-" ? "the standard input" : shown(path)) {
    if (path.empty() || path == "-") return;
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail("{}: cannot be read: {}", name_, std::strerror(errno));
  }
  ~Lines() {
    if (descriptor_ != STDIN_FILENO) ::close(descriptor_);
  }
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

  const std::string& name() const { return name_; }
  int64_t number() const { return number_; }  // of the line that came last, from 1

  // The first line with something in it, which stays to be read.
  std::string first() {
    for (size_t from = at_;;) {
      const size_t end = buffer_.find('\n', from);
      if (end == std::string::npos && !ended_) {
        from -= fill();
        continue;
      }
      const std::string line = buffer_.substr(from, end == std::string::npos ? end : end - from);
      if (!trim(line).empty() || end == std::string::npos) return line;
      from = end + 1;
    }
  }
  // Without its end; nothing at the end of the input.
  std::optional<std::string> next() {
    size_t from = at_;
    for (;;) {
      const size_t end = buffer_.find('\n', from);
      if (end != std::string::npos) return take(end, end + 1);
      from = buffer_.size();
      if (ended_)
        return at_ < buffer_.size() ? std::optional(take(buffer_.size(), buffer_.size())) : std::nullopt;
      from -= fill();
    }
  }
  bool must_wait() const {
    if (ended_ || buffer_.find('\n', at_) != std::string::npos) return false;
    pollfd poll{.fd = descriptor_, .events = POLLIN, .revents = 0};
    return ::poll(&poll, 1, 0) == 0;
  }

 private:
  std::string take(size_t end, size_t next) {
    std::string line = buffer_.substr(at_, end - at_);
    at_ = next;
    ++number_;
    if (line.ends_with('\r')) line.pop_back();
    if (number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
    return line;
  }
  // By how much what is left has moved to the front.
  size_t fill() {
    const size_t moved = at_;
    buffer_.erase(0, std::exchange(at_, 0));
    const size_t had = buffer_.size();
    buffer_.resize(had + (size_t{1} << 16));
    ssize_t count = 0;
    do {
      count = ::read(descriptor_, buffer_.data() + had, buffer_.size() - had);
    } while (count < 0 && errno == EINTR);
    if (count < 0) fail("{}: cannot be read: {}", name_, std::strerror(errno));
    buffer_.resize(had + static_cast<size_t>(count));
    ended_ = count == 0;
    return moved;
  }

  std::string name_;
  int descriptor_ = STDIN_FILENO;
  std::string buffer_;
  size_t at_ = 0;
  int64_t number_ = 0;
  bool ended_ = false;
};

// A text with its words, or a sentence whose words stand apart: these are joined by spaces.
struct Unit {
  std::string text;
  std::vector<WordPiece> pieces;
};

Unit unit_of(const label::Sentence& sentence) {
  Unit unit;
  for (const std::string& word : sentence.words) {
    if (!unit.text.empty()) unit.text += ' ';
    unit.pieces.push_back({unit.text.size(), unit.text.size() + word.size()});
    unit.text += word;
  }
  return unit;
}

struct Found {
  label::Entity entity;
  size_t begin = 0, end = 0;  // bytes of the text
  double confidence = 1;      // the lowest of its words'
};

std::vector<Found> found_in(const Unit& unit, const unmask::Tagger::Tagged& tagged, label::Reading reading) {
  std::vector<Found> all;
  for (label::Entity& entity : label::entities(tagged.tags, label::Scheme::iob2, reading)) {
    Found found{.entity = {},
                .begin = unit.pieces[static_cast<size_t>(entity.begin)].begin,
                .end = unit.pieces[static_cast<size_t>(entity.end - 1)].end};
    for (int64_t w = entity.begin; w < entity.end; ++w)
      found.confidence = std::min<double>(found.confidence, tagged.confidence[static_cast<size_t>(w)]);
    found.entity = std::move(entity);
    all.push_back(std::move(found));
  }
  return all;
}

// Places are counted in characters, as a str of Python or a char[] of Rust counts them.
Json json_of(const Unit& unit, const std::vector<Found>& all) {
  Json entities = Json::array();
  size_t byte = 0, character = 0;
  const auto place = [&](size_t at) {
    character += count_code_points(std::string_view(unit.text).substr(byte, at - byte));
    byte = at;
    return character;
  };
  for (const Found& found : all) {
    const size_t begin = place(found.begin), end = place(found.end);
    entities.push_back({{"type", found.entity.type},
                        {"start", begin},
                        {"end", end},
                        {"text", unit.text.substr(found.begin, found.end - found.begin)},
                        {"confidence", std::round(found.confidence * 1e4) / 1e4}});
  }
  return {{"text", unit.text}, {"entities", std::move(entities)}};
}

// "[PER Ada Lovelace] wrote": nothing in it can move the cursor.
std::string marked(const Unit& unit, const std::vector<Found>& all, const report::Style& style) {
  std::string text;
  const auto add = [&](std::string_view part) {
    for (const char c : part)
      text += static_cast<unsigned char>(c) < 0x20 && c != '\t' ? ' ' : c == 0x7F ? ' ' : c;
  };
  size_t at = 0;
  for (const Found& found : all) {
    add(std::string_view(unit.text).substr(at, found.begin - at));
    text += style.colour ? "\033[1m[\033[36m" : "[";
    add(found.entity.type);
    text += style.colour ? "\033[39m " : " ";
    add(std::string_view(unit.text).substr(found.begin, found.end - found.begin));
    text += style.colour ? "]\033[0m" : "]";
    at = found.end;
  }
  add(std::string_view(unit.text).substr(at));
  return text + "\n";
}

enum class Input { text, conll };
enum class Format { text, conll, json };

// Tags what came and prints it.
class Predictor {
 public:
  struct Options {
    Input input = Input::text;
    Format format = Format::json;
    label::Scheme scheme = label::Scheme::iob2;  // of the tags written
    label::Reading reading = label::Reading::strict;
  };
  Predictor(const unmask::Tagger& tagger, const Options& options)
      : tagger_(tagger), options_(options), style_(style_of(STDOUT_FILENO)) {}

  void texts(const std::vector<std::string>& lines) {
    std::vector<label::Sentence> sentences;
    std::vector<Unit> units;
    for (const std::string& line : lines) {
      Unit& unit = units.emplace_back(Unit{.text = repair_utf8(line), .pieces = {}});
      unit.pieces = words_of(unit.text);
      label::Sentence& sentence = sentences.emplace_back();
      for (const WordPiece& piece : unit.pieces)
        sentence.words.push_back(unit.text.substr(piece.begin, piece.end - piece.begin));
    }
    show(std::move(sentences), units);
  }
  void sentences(std::vector<label::Sentence> sentences) {
    std::vector<Unit> units;
    if (options_.format != Format::conll) {
      for (const label::Sentence& sentence : sentences) units.push_back(unit_of(sentence));
    }
    show(std::move(sentences), units);
  }

 private:
  void show(std::vector<label::Sentence> sentences, const std::vector<Unit>& units) {
    const auto tagged = tagger_.tag(sentences);
    std::string out;
    for (size_t i = 0; i < sentences.size(); ++i) {
      if (options_.format == Format::conll) {
        if (sentences[i].words.empty()) continue;
        label::Tags tags = written(tagged[i].tags);
        const bool from_text = options_.input == Input::text;
        if (from_text) sentences[i].tags = std::move(tags);
        out += label::conll_text(sentences[i], from_text ? label::Tags{} : tags);
        continue;
      }
      const std::vector<Found> all = found_in(units[i], tagged[i], options_.reading);
      out += options_.format == Format::json ? json_of(units[i], all).dump() + "\n"
                                             : marked(units[i], all, style_);
    }
    print(out);
  }

  // IOB2 as it was said, right or wrong; other schemes can write down entities alone.
  label::Tags written(const label::Tags& said) const {
    if (options_.scheme == label::Scheme::iob2) return said;
    return label::tags_of(label::entities(said, label::Scheme::iob2, options_.reading), std::ssize(said),
                          options_.scheme);
  }

  const unmask::Tagger& tagger_;
  Options options_;
  report::Style style_;
};

// So much is tagged at once: enough to make batches of, little enough that the first answers come soon.
constexpr size_t kLinesAtOnce = 256, kBytesAtOnce = size_t{1} << 16;

void predict_texts(Lines& lines, Predictor& predictor) {
  std::vector<std::string> waiting;
  size_t bytes = 0;
  while (std::optional<std::string> line = lines.next()) {
    bytes += line->size();
    waiting.push_back(*std::move(line));
    if (waiting.size() < kLinesAtOnce && bytes < kBytesAtOnce && !lines.must_wait()) continue;
    predictor.texts(std::exchange(waiting, {}));
    bytes = 0;
  }
  if (!waiting.empty()) predictor.texts(waiting);
}

void predict_conll(Lines& lines, int word_column, Predictor& predictor) {
  std::string waiting;
  int64_t first_line = 0;
  size_t sentences = 0;
  bool words = false;  // something other than empty lines
  const auto go = [&] {
    if (words) {
      const std::string what =
          first_line == 1 ? lines.name() : fmt::format("{}, counted from line {}", lines.name(), first_line);
      predictor.sentences(
          label::parse_conll(waiting, what, {.word_column = word_column, .tags = false}).sentences);
    }
    waiting.clear();
    sentences = 0;
    words = false;
  };
  while (const std::optional<std::string> line = lines.next()) {
    if (waiting.empty()) first_line = lines.number();
    const bool gap = trim(*line).empty();
    waiting += *line + "\n";
    words |= !gap && !line->starts_with("-DOCSTART-");
    sentences += gap ? 1 : 0;
    if (gap && (sentences >= kLinesAtOnce || waiting.size() >= kBytesAtOnce || lines.must_wait())) go();
  }
  go();
}

}  // namespace

int run_tag_eval(int argc, char** argv) {
  CLI::App app(
      "Precision, recall and F1 of a tagger on sentences with tags.\n\n"
      "Example: lamina tag eval tagger --data test.conll\n"
      "         lamina tag eval tagger/adapter --model BASE --data test.conll --json",
      "tag eval");
  TaggerFlags flags;
  ConllFlags conll;
  fs::path data;
  std::string mode = "strict", dtype = "float32";
  int threads = 1;
  bool json = false, quiet = false;
  add_tagger_flags(app, flags);
  app.add_option("--data", data, "a word and its tag a line, CoNLL")->required()->group("Data");
  add_conll_flags(app, conll);
  add_mode_flag(app, mode);
  app.add_option("--dtype", dtype, kArithmetic)->capture_default_str();
  app.add_option("--threads", threads, "threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_flag("--json", json, "one object on stdout, shares from 0 to 1");
  app.add_flag("-q,--quiet", quiet, "no progress, and no word about the mask");
  parse(app, argc, argv);
  const label::Reading reading = reading_of(mode);
  Terminal terminal({.quiet = quiet || json});
  const Watch watch = terminal.watch();
  std::vector<std::string> notes;
  const label::Document document = tagged_document(data, conll, notes);
  const auto [tokenizer, tagger] = tagger_from(flags, dtype, threads, quiet, watch);
  note_unknown_types(document, tagger.labels(), notes);

  std::vector<label::Tags> gold, said;
  for (const label::Sentence& sentence : document.sentences) gold.push_back(sentence.tags);
  for (unmask::Tagger::Tagged& tagged : tagger.tag(document.sentences, watch))
    said.push_back(std::move(tagged.tags));
  terminal.clear();
  const label::Score score = label::score(gold, said, label::Scheme::iob2, reading);
  const std::vector<label::Mistake> mistakes = label::mistakes(gold, said, label::Scheme::iob2, reading);
  const int64_t split = split_count(document.sentences, tokenizer, tagger.feeding().encode);
  const MaskPlan plan = mask_plan_of(tagger.model().blueprint());
  if (json) {
    Json record = {{"file", shown(data)}, {"mode", mode}, {"scheme", "IOB2"}};
    record.update(label::to_json(score));
    record["mistakes"] = faults_json(mistakes);
    record["split_sentences"] = split;
    record["mask"] = {{"plan", plan.name}, {"unmasked", plan.blocks}};
    record["notes"] = notes;
    print(record.dump(2) + "\n");
    return Status::ok;
  }
  std::string text = wrapped(fmt::format(
      "{}: {} sentences, {} words, {}; read {}", shown(data), thousands(score.sentences),
      thousands(score.words),
      split == 0 ? fmt::format("none longer than a window of {} tokens", tagger.feeding().encode.length)
                 : fmt::format("{} of them longer than a window of {} tokens and split", thousands(split),
                               tagger.feeding().encode.length),
      reading == label::Reading::strict ? "strictly as IOB2" : "as conlleval would"));
  text += "\n" + score_table(score) + "\n" + faults_said(mistakes, score);
  for (const std::string& note : notes) text += "\n" + wrapped(note);
  print(text);
  return Status::ok;
}

int run_tag_predict(int argc, char** argv) {
  CLI::App app(
      "Tag text or words. Text comes a line at a time and is cut into words here; CoNLL has a word a line "
      "and "
      "an\nempty line between sentences. Answers come as soon as there is nothing more to wait for.\n\n"
      "Example: lamina tag predict tagger < tweets.txt\n"
      "         lamina tag predict tagger --format json tweets.txt | jq .entities\n"
      "         lamina tag predict tagger test.conll | lamina tag score -",
      "tag predict");
  TaggerFlags flags;
  fs::path file;
  std::string format, input, scheme = "IOB2", mode = "strict", dtype = "float32";
  int threads = 1, word_column = 0;
  bool quiet = false;
  add_tagger_flags(app, flags);
  app.add_option("FILE", file, "what to tag (default: the standard input)");
  app.add_option("--input", input, "text, conll (default: conll where the first line has a tab)")
      ->check(CLI::IsMember({"text", "conll"}));
  app.add_option(
         "--format", format,
         "text: [TYPE marked] entities; conll: a column more; json: a line of JSON each, places counted "
         "in characters (default: conll for conll, text on a terminal, else json)")
      ->check(CLI::IsMember({"text", "conll", "json"}));
  app.add_option("--scheme", scheme, "of the tags that conll gets: IOB2, IOB1, IOBES, BILOU")
      ->capture_default_str();
  app.add_option("--word-column", word_column,
                 "of conll, the column of the words; the first is 0, the last -1")
      ->capture_default_str();
  add_mode_flag(app, mode);
  app.add_option("--dtype", dtype, kArithmetic)->capture_default_str();
  app.add_option("--threads", threads, "threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_flag("-q,--quiet", quiet, "no word about the mask");
  parse(app, argc, argv);
  const label::Reading reading = reading_of(mode);
  const label::Scheme written = label::scheme_from_name(scheme);
  // No Terminal: Ctrl-C is to end it at once, also where it waits for a line.
  Lines lines(file);
  const auto [tokenizer, tagger] = tagger_from(flags, dtype, threads, quiet, {});
  const bool tab = input.empty() && lines.first().find('\t') != std::string::npos;
  const Input kind = tab || input == "conll" ? Input::conll : Input::text;
  const Format shape = format == "json"                            ? Format::json
                       : format == "text"                          ? Format::text
                       : format == "conll" || kind == Input::conll ? Format::conll
                       : isatty(STDOUT_FILENO) != 0                ? Format::text
                                                                   : Format::json;
  Predictor predictor(tagger, {.input = kind, .format = shape, .scheme = written, .reading = reading});
  if (kind == Input::text)
    predict_texts(lines, predictor);
  else
    predict_conll(lines, word_column, predictor);
  return Status::ok;
}

}  // namespace lamina::cli
