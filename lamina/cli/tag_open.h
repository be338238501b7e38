// A tagger as it lies on disk: a whole model, or an adapter with what its base cannot say (labels, mask, how
// words are fed) in lamina_tagger.json beside it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/text_of.h"
#include "lamina/label/conll.h"
#include "lamina/methods/unmask/tagger.h"
#include "lamina/plan/mask.h"

namespace lamina::cli {

// lamina_tagger.json.
struct TaggerNote {
  std::string base = {}, base_sha256 = {};  // the language model: a name, and the hash of its weights
  std::vector<std::string> labels = {};
  int blocks = 0;                  // of the base
  std::vector<int> unmasked = {};  // those that look right
  unmask::Feeding feeding = {};
};
void write_tagger_note(const TaggerNote& note, const std::filesystem::path& folder);
TaggerNote read_tagger_note(const std::filesystem::path& folder);  // throws Error

// A causal language model with a classifier in place of its head and the plan's masks.
Opened masked_classifier(const Opened& base, const std::vector<std::string>& labels,
                         const unmask::Feeding& feeding, const MaskPlan& mask);

struct TaggerFlags {
  std::filesystem::path path, base = {};
  bool any_base = false;
};
void add_tagger_flags(CLI::App& app, TaggerFlags& flags);

struct OpenedTagger {
  Opened opened;
  Tokenizer tokenizer;
};
// Throws Error for what is no tagger, for an adapter without its base, and for a base other than the one it
// was trained on, unless any will do.
OpenedTagger open_tagger(const TaggerFlags& flags, const Watch& watch);

// "mask plan 0011 (blocks 15-29 look right), self-test passed".
std::string mask_line(const unmask::Tagger& tagger);
// "blocks 15-29 look right", "no block looks right".
std::string looks_right(const std::vector<int>& blocks);

// How files of words in columns are read.
struct ConllFlags {
  int word_column = 0, tag_column = -1;
  std::string scheme = {};
};
void add_conll_flags(CLI::App& app, ConllFlags& flags);
// With tags in IOB2; what was odd is added to `notes`.
label::Document tagged_document(const std::filesystem::path& path, const ConllFlags& flags,
                                std::vector<std::string>& notes);

// Sentences that are longer than a window.
int64_t split_count(const std::vector<label::Sentence>& sentences, const Tokenizer& tokenizer,
                    const unmask::EncodeOptions& encode);

}  // namespace lamina::cli
