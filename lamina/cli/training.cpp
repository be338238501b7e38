#include "lamina/cli/training.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <thread>

#include "lamina/base/error.h"
#include "lamina/base/fields.h"
#include "lamina/base/hash.h"
#include "lamina/base/text.h"
#include "lamina/cli/session.h"
#include "lamina/tensor/tensor_file.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

// A flag a field: "--lr", with the help that the field carries.
struct FlagVisitor {
  CLI::App& app;
  template <class T>
  void operator()(T& field, const char* name, const char* help) {
    const std::string flag = fmt::format("--{}", name);
    if constexpr (std::is_same_v<T, bool>) {
      app.add_flag(flag, field, help)->group("Training");
    } else {
      app.add_option(flag, field, help)->capture_default_str()->group("Training");
    }
  }
};

constexpr const char* kState = "training";

std::string schedules() {
  return "constant, linear, cosine";
}

double share_of(const std::string& text, std::string_view flag) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const bool percent = *end == '%' && end[1] == '\0';
  const double share = percent ? value / 100 : value;
  if (end == text.c_str() || (!percent && *end != '\0') || !(share >= 0) || share >= 1)
    fail("{} {}: a share such as 5% is expected", flag, in_quotes(text));
  return share;
}

bool holds_checkpoint(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (entry.is_directory(error) && ((name.starts_with("step-") && name.find('.') == std::string::npos) ||
                                      holds_checkpoint(entry.path())))
      return true;
  }
  return false;
}

// Tokens that stand ready in a file, in its order, epoch after epoch the same.
class Samples : public Batches {
 public:
  Samples(const fs::path& path, const Blueprint& blueprint) {
    const TensorFile file(path);
    const auto integers = [&](const Stored& stored) {
      if (stored.dtype != DType::i64 && stored.dtype != DType::i32 && stored.dtype != DType::boolean)
        fail("{}: {} must hold integers", path.string(), stored.name);
      return load(stored, scalar_type(stored.dtype)).to(at::kLong).contiguous();
    };
    const Stored ids = file.stored("input_ids");
    if (ids.shape.size() != 2 || ids.shape[0] < 1 || ids.shape[1] < 2)
      fail("{}: input_ids must be [samples, tokens], with at least two tokens in each", path.string());
    if (ids.shape[1] > blueprint.context)
      fail("{}: samples of {} tokens are longer than the {} this model was made for", path.string(),
           ids.shape[1], blueprint.context);
    ids_ = integers(ids);
    if (ids_.min().item<int64_t>() < 0 || ids_.max().item<int64_t>() >= blueprint.vocabulary)
      fail("{}: input_ids holds ids outside 0 to {}", path.string(), blueprint.vocabulary - 1);
    const auto beside = [&](std::string_view name) -> std::optional<Tensor> {
      const auto stored = file.find(name);
      if (!stored) return std::nullopt;
      if (stored->shape != ids.shape) fail("{}: {} has another shape than input_ids", path.string(), name);
      return integers(*stored);
    };
    if (auto mask = beside("attention_mask")) padding_ = mask->ne(0);
    const auto labels = beside("labels");
    const int64_t length = ids_.size(1);
    targets_ = at::full_like(ids_, kNotLearnt);
    Tensor next = (labels ? *labels : ids_).narrow(1, 1, length - 1).clone();
    if (labels && ((next.ne(kNotLearnt) & (next.lt(0) | next.ge(blueprint.vocabulary))).any().item<bool>()))
      fail("{}: labels holds ids outside 0 to {} other than {}", path.string(), blueprint.vocabulary - 1,
           kNotLearnt);
    // A token that follows padding, or is padding, is nobody's to say.
    if (padding_ && !labels) {
      const Tensor whole = padding_->narrow(1, 1, length - 1) & padding_->narrow(1, 0, length - 1);
      next = at::where(whole, next, at::full_like(next, kNotLearnt));
    }
    targets_.narrow(1, 0, length - 1).copy_(next);
    if (targets_.eq(kNotLearnt).all().item<bool>())
      fail("{}: not one position is to be learnt", path.string());
  }

