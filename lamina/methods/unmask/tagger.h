// A token classifier as it is used: words in, tags out. Its checkpoint is transformers' own kind
// (LlamaForTokenClassification and so on, id2label in the config), with two keys of ours: the blocks without
// causal mask (`lamina_unmasked`) and how words are fed (`lamina_tagger`).
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/family/family.h"
#include "lamina/label/score.h"
#include "lamina/methods/unmask/encode.h"
#include "lamina/model/model.h"

namespace lamina::unmask {

struct Feeding {
  EncodeOptions encode = {};
  int64_t repeat = 0;  // copies beside the one that answers
};
// `lamina_tagger` of a config; throws Error when malformed. A classifier without it is fed by the defaults.
Feeding feeding_of(const Json& config, std::string_view what);
void write_feeding(Json& config, const Feeding& feeding);

// Tags by class id. Throws Error unless id2label numbers them 0, 1, ...
std::vector<std::string> labels_of(const Json& config, std::string_view what);

// A causal language model as a token classifier with these labels: config and tensors renamed as transformers
// has it, the LM head gone, the classifier's own tensors zero. The numbers of the rest are shared.
Opened with_labels(const Opened& opened, const std::vector<std::string>& labels, const Feeding& feeding);

struct TaggerOptions {
  // Of the arithmetic: float32, float64, or bfloat16 for the matrix products alone, on a CPU that has it.
  at::ScalarType dtype = at::kFloat;
  int64_t batch_tokens = 2048;  // tokens in a batch, padding included
};

// Which blocks see the future, found out by changing a token and looking at what stands before it.
struct MaskTest {
  bool looks_right = false;
  int first_block = -1;  // the first whose output reacts
  int64_t reacting = 0;  // blocks whose output before the changed token reacts
};
// Throws Error when the reaction is not what the blueprint says.
MaskTest mask_test(const Model& model);

class Tagger {
 public:
  // Runs the mask's self-test. Throws Error for a model that is no token classifier.
  Tagger(Opened opened, Tokenizer tokenizer, const TaggerOptions& options);

  struct Tagged {
    label::Tags tags;               // one a word; a word without a token gets "O"
    std::vector<float> confidence;  // of each tag, 0 to 1
  };
  // In the order of the sentences; batches are made of sentences of like length.
  std::vector<Tagged> tag(std::span<const label::Sentence> sentences, const Watch& watch = {}) const;

  const std::vector<std::string>& labels() const { return labels_; }
  const Feeding& feeding() const { return feeding_; }
  const Opened& opened() const { return opened_; }
  const Model& model() const { return *model_; }
  const MaskTest& tested() const { return tested_; }

 private:
  Opened opened_;
  Tokenizer tokenizer_;
  TaggerOptions options_;
  std::vector<std::string> labels_;
  Feeding feeding_;
  std::unique_ptr<Model> model_;
  MaskTest tested_;
};

// Throws Error when windows, with their copies, are longer than the model's context.
void check_fits(const Feeding& feeding, const Blueprint& blueprint);
int32_t pad_of(const Tokenizer& tokenizer);  // what stands where nothing is read

// Where batches of windows end, these being their lengths in ascending order: those that cost least in
// tokens, padding included, and passes, each of which costs as much as `pass` tokens, since it reads all
// weights. A batch holds at most `limit` tokens, or one window.
std::vector<size_t> batch_ends(std::span<const int64_t> lengths, int64_t limit, int64_t pass);

// The same with a model that is at hand, during training: no self-test.
std::vector<Tagger::Tagged> tag_with(const Model& model, std::span<const Window> windows,
                                     std::span<const label::Sentence> sentences,
                                     const std::vector<std::string>& labels, int64_t repeat, int32_t pad,
                                     int64_t batch_tokens, const Watch& watch = {});

}  // namespace lamina::unmask
