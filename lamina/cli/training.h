// What the verbs that train share: flags, data, the folder that a killed run goes on from, progress, and how
// curves are shown. Rank 0 of a group alone prints and writes; the functions here see to it themselves.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lamina/base/staging.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/text_of.h"
#include "lamina/export/export.h"
#include "lamina/heal/train.h"
#include "lamina/report/report.h"

namespace lamina::cli {

// ---- flags

struct TrainingFlags {
  TrainOptions options = {};  // the verb's own defaults go in before the flags are added
  std::string schedule = "cosine";
  std::string dtype = "float32";  // of the arithmetic
  std::string device = "cpu";
  int threads = 1;
  int64_t timeout = 1800;  // seconds that ranks wait for each other
  std::string interface = {};
  std::string ranks = {};
  bool resume = false, force = false, quiet = false, json = false;
};
// A flag for every field of TrainOptions, and --schedule, --dtype, --device, --threads, --timeout, --resume,
// --force, --json, --quiet.
void add_training_flags(CLI::App& app, TrainingFlags& flags);
// Of these, the flags that say where and how it runs, not what: --device and those after it.
void add_running_flags(CLI::App& app, TrainingFlags& flags);
// What the flags say, checked: throws Error that names the flag. `state` and `resume` are TrainingFolder's to
// fill in.
TrainOptions options_of(const TrainingFlags& flags);
// Throws Error that names the field (by its flag, with `prefix` in front) that can not be.
void check(const TrainOptions& options, std::string_view prefix = "--");
at::ScalarType arithmetic_of(const std::string& dtype);  // float32, float64
at::Device device_of(const std::string& device);         // "cpu", "cuda", "cuda:1"
// The same where several ranks train: "cuda" gives each rank of a machine its own.
at::Device device_of(const std::string& device, const Group& group);
std::vector<std::string> globs_of(const std::string& list);  // "a.*, b.*"; none of an empty list
DType written_type(const std::string& name);                 // of --weights: float32, float16, bfloat16
// For `together`, in which a verb that trains does all its work.
GroupOptions group_options(const TrainingFlags& flags);
// Keeps what one step frees for the next: a step asks for gigabytes, and pages that go back to the system are
// filled with zeros again. A tenth of a step of SmolLM2.
void keep_memory_between_steps();

// ---- data

struct DataFlags {
  std::vector<std::filesystem::path> data = {}, validation = {};
  std::string holdout = "5%";          // of the text's end, where no validation text is named
  std::filesystem::path samples = {};  // tokens in a safetensors file, in place of text
  int64_t length = 0;                  // tokens in a piece; 0: 256, or the model's context if that is less
  int64_t validation_samples = 64;     // the first so many pieces; 0: all
};
void add_data_flags(CLI::App& app, DataFlags& flags);
// The model and every file that is learnt from: OUT may not be one of them. Empty paths are left out.
std::vector<std::filesystem::path> inputs_of(const DataFlags& flags,
                                             std::vector<std::filesystem::path> others);

struct TextData {
  std::unique_ptr<Batches> train = {}, validation = {};  // validation may be null with `samples`
  int64_t length = 0;
  int64_t train_tokens = 0, validation_tokens = 0;
  std::string train_said = {},
              validation_said = {};          // "a.txt: 120,345 tokens in 470 pieces of 256 (sha256 ...)"
  std::vector<int32_t> validation_ids = {};  // running tokens, for analyses of their own
  Json provenance = Json::object();

