// One fine-tuning run of a tagger: adaptation, training, and its scores.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lamina/eval/t_test.h"
#include "lamina/heal/train.h"
#include "lamina/methods/unmask/tagger.h"
#include "lamina/plan/mask.h"

namespace lamina::unmask {

// What learns beside the classifier.
enum class Learns { everything, adapters, head };

struct Adaptation {
  bool masked = true;  // MNTP; false: more causal language modelling
  int64_t steps = 0;   // 0: none
  double learning_rate = 0;
  int32_t mask_token = 0;
};

struct RunOptions {
  MaskPlan mask = {};
  Feeding feeding = {};
  Learns learns = Learns::adapters;
  LoraOptions lora = {};      // of `adapters`
  double dropout = 0.1;       // before the classifier
  double lora_dropout = 0;    // before each adapter
  bool from_scratch = false;  // new first numbers for every weight
  Adaptation adaptation = {};
  TrainOptions training = {};  // its seed is the run's; `steps` is counted from `epochs` where that is given
  int64_t epochs = 3;          // 0: `training.steps`
  bool best_epoch = false;     // keep the epoch that is best on the development set, else the last
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
};

// Sentences with tags in IOB2, and their classes.
struct TagData {
  std::vector<label::Sentence> train = {}, dev = {}, test = {};  // dev and test may be empty
  std::vector<std::string> labels = {};  // "O" first, then B-, I- of each type in order
};
// Entities of a type that `train` lacks can only be missed; `notes` says so. Throws Error when `train` has no
// entity.
TagData tag_data(label::Document train, label::Document dev, label::Document test,
                 std::vector<std::string>& notes);

struct EpochScore {
  int64_t epoch = 0, step = 0;
  double dev_f1 = 0;
};

struct RunResult {
  std::string mask;
  int64_t repeat = 0;
  uint64_t seed = 0;
  Trained trained = {};
  std::optional<Trained> adapted = {};
  std::vector<EpochScore> epochs = {};
  std::optional<label::Score> dev = {}, test = {};  // strict
  std::vector<label::Tags> dev_tags = {}, test_tags = {};
  double seconds = 0;  // of training, with the looks at the development set
  int64_t tokens = 0;  // of one epoch, padding not counted
  int64_t padded_tokens = 0;
};

struct RunOutcome {
  RunResult result;
  std::shared_ptr<Student> student;  // as it ended; what is written comes from it
};

// `base` is the causal language model. State goes where `options.training.state` says.
RunOutcome run(const Opened& base, const Tokenizer& tokenizer, const TagData& data, const RunOptions& options,
               Group& group, const Watch& watch = {},
               const std::function<void(const StepRecord&)>& on_step = {});

// How far each block looks: mean distance |query - key| under its attention, and the share of it that lies to
// the right, over the windows given.
struct Span {
  int block = 0;
  double distance = 0, right = 0;
};
std::vector<Span> attention_spans(const Model& model, std::span<const Window> windows, int64_t repeat,
                                  int32_t pad);

}  // namespace lamina::unmask