  Batch at(int64_t first, int64_t count) const override {
    const Tensor rows = at::arange(first, first + count, at::kLong).remainder(ids_.size(0));
    Batch batch{.inputs = {.ids = ids_.index_select(0, rows)}, .targets = targets_.index_select(0, rows)};
    if (padding_) batch.inputs.padding = padding_->index_select(0, rows);
    return batch;
  }
  int64_t samples_per_epoch() const override { return ids_.size(0); }
  std::string digest() const override {
    Sha256 hash;
    const auto add = [&](const Tensor& tensor) {
      hash.add(Bytes(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()));
    };
    add(ids_), add(targets_);
    if (padding_) add(padding_->contiguous());
    return hash.hex();
  }
  int64_t length() const { return ids_.size(1); }

 private:
  Tensor ids_, targets_;  // [samples, tokens]
  std::optional<Tensor> padding_;
};

struct Tokens {
  std::vector<int32_t> ids;
  std::string said;  // the names of the files
  std::string sha256;
  Json files = Json::array();
};

Tokens tokens_of(const std::vector<fs::path>& paths, const Tokenizer& tokenizer, const Blueprint& blueprint,
                 const Watch& watch) {
  Tokens tokens;
  Sha256 all;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (watch.stop.stop_requested()) throw Stopped{};
    const NamedText text = text_from(paths[i]);
    watch.report({"read", static_cast<double>(i), static_cast<double>(paths.size()), text.name});
    if (i > 0 && tokenizer.eos()) tokens.ids.push_back(*tokenizer.eos());
    const std::vector<int32_t> ids = tokenizer.encode(text.text);
    tokens.ids.insert(tokens.ids.end(), ids.begin(), ids.end());
    tokens.said += (i > 0 ? ", " : "") + text.name;
    tokens.files.push_back({{"name", text.name}, {"sha256", text.sha256}, {"tokens", ids.size()}});
    all.add(text.sha256);
    tokens.sha256 = text.sha256;
  }
  if (paths.size() > 1) tokens.sha256 = all.hex();
  if (!tokens.ids.empty() && std::ranges::max(tokens.ids) >= blueprint.vocabulary)
    fail(
        "{}: the tokenizer gives token {}, and the model's vocabulary has {}; is this the tokenizer of "
        "another "
        "model?",
        tokens.said, std::ranges::max(tokens.ids), blueprint.vocabulary);
  return tokens;
}

// Bytes of memory that this process may still take.
uint64_t free_memory() {
  const auto number_in = [](const char* path) -> std::optional<uint64_t> {
    std::ifstream file(path);
    uint64_t number = 0;
    return file >> number ? std::optional(number) : std::nullopt;
  };
  uint64_t free = UINT64_MAX;
  std::ifstream info("/proc/meminfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("MemAvailable:")) free = 1024 * std::stoull(line.substr(13));
  }
  const auto most = number_in("/sys/fs/cgroup/memory.max"), now = number_in("/sys/fs/cgroup/memory.current");
  if (most && now) free = std::min(free, *most > *now ? *most - *now : 0);
  return free;
}

// Numbers of all adapters of this rank, if every map of every part got one.
int64_t adapter_numbers(const Blueprint& blueprint, int64_t rank) {
  int64_t numbers = 0;
  for (const Slot& slot : blueprint.slots) {
    if (slot.part >= 0 && slot.axes.size() == 2)
      numbers += rank * (slot.axes[0].size() + slot.axes[1].size());
  }
  return numbers;
}

}  // namespace

// ---- flags

void add_training_flags(CLI::App& app, TrainingFlags& flags) {
  FlagVisitor visit{app};
  flags.options.fields(visit);
  app.add_option("--schedule", flags.schedule, "of the rate after the warm-up: " + schedules())
      ->capture_default_str()
      ->group("Training");
  app.add_option("--dtype", flags.dtype,
                 "of the arithmetic and of the weights while they learn: float32, float64")
      ->capture_default_str()
      ->group("How");
  add_running_flags(app, flags);
}

