// What `lamina tag train` works with: its arms, how each runs, and what is made of them when all are done.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lamina/cli/tag_open.h"
#include "lamina/cli/tag_run.h"
#include "lamina/cli/tag_runs.h"
#include "lamina/cli/training.h"

namespace lamina::cli {

struct TagFlags {
  std::filesystem::path model, out, train, dev, test;
  ConllFlags conll = {};
  std::vector<std::string> masks = {};
  std::vector<int64_t> repeats = {};
  bool search = false, probe = false;
  int groups = 0;  // of the search; 0: four, or as many as there are blocks
  bool full = false, from_scratch = false;
  int64_t rank = 16;
  double alpha = 32, dropout = 0.1, lora_dropout = 0, probe_rate = 5e-3;
  std::string targets = {}, adapt = {}, mask_token = {};
  double adapt_rate = 0;
  int64_t seeds = 0, epochs = 3, length = 0;  // 0: by what is compared, by the model
  bool best_epoch = false, adapter_only = false;
  std::string answer = "first", weights = {};
};

// One run of `unmask::run`.
struct TagRun {
  size_t arm = 0;
  std::string name = {};  // of its files: "0011-seed2"
  unmask::RunOptions options = {};
  RunFields fields = {};
  int64_t steps = 0;  // expected, adaptation included
};

struct TagJob {
  TagFlags flags;
  TrainingFlags training;
  std::string command;
  Opened base = {};
  std::string base_name, base_sha256;
  Tokenizer tokenizer;
  unmask::TagData data;
  std::vector<TagArm> arms = {};
  std::vector<TagRun> runs = {};
  unmask::Feeding feeding = {};  // without repetition
  std::optional<DType> weights = {};
  int64_t split_sentences = 0;
  Settings settings = {};
  std::vector<std::string> warnings = {};
};

// The chosen run's model, written, opened again and held against what the run said; report, card and curves
// beside it. Gives the folder its name and says what came of it.
int finish_tagging(TagJob& job, const RunFiles& files, TrainingFolder& folder, Terminal& terminal);

// The windows of the development set that show where blocks look.
std::vector<unmask::Window> looked_at(const TagJob& job, const TagRun& run);

// The arm with the best mean F1 on the development set, and its best run.
struct TagChoice {
  size_t arm = 0, run = 0;
};
TagChoice choice_of(const std::vector<TagArm>& arms);
size_t best_run(const TagArm& arm);
double mean_dev_f1(const TagArm& arm);

}  // namespace lamina::cli
