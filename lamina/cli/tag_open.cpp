#include "lamina/cli/tag_open.h"

#include <fmt/format.h>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"
#include "lamina/heal/adapter.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

constexpr const char* kNote = "lamina_tagger.json";
constexpr const char* kVersionKey = "lamina_tagger_adapter";
constexpr int64_t kVersion = 1;

// The base that was named, or where the adapter says that it is.
fs::path base_of(const TaggerFlags& flags, const Adapter& adapter) {
  if (!flags.base.empty()) return flags.base;
  std::error_code error;
  if (!adapter.base.empty() && fs::exists(adapter.base, error)) return adapter.base;
  fail("{}: is an adapter and stands on {}, which is not here; name that model with --model",
       shown(flags.path), adapter.base.empty() ? "a model that it does not name" : in_quotes(adapter.base));
}

}  // namespace

void write_tagger_note(const TaggerNote& note, const fs::path& folder) {
  Json json = {{kVersionKey, kVersion},
               {"base_model", note.base},
               {"base_model_sha256", note.base_sha256},
               {"labels", note.labels},
               {"blocks", note.blocks}};
  write_unmasked(json, Unmasked(note.unmasked.begin(), note.unmasked.end()));
  unmask::write_feeding(json, note.feeding);
  write_file(folder / kNote, json.dump(2) + "\n");
}

TaggerNote read_tagger_note(const fs::path& folder) {
  const std::string what = (folder / kNote).string();
  if (!fs::exists(folder / kNote))
    fail("{}: there is no such file, and the adapter alone does not say what its classes are", what);
  const Json json = parse_json(read_file(folder / kNote), what);
  if (!json.is_object()) fail("{}: is not a JSON object", what);
  if (const int64_t version = json_integer(json, kVersionKey, what); version != kVersion)
    fail("{}: was written as version {} where {} is read; use the program that wrote it", what, version,
         kVersion);
  TaggerNote note{.base = json_string_or(json, "base_model", "", what),
                  .base_sha256 = json_string(json, "base_model_sha256", what),
                  .blocks = static_cast<int>(json_integer(json, "blocks", what, {.min = 1, .max = 1 << 20}))};
  if (!json_has(json, "labels") || !json.at("labels").is_array() || json.at("labels").empty())
    fail("{}: \"labels\" is not a list of classes", what);
  for (const Json& label : json.at("labels")) {
    if (!label.is_string())
      fail("{}: \"labels\" holds {}, which is no text", what, in_quotes(label.dump(), 40));
    note.labels.push_back(label.get<std::string>());
  }
  const Unmasked unmasked = read_unmasked(json, note.blocks, what);
  note.unmasked.assign(unmasked.begin(), unmasked.end());
  note.feeding = unmask::feeding_of(json, what);
  return note;
}

Opened masked_classifier(const Opened& base, const std::vector<std::string>& labels,
                         const unmask::Feeding& feeding, const MaskPlan& mask) {
  const Opened classifier = unmask::with_labels(base, labels, feeding);
  const Plan edits = edits_of(mask, classifier.blueprint);
  return edits.edits.empty() ? classifier
                             : declare(apply(classifier.checkpoint, classifier.blueprint, edits));
}

void add_tagger_flags(CLI::App& app, TaggerFlags& flags) {
  app.add_option("TAGGER", flags.path, "folder that lamina tag train wrote: a model or an adapter")
      ->required();
  app.add_option("--model", flags.base,
                 "of an adapter: the language model that it stands on (default: where it was)");
  app.add_flag("--any-base", flags.any_base,
               "of an adapter: take a base with other weights than those that it was trained on");
}

OpenedTagger open_tagger(const TaggerFlags& flags, const Watch& watch) {
  if (!is_adapter(flags.path)) {
    if (!flags.base.empty() || flags.any_base)
      fail("{}: is a whole model; --model and --any-base go with an adapter", shown(flags.path));
    Opened opened = open(flags.path);
    if (opened.blueprint.labels == 0)
      fail("{}: is a causal language model; train a tagger with lamina tag train", shown(flags.path));
    Tokenizer tokenizer = tokenizer_of(opened.checkpoint);
    return {std::move(opened), std::move(tokenizer)};
  }
  const TaggerNote note = read_tagger_note(flags.path);
  const Adapter adapter = read_adapter(flags.path);
  const fs::path path = base_of(flags, adapter);
  const Opened base = open(path);
  if (base.blueprint.labels > 0)
    fail("{}: is a token classifier; the adapter stands on a language model, {}", shown(path),
         in_quotes(note.base));
  if (!flags.any_base) {
    const std::string hash = base.checkpoint.hash(watch);
    if (hash != note.base_sha256)
      fail(
          "{}: has other weights (sha256 {}) than the model that the adapter was trained on ({}, sha256 {}); "
          "name that one with --model, or take this one with --any-base",
          shown(path), hash.substr(0, 12), note.base, note.base_sha256.substr(0, 12));
  }
  if (base.blueprint.blocks != note.blocks)
    fail("{}: has {} blocks where the adapter's base had {}", shown(path), base.blueprint.blocks,
         note.blocks);
  const Opened classifier =
      masked_classifier(base, note.labels, note.feeding, {.name = {}, .blocks = note.unmasked});
  if (std::ranges::find(adapter.whole, classifier.blueprint.head, &Stored::name) == adapter.whole.end())
    fail("{}: holds no classifier ({}), so that it cannot tag", shown(flags.path), classifier.blueprint.head);
  return {with_adapter(classifier, adapter), tokenizer_of(base.checkpoint)};
}

std::string looks_right(const std::vector<int>& blocks) {
  if (blocks.empty()) return "no block looks right";
  return fmt::format("{} {} look{} right", blocks.size() == 1 ? "block" : "blocks", ranges_text(blocks),
                     blocks.size() == 1 ? "s" : "");
}

std::string mask_line(const unmask::Tagger& tagger) {
  const MaskPlan plan = mask_plan_of(tagger.model().blueprint());
  return fmt::format("mask plan {} ({}), self-test passed", plan.name, looks_right(plan.blocks));
}

void add_conll_flags(CLI::App& app, ConllFlags& flags) {
  app.add_option("--word-column", flags.word_column, "column of the words; the first is 0, the last -1")
      ->capture_default_str()
      ->group("Data");
  app.add_option("--tag-column", flags.tag_column, "column of the tags")
      ->capture_default_str()
      ->group("Data");
  app.add_option("--scheme", flags.scheme,
                 "of the files' tags: IOB1, IOB2, IOBES, BILOU (default: found out)")
      ->group("Data");
}

label::Document tagged_document(const fs::path& path, const ConllFlags& flags,
                                std::vector<std::string>& notes) {
  std::optional<label::Scheme> scheme;
  if (!flags.scheme.empty()) scheme = label::scheme_from_name(flags.scheme);
  label::Document document = label::read_conll(
      path, {.word_column = flags.word_column, .tag_column = flags.tag_column, .tags = true});
  label::to_iob2(document, scheme, shown(path.filename()));
  notes.insert(notes.end(), document.notes.begin(), document.notes.end());
  return document;
}

int64_t split_count(const std::vector<label::Sentence>& sentences, const Tokenizer& tokenizer,
                    const unmask::EncodeOptions& encode) {
  int64_t split = 0, last = -1, counted = -1;
  for (const unmask::Window& window : unmask::windows(sentences, tokenizer, encode)) {
    if (window.sentence == last && counted != last) ++split, counted = last;
    last = window.sentence;
  }
  return split;
}

}  // namespace lamina::cli