void add_running_flags(CLI::App& app, TrainingFlags& flags) {
  app.add_option("--device", flags.device, "cpu, or cuda where libtorch has it")
      ->capture_default_str()
      ->group("How");
  app.add_option("--threads", flags.threads, "threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024))
      ->group("How");
  app.add_option("--timeout", flags.timeout,
                 "seconds that ranks wait for each other (torchrun --no-python lamina ...)")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->group("How");
  app.add_option("--interface", flags.interface, "of the network between ranks (default: found)")
      ->group("How");
  app.add_option("--ranks", flags.ranks, "slurm: rank and size from Slurm's variables")
      ->check(CLI::IsMember({"slurm"}))
      ->group("How");
  app.add_flag("--resume", flags.resume, "go on from where a stopped run of the same command was")
      ->group("How");
  app.add_flag("--force", flags.force, "replace the output folder")->group("What is written");
  app.add_flag("--json", flags.json, "one object on stdout")->group("What is written");
  app.add_flag("-q,--quiet", flags.quiet, "no progress");
}

void check(const TrainOptions& o, std::string_view prefix) {
  const auto least = [&](int64_t value, int64_t least, const char* name) {
    if (value < least) fail("{}{} {}: a whole number from {} is expected", prefix, name, value, least);
  };
  const auto from_zero = [&](double value, const char* name) {
    if (!(value >= 0) || !std::isfinite(value))
      fail("{}{} {}: a number from 0 is expected", prefix, name, value);
  };
  least(o.steps, 1, "steps");
  least(o.batch, 1, "batch");
  least(o.accumulate, 1, "accumulate");
  least(o.warmup, 0, "warmup");
  least(o.schedule_steps, 0, "schedule-steps");
  least(o.evaluate_every, 0, "evaluate-every");
  least(o.checkpoint_every, 1, "checkpoint-every");
  from_zero(o.learning_rate, "lr");
  from_zero(o.minimum_rate, "min-lr");
  from_zero(o.weight_decay, "weight-decay");
  from_zero(o.clip, "clip");
  if (o.minimum_rate > o.learning_rate)
    fail("{}min-lr {}: the floor lies above the largest rate, {}", prefix, o.minimum_rate, o.learning_rate);
  for (const auto& [value, name] : {std::pair(o.beta1, "beta1"), std::pair(o.beta2, "beta2")}) {
    if (!(value >= 0 && value < 1))
      fail("{}{} {}: a number from 0 and below 1 is expected", prefix, name, value);
  }
  if (!(o.epsilon > 0) || !std::isfinite(o.epsilon))
    fail("{}epsilon {}: a number above 0 is expected", prefix, o.epsilon);
  if (!o.autocast.empty() && o.autocast != "bfloat16")
    fail("{}autocast {}: bfloat16 is possible", prefix, in_quotes(o.autocast));
}

TrainOptions options_of(const TrainingFlags& flags) {
  TrainOptions options = flags.options;
  options.schedule = schedule_from_name(flags.schedule);
  check(options);
  arithmetic_of(flags.dtype);
  device_of(flags.device);
  return options;
}

at::ScalarType arithmetic_of(const std::string& dtype) {
  const auto type = dtype_from_name(dtype);
  if (type != DType::f32 && type != DType::f64)
    fail("--dtype {}: float32 and float64 are possible", in_quotes(dtype));
  return scalar_type(*type);
}

at::Device device_of(const std::string& device) {
  const bool cuda =
      device == "cuda" || (device.starts_with("cuda:") && device.size() > 5 && device.size() < 9 &&
                           device.find_first_not_of("0123456789", 5) == std::string::npos);
  if (device != "cpu" && !cuda) fail("--device {}: cpu, cuda and cuda:N are possible", in_quotes(device));
  if (cuda && !at::hasCUDA())
    fail("--device {}: this libtorch sees no such device; build against one for CUDA, or train on the cpu",
         device);
  return at::Device(device);
}

at::Device device_of(const std::string& device, const Group& group) {
  if (device == "cuda" && group.size() > 1)
    return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(group.local_rank()));
  return device_of(device);
}

