// What `lamina tag train` hands to its report.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lamina/cli/training.h"
#include "lamina/methods/unmask/run.h"

namespace lamina::cli {

// One arm: a mask plan, fed once or several times over, with its seeds.
struct TagArm {
  std::string name;  // "0011", "0000 r=1", "probe"
  MaskPlan mask = {};
  int64_t repeat = 0;
  bool probe = false;
  std::vector<unmask::RunResult> runs = {};
  double compute = 1;  // tokens through the model a sentence, of plan 0000 without repetition
  // Where its blocks look, of its first run, after training; empty where that was not measured.
  std::vector<unmask::Span> spans = {};
};

// One sentence with what was expected and what was said, for the page.
struct TagExample {
  label::Sentence sentence = {};  // its own tags are the gold ones
  label::Tags said = {};
  std::vector<label::Mistake> mistakes = {};
};

struct TagOutcome {
  std::string model, title, command;
  std::vector<std::string> labels;
  int blocks = 0;
  std::vector<TagArm> arms = {};
  size_t chosen = 0, chosen_run = 0;  // by the development set
  bool searched = false;              // several plans were tried to choose one of them
  // Of the chosen run, on the test set where there is one, else on the development set.
  label::Score score = {};
  std::vector<label::Mistake> mistakes = {};
  std::vector<TagExample> examples = {};
  std::vector<unmask::Span> before = {}, after = {};  // where blocks look, before training and after
  unmask::MaskTest mask_test = {};
  int64_t train_sentences = 0, dev_sentences = 0, test_sentences = 0;
  int64_t split_sentences = 0;                  // of all, longer than a window
  std::optional<unmask::Feeding> feeding = {};  // without it the page does not say how words were fed
  Settings settings = {};
  std::vector<std::string> warnings = {};
};

enum class HeldOut { development, test };
// F1 by seed, 0 to 1, of the runs of an arm that have one and did not break.
std::map<uint64_t, double> f1_by_seed(const TagArm& arm, HeldOut set);

report::Report tag_report(const TagOutcome& outcome);
// The arms in as few columns as a terminal has.
report::Table tag_table(const TagOutcome& outcome);
Json tag_json(const TagOutcome& outcome);

}  // namespace lamina::cli