  TrainData parts(int64_t validation_samples) const { return {*train, validation.get(), validation_samples}; }
};
// Texts are tokenised one by one, an end-of-text token between two of them, and cut into pieces. Throws Error
// when there is not one piece to learn from or to hold out, or when a piece is longer than the model's
// context.
TextData text_data(const DataFlags& flags, const Tokenizer& tokenizer, const Blueprint& blueprint,
                   uint64_t seed, const Watch& watch = {});

// ---- memory and disk

struct Load {
  const Blueprint& blueprint;
  const TrainOptions& options;
  int64_t length = 0;
  const LoraOptions* lora = nullptr;
  const Blueprint* teacher = nullptr;
  int64_t bytes_a_number = 4;  // of the arithmetic
  uint64_t written = 0;        // bytes of what is exported at the end
  int arms = 1;                // runs that keep a state beside each other
};
struct Estimate {
  uint64_t memory = 0, memory_free = 0;
  uint64_t disk = 0, disk_free = 0;
};
Estimate estimate(const Load& load, const std::filesystem::path& folder);
// Throws Error when the memory or the disk does not suffice.
void check(const Estimate& estimate, const std::filesystem::path& folder);

// ---- the folder

// OUT.partial while a run lasts, with the state of each of its runs of `train` in it. What has a checkpoint
// is kept when the run ends early, and the command that goes on is said.
class TrainingFolder {
 public:
  struct Options {
    bool resume = false, replace = false;
    std::vector<std::filesystem::path> inputs = {};
    std::string command = {};  // as `command_line` has it
  };
  TrainingFolder(std::filesystem::path out, const Options& options, Group& group);
  ~TrainingFolder();
  TrainingFolder(const TrainingFolder&) = delete;
  TrainingFolder& operator=(const TrainingFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }      // write here, on rank 0 alone
  const std::filesystem::path& target() const { return target_; }  // what it will be called
  // `options` with the state's folder and `resume` filled in; runs of several arms name theirs.
  TrainOptions with_state(TrainOptions options, std::string_view arm = "") const;
  std::filesystem::path log(std::string_view arm = "") const;  // "curve.jsonl", "ARM.jsonl"
  std::filesystem::path state() const;  // what an ended run leaves behind, and a resumed one finds
  // There is something in `state` that is worth going on from, beside checkpoints.
  void keep() { keep_ = true; }
  // The state goes, the folder gets its name.
  void commit();

 private:
  bool first_ = true;  // rank 0
  bool keep_ = false;
  Options options_;
  std::filesystem::path path_, target_;
  std::optional<StagedFolder> staged_;
  bool committed_ = false;
};

// ---- progress

// What one run of `train` shows while it lasts: a line with step, loss, rate, tokens a second and time left,
// and a log of JSON lines. Pass `watch()` and the object itself to `train`.
class Follow {
 public:
  struct Options {
    std::string name = "train";  // of the line: the arm
    std::filesystem::path log = {};
    bool quiet = false;  // ranks other than 0
    // Of a step, where the speed is to be shown in samples and not in tokens.
    int64_t samples = 0;
  };
  Follow(Terminal& terminal, const TrainOptions& training, Options options);
  ~Follow();
  Watch watch();
  std::function<void(const StepRecord&)> on_step();
  // The log as the whole run was, earlier processes included.
  void finish(const Trained& trained);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

Json record_json(const StepRecord& record);  // a line of the log

// ---- what is shown at the end

struct Arm {
  std::string name;  // "train", or of the arm
  const Trained& trained;
};
// Loss against steps (means of up to 200 stretches with their smallest and largest as a band), validation
// beside it, and the learning rate.
report::Section curve_section(std::span<const Arm> arms, std::string title = "The curve");
report::Series loss_series(std::span<const Arm> arms);
Json curve_json(const Trained& trained);  // for --json: every step, every evaluation

// Fixed prompts, never chosen for their answers: questions for a model with a chat template, beginnings for
// others.
std::vector<std::string> prompts_for(const Tokenizer& tokenizer);
std::vector<std::string> answers_of(const Model& model, const Opened& opened, const Tokenizer& tokenizer,
                                    const Watch& watch, int64_t tokens = 40);
report::Table answers_table(const std::vector<std::string>& prompts, const std::vector<std::string>& before,
                            const std::vector<std::string>& after);

using Settings = std::vector<std::pair<std::string, std::string>>;
// The arithmetic, the device, threads and ranks.
Settings running_settings(const std::string& dtype, const TrainingFlags& flags, const Group& group);
// Every option of a run, for "How it was done".
Settings settings_of(const TrainOptions& options);
report::Table settings_table(const Settings& rows);
}  // namespace lamina::cli