std::vector<std::string> globs_of(const std::string& list) {
  std::vector<std::string> globs;
  if (list.empty()) return globs;
  for (const std::string& glob : split(list, ',')) globs.emplace_back(trim(glob));
  return globs;
}

DType written_type(const std::string& name) {
  const auto type = dtype_from_name(name);
  if (!type || !is_floating(*type) || is_quantized(*type))
    fail("--weights {}: float32, float16 and bfloat16 are possible", in_quotes(name));
  return *type;
}

std::vector<fs::path> inputs_of(const DataFlags& flags, std::vector<fs::path> others) {
  others.push_back(flags.samples);
  others.insert(others.end(), flags.data.begin(), flags.data.end());
  others.insert(others.end(), flags.validation.begin(), flags.validation.end());
  std::erase(others, fs::path());
  return others;
}

Settings running_settings(const std::string& dtype, const TrainingFlags& flags, const Group& group) {
  const int threads = thread_count(flags.threads);
  Settings rows = {{"arithmetic", fmt::format("{} on {}, {} thread{}", dtype, flags.device, threads,
                                              threads == 1 ? "" : "s")}};
  if (group.size() > 1) rows.emplace_back("ranks", std::to_string(group.size()));
  return rows;
}

void keep_memory_between_steps() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

GroupOptions group_options(const TrainingFlags& flags) {
  return {.timeout = std::chrono::seconds(flags.timeout), .interface = flags.interface, .ranks = flags.ranks};
}

// ---- data

void add_data_flags(CLI::App& app, DataFlags& flags) {
  app.add_option("--data", flags.data, "UTF-8 text to learn from; several, one after another")
      ->expected(1, -1)
      ->group("Data");
  app.add_option("--validation", flags.validation, "UTF-8 text that is not learnt from (default: --holdout)")
      ->expected(1, -1)
      ->group("Data");
  app.add_option("--holdout", flags.holdout, "share of the text's end that is kept back; 0: none")
      ->capture_default_str()
      ->group("Data");
  app.add_option("--length", flags.length,
                 "tokens in a sample (default: 256, or the model's context if that is less)")
      ->check(CLI::Range(2, 1 << 20))
      ->group("Data");
  app.add_option("--validation-samples", flags.validation_samples,
                 "of the validation text, the first so many samples; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 30))
      ->group("Data");
  app.add_option("--samples", flags.samples,
                 "in place of --data: safetensors with input_ids [samples, tokens], taken in their order; "
                 "attention_mask and labels, if there, have that shape")
      ->group("Data");
}

TextData text_data(const DataFlags& flags, const Tokenizer& tokenizer, const Blueprint& blueprint,
                   uint64_t seed, const Watch& watch) {
  if (flags.data.empty() == flags.samples.empty())
    fail("{}; name the text to learn from with --data, or samples with --samples",
         flags.data.empty() ? "there is nothing to learn from" : "--data and --samples were both given");
  const double share = share_of(flags.holdout, "--holdout");
  TextData data{.length = flags.length > 0 ? flags.length : std::min<int64_t>(256, blueprint.context)};
  const auto check_length = [&](int64_t length) {
    if (length > blueprint.context)
      fail("--length {}: this model was made for {} tokens", length, blueprint.context);
  };
  const auto described = [](const std::string& names, int64_t tokens, int64_t pieces, int64_t length,
                            const std::string& sha256) {
    return fmt::format("{}: {} tokens in {} sample{} of {} (sha256 {})", names, thousands(tokens),
                       thousands(pieces), pieces == 1 ? "" : "s", length, sha256);
  };

  std::vector<int32_t> held;  // back from the end of the text
  std::string held_said;
  if (!flags.samples.empty()) {
    auto samples = std::make_unique<Samples>(flags.samples, blueprint);
    data.length = samples->length();
    data.train_tokens = samples->samples_per_epoch() * data.length;
    data.train_said = described(shown(flags.samples.filename()), data.train_tokens,
                                samples->samples_per_epoch(), data.length, samples->digest());
    data.provenance["samples"] = {{"name", shown(flags.samples.filename())},
                                  {"samples", samples->samples_per_epoch()},
                                  {"digest", samples->digest()}};
    data.train = std::move(samples);
  } else {
    check_length(data.length);
    Tokens tokens = tokens_of(flags.data, tokenizer, blueprint, watch);
    const int64_t pieces = static_cast<int64_t>(tokens.ids.size()) / data.length;
    int64_t kept_back = 0;
    if (flags.validation.empty() && share > 0)
      kept_back = std::max<int64_t>(1, std::llround(share * static_cast<double>(pieces)));
    if (pieces < 1 + kept_back)
      fail("{}: has {} tokens, too few for {} of {}; give more text or a smaller --length", tokens.said,
           thousands(static_cast<int64_t>(tokens.ids.size())),
           kept_back ? "one sample to learn from and one to hold out" : "one sample", data.length);
    if (kept_back > 0) {
      const auto from = tokens.ids.begin() + (pieces - kept_back) * data.length;
      held.assign(from, tokens.ids.end());
      tokens.ids.erase(from, tokens.ids.end());
      held_said =
          fmt::format("the last {:.3g} % of {}",
                      100 * static_cast<double>(kept_back) / static_cast<double>(pieces), tokens.said);
    }
    data.train_tokens = (pieces - kept_back) * data.length;
    data.train_said =
        described(tokens.said, data.train_tokens, pieces - kept_back, data.length, tokens.sha256);
    data.provenance["data"] = tokens.files;
    data.train = text_batches(std::move(tokens.ids), data.length, seed);
  }
  data.provenance["length"] = data.length;

  if (!flags.validation.empty()) {
    check_length(data.length);
    Tokens tokens = tokens_of(flags.validation, tokenizer, blueprint, watch);
    if (static_cast<int64_t>(tokens.ids.size()) < data.length)
      fail("{}: has {} tokens, too few for one sample of {}; give more text or a smaller --length",
           tokens.said, thousands(static_cast<int64_t>(tokens.ids.size())), data.length);
    held = std::move(tokens.ids);
    held_said = tokens.said;
    data.provenance["validation"] = tokens.files;
  } else if (!held.empty()) {
    data.provenance["validation"] = held_said;
  }
  if (!held.empty()) {
    data.validation_ids = held;
    data.validation = text_in_order(std::move(held), data.length);
    const int64_t all = data.validation->samples_per_epoch();
    const int64_t used = flags.validation_samples > 0 ? std::min(all, flags.validation_samples) : all;
    data.validation_tokens = used * data.length;
    data.validation_said = fmt::format(
        "{}{}", held_said,
        used < all ? fmt::format(", the first {} of {} samples of {} tokens", used, all, data.length)
                   : fmt::format(", {} sample{} of {} tokens", all, all == 1 ? "" : "s", data.length));
    data.provenance["validation_samples"] = used;
  }
  return data;
}

// ---- memory and disk

Estimate estimate(const Load& load, const fs::path& folder) {
  const Blueprint& b = load.blueprint;
  const auto bytes = static_cast<uint64_t>(load.bytes_a_number);
  const auto weights = static_cast<uint64_t>(b.parameters());
  const uint64_t trained = load.lora ? static_cast<uint64_t>(adapter_numbers(b, load.lora->rank)) : weights;
  // What a part keeps for its way back, a token: what its maps read and write, and its scores.
  uint64_t all = 0, largest = 0;
  for (Site site : b.present()) {
    const Part& part = b.part(site);
    const int64_t heads = std::max<int64_t>(1, part.score_width / 64);
    const int64_t numbers = 3 * b.width + 2 * part.score_width + part.kv_values + heads * load.length +
                            (part.neurons ? 4 * part.neurons->count : 0);
    all += static_cast<uint64_t>(numbers);
    largest = std::max(largest, static_cast<uint64_t>(numbers));
  }
  if (load.options.gradient_checkpointing)
    all = largest + static_cast<uint64_t>(b.width) * b.present().size();
  const auto tokens = static_cast<uint64_t>(load.options.batch * load.length);
  Estimate estimate;
  constexpr uint64_t kProgram = uint64_t{150} << 20;
  // Weights, gradients, and the two moments of AdamW.
  estimate.memory = kProgram + bytes * ((load.lora ? weights : 0) + 4 * trained + tokens * all);
  if (load.teacher) estimate.memory += bytes * static_cast<uint64_t>(load.teacher->parameters());
  estimate.memory_free = free_memory();
  // Two checkpoints of weights and moments, and a third while it is written.
  estimate.disk = static_cast<uint64_t>(load.arms) * 3 * bytes * 3 * trained + load.written;
  estimate.disk_free = free_bytes(folder);
  return estimate;
}

void check(const Estimate& estimate, const fs::path& folder) {
  if (estimate.memory > estimate.memory_free)
    fail(
        "about {} of memory are needed and {} are free; a smaller --batch with --accumulate, a smaller "
        "--length, "
        "--gradient-checkpointing or --lora needs less",
        human_bytes(estimate.memory), human_bytes(estimate.memory_free));
  if (estimate.disk > estimate.disk_free)
    fail("{}: about {} are needed for checkpoints and the model, and {} are free; free some room",
         folder.string(), human_bytes(estimate.disk), human_bytes(estimate.disk_free));
}

// ---- the folder

TrainingFolder::TrainingFolder(fs::path out, const Options& options, Group& group)
    : first_(group.rank() == 0), options_(options) {
  if (first_) {
    staged_.emplace(std::move(out), StagedFolder::Options{.replace = options.replace,
                                                          .resume = options.resume ? kState : "",
                                                          .inputs = options.inputs});
    path_ = staged_->path();
    target_ = staged_->target();
    fs::create_directories(path_ / kState);
  } else {
    while (out.has_relative_path() && !out.has_filename()) out = out.parent_path();
    target_ = fs::is_symlink(out) ? fs::canonical(out) : out;
    path_ = target_;
    path_ += ".partial";
  }
  group.barrier();  // it is there for all
}

TrainingFolder::~TrainingFolder() {
  if (!first_ || committed_ || !(keep_ || holds_checkpoint(state()))) return;
  staged_->keep();
  const bool said = options_.command.find(" --resume") != std::string::npos;
  std::fputs(fmt::format("lamina: what was learnt so far is kept; to go on: {}{}\n", options_.command,
                         said ? "" : " --resume")
                 .c_str(),
             stderr);
}

fs::path TrainingFolder::state() const {
  return path_ / kState;
}

TrainOptions TrainingFolder::with_state(TrainOptions options, std::string_view arm) const {
  options.state = path_ / kState / (arm.empty() ? "run" : arm);
  options.resume = options_.resume;
  return options;
}

fs::path TrainingFolder::log(std::string_view arm) const {
  return path_ / kState / (arm.empty() ? std::string("curve.jsonl") : fmt::format("{}.jsonl", arm));
}

void TrainingFolder::commit() {
  if (!first_) return;
  for (const auto& entry : fs::directory_iterator(path_ / kState)) {
    if (entry.path().extension() == ".jsonl") fs::rename(entry.path(), path_ / entry.path().filename());
  }
  staged_->commit();
  // What has its name is whole; a state that cannot be taken away any more does no harm.
  std::error_code error;
  fs::remove_all(target_ / kState, error);
  committed_ = true;
}

}  // namespace lamina::cli
