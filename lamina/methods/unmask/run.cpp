#include "lamina/methods/unmask/run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"
#include "lamina/heal/first_numbers.h"
#include "lamina/plan/plan.h"
#include "lamina/tensor/autograd.h"

namespace lamina::unmask {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

uint64_t mixed(uint64_t seed, std::string_view what) {
  return std::stoull(sha256_hex(fmt::format("{} {}", seed, what)).substr(0, 16), nullptr, 16);
}

std::vector<label::Tags> tags_of(std::span<const label::Sentence> sentences) {
  std::vector<label::Tags> tags;
  for (const label::Sentence& sentence : sentences) tags.push_back(sentence.tags);
  return tags;
}

std::vector<label::Tags> tags_of(std::vector<Tagger::Tagged> tagged) {
  std::vector<label::Tags> tags;
  for (Tagger::Tagged& sentence : tagged) tags.push_back(std::move(sentence.tags));
  return tags;
}

label::Score scored(std::span<const label::Sentence> sentences, const std::vector<label::Tags>& said) {
  return label::score(tags_of(sentences), said, label::Scheme::iob2, label::Reading::strict);
}

// A tag that the training data does not have is no class, and never said.
std::vector<std::vector<int32_t>> classes_of(std::span<const label::Sentence> sentences,
                                             const std::vector<std::string>& labels) {
  std::vector<std::vector<int32_t>> classes;
  for (const label::Sentence& sentence : sentences) {
    std::vector<int32_t>& own = classes.emplace_back();
    for (const std::string& tag : sentence.tags) {
      const auto it = std::ranges::find(labels, tag);
      own.push_back(it == labels.end() ? static_cast<int32_t>(kNotLearnt)
                                       : static_cast<int32_t>(it - labels.begin()));
    }
  }
  return classes;
}

// Sentences as they are needed again and again: encoded once.
struct Encoded {
  std::span<const label::Sentence> sentences;
  std::vector<Window> windows;
};

// Dropout from a generator that is seeded by the position of each micro-batch, so that a resumed run and one
// on several ranks hear the same; the development set after each epoch, and the best one kept.
class EpochHook : public Hook {
 public:
  struct Options {
    uint64_t seed = 0;
    int64_t epoch_steps = 1, steps = 0;
    bool keep_best = false;
    const Encoded* dev = nullptr;
    const std::vector<std::string>* labels = nullptr;
    Feeding feeding = {};
    int32_t pad = 0;
  };
  EpochHook(Student& student, Options options) : student_(student), options_(std::move(options)) {}

  void begin_pass(const Batch& batch) override {
    at::manual_seed(mixed(options_.seed, fmt::format("dropout {}", batch.first)));
  }
  void end_step(StepRecord& record, Group& /*group*/) override {
    if (!options_.dev || (record.step % options_.epoch_steps != 0 && record.step != options_.steps)) return;
    said_ = dev_tags();
    said_at_ = record.step;
    const double f1 = scored(options_.dev->sentences, said_).all.f1();
    epochs_.push_back({.epoch = (record.step + options_.epoch_steps - 1) / options_.epoch_steps,
                       .step = record.step,
                       .dev_f1 = f1});
    record.terms["dev F1"] = f1;
    if (!options_.keep_best || (best_ >= 0 && f1 <= best_f1_)) return;
    best_ = record.step;
    best_f1_ = f1;
    for (const Parameter& parameter : student_.parameters())
      kept_[parameter.name] = parameter.value.detach().clone();
  }
  State state() const override {
    State state;
    state.json = {{"epochs", Json::array()}, {"best", best_}, {"best_f1", best_f1_}};
    for (const EpochScore& epoch : epochs_)
      state.json["epochs"].push_back({epoch.epoch, epoch.step, epoch.dev_f1});
    state.tensors = kept_;
    return state;
  }
  void restore(const State& state) override {
    epochs_.clear();
    for (const Json& entry : state.json.value("epochs", Json::array()))
      epochs_.push_back({.epoch = entry[0].get<int64_t>(),
                         .step = entry[1].get<int64_t>(),
                         .dev_f1 = entry[2].get<double>()});
    best_ = state.json.value("best", int64_t{-1});
    best_f1_ = state.json.value("best_f1", 0.0);
    kept_ = state.tensors;
  }
  std::string digest() const override {
    return fmt::format("seed {}, {}", options_.seed, options_.keep_best ? "best epoch" : "last epoch");
  }

  const std::vector<EpochScore>& epochs() const { return epochs_; }
  // What the student says of the development set as it now is; not asked again where nothing has changed
  // since.
  std::vector<label::Tags> dev_tags() const {
    if (said_at_ == options_.steps && (best_ < 0 || best_ == options_.steps)) return said_;
    return tags_of(tag_with(student_.model(), options_.dev->windows, options_.dev->sentences,
                            *options_.labels, options_.feeding.repeat, options_.pad,
                            TaggerOptions{}.batch_tokens));
  }
  // After the run: the best epoch's numbers, where those are wanted.
  void settle() {
    const c10::NoGradGuard writing;
    for (Parameter& parameter : student_.parameters()) {
      if (const auto it = kept_.find(parameter.name); it != kept_.end()) parameter.value.copy_(it->second);
    }
  }

 private:
  Student& student_;
  Options options_;
  std::vector<EpochScore> epochs_;
  int64_t best_ = -1;
  double best_f1_ = 0;
  std::map<std::string, Tensor> kept_;
  std::vector<label::Tags> said_;  // of the development set, behind step `said_at_`
  int64_t said_at_ = -1;
};

// The classifier's first numbers, as transformers has them: normal, deviation 0.02.
void start_classifier(Student& student, uint64_t seed) {
  constexpr double kDeviation = 0.02;
  const c10::NoGradGuard writing;
  const Parameter* weight = student.find(student.opened().blueprint.head);
  const Tensor numbers = random_normal(weight->value.sizes(), mixed(seed, "classifier")) * kDeviation;
  Tensor value = weight->value;
  value.copy_(numbers);
}

Student::Options student_options(const RunOptions& options, bool classifies, const Blueprint& blueprint) {
  Student::Options student{.dtype = options.dtype, .seed = options.training.seed, .device = options.device};
  const std::string head = classifies ? blueprint.head_path() + ".*" : "";
  if (options.learns == Learns::adapters) {
    student.lora = options.lora;
    student.lora->dropout = options.lora_dropout;
    if (classifies) student.whole = {head};
  } else if (options.learns == Learns::head && classifies) {
    for (const Slot& slot : blueprint.slots) {
      if (!slot.name.starts_with(blueprint.head_path() + ".")) student.frozen.push_back(slot.name);
    }
  }
  return student;
}

struct Adapted {
  Opened model;
  std::optional<Trained> trained = {};
};
Adapted adapted(const Opened& base, const Tokenizer& tokenizer, const Encoded& train,
                const RunOptions& options, Group& group, const Watch& watch,
                const std::function<void(const StepRecord&)>& on_step) {
  if (options.adaptation.steps == 0) return {base};
  const Opened masked =
      declare(apply(base.checkpoint, base.blueprint, edits_of(options.mask, base.blueprint)));
  RunOptions own = options;
  if (own.learns == Learns::head) own.learns = Learns::everything;
  Student student(masked, student_options(own, false, masked.blueprint));
  TrainOptions training = options.training;
  training.steps = options.adaptation.steps;
  training.schedule_steps = 0;
  if (options.adaptation.learning_rate > 0) training.learning_rate = options.adaptation.learning_rate;
  if (!training.state.empty()) training.state /= "adaptation";
  const auto batches = adaptation_batches(
      train.windows,
      {.masked = options.adaptation.masked,
       .mask = options.adaptation.mask_token,
       .pad = pad_of(tokenizer),
       .vocabulary = static_cast<int32_t>(std::min<int64_t>(tokenizer.size(), base.blueprint.vocabulary)),
       .batch = training.batch,
       .seed = training.seed});
  EpochHook hook(student, {.seed = training.seed});
  Trained trained =
      lamina::train(student, *cross_entropy(), {.train = *batches}, training, hook, group, watch, on_step);
  Opened model = student.now(DType::f32);
  // The mask goes back: the run sets its own, and a plan cannot unmask twice.
  write_unmasked(model.checkpoint.config,
                 read_unmasked(base.checkpoint.config, base.blueprint.blocks, base.checkpoint.what()));
  name_for_loaders(model.checkpoint.config, base.blueprint);
  return {declare(std::move(model.checkpoint)), std::move(trained)};
}

}  // namespace

TagData tag_data(label::Document train, label::Document dev, label::Document test,
                 std::vector<std::string>& notes) {
  TagData data{.train = std::move(train.sentences),
               .dev = std::move(dev.sentences),
               .test = std::move(test.sentences)};
  const auto types_of = [](const std::vector<label::Sentence>& sentences) {
    std::set<std::string> types;
    for (const label::Sentence& sentence : sentences) {
      for (const std::string& tag : sentence.tags) {
        if (tag != "O") types.insert(tag.substr(2));
      }
    }
    return types;
  };
  const std::set<std::string> known = types_of(data.train);
  if (known.empty()) fail("the training data has no entity, only \"O\"; there is nothing to learn");
  data.labels = {"O"};
  for (const std::string& type : known) {
    data.labels.push_back("B-" + type);
    data.labels.push_back("I-" + type);
  }
  for (const auto& [name, sentences] : {std::pair("development", &data.dev), std::pair("test", &data.test)}) {
    std::vector<std::string> strange;
    for (const std::string& type : types_of(*sentences)) {
      if (!known.contains(type)) strange.push_back(type);
    }
    if (!strange.empty())
      notes.push_back(
          fmt::format("the {} data has the type{} {}, which the training data has not: such "
                      "entities can only be missed",
                      name, strange.size() == 1 ? "" : "s", fmt::join(strange, ", ")));
  }
  return data;
}

RunOutcome run(const Opened& base, const Tokenizer& tokenizer, const TagData& data, const RunOptions& options,
               Group& group, const Watch& watch, const std::function<void(const StepRecord&)>& on_step) {
  if (base.blueprint.labels == 0 && options.feeding.encode.length < 2) fail("windows have 2 tokens or more");
  check_fits(options.feeding, base.blueprint);
  RunResult result{
      .mask = options.mask.name, .repeat = options.feeding.repeat, .seed = options.training.seed};
  const int32_t pad = pad_of(tokenizer);
  const auto encoded = [&](const std::vector<label::Sentence>& sentences) {
    return Encoded{sentences, windows(sentences, tokenizer, options.feeding.encode)};
  };
  const Encoded train = encoded(data.train), dev = encoded(data.dev), test = encoded(data.test);

  const Opened started =
      options.from_scratch ? with_first_numbers(base, {.seed = options.training.seed}) : base;
  Adapted ready = adapted(started, tokenizer, train, options, group, watch, on_step);
  result.adapted = std::move(ready.trained);
  const Opened classifier = with_labels(ready.model, data.labels, options.feeding);
  Opened masked = declare(
      apply(classifier.checkpoint, classifier.blueprint, edits_of(options.mask, classifier.blueprint)));
  const Blueprint blueprint = masked.blueprint;
  auto student = std::make_shared<Student>(std::move(masked), student_options(options, true, blueprint));
  start_classifier(*student, options.training.seed);

  TrainOptions training = options.training;
  const int64_t a_step = training.batch * training.accumulate, samples = std::ssize(train.windows);
  const int64_t epoch_steps = (samples + a_step - 1) / a_step;
  if (options.epochs > 0) training.steps = (samples * options.epochs + a_step - 1) / a_step;
  const auto batches = labelled_batches(
      train.windows, classes_of(data.train, data.labels),
      {.repeat = options.feeding.repeat, .pad = pad, .batch = training.batch, .seed = training.seed});
  const auto objective = cross_entropy(options.dropout);
  EpochHook hook(*student, {.seed = training.seed,
                            .epoch_steps = epoch_steps,
                            .steps = training.steps,
                            .keep_best = options.best_epoch && !dev.windows.empty(),
                            .dev = dev.windows.empty() ? nullptr : &dev,
                            .labels = &data.labels,
                            .feeding = options.feeding,
                            .pad = pad});
  const Clock::time_point start = Clock::now();
  result.trained =
      lamina::train(*student, *objective, {.train = *batches}, training, hook, group, watch, on_step);
  result.seconds = seconds_since(start);
  hook.settle();
  result.epochs = hook.epochs();
  for (int64_t first = 0; first < samples; first += training.batch) {
    const Batch batch = batches->at(first, std::min(training.batch, samples - first));
    result.padded_tokens += batch.inputs.ids.numel();
    result.tokens +=
        batch.inputs.padding ? batch.inputs.padding->sum().item<int64_t>() : batch.inputs.ids.numel();
  }
  if (!dev.windows.empty()) {
    result.dev_tags = hook.dev_tags();
    result.dev = scored(data.dev, result.dev_tags);
  }
  if (!test.windows.empty()) {
    result.test_tags = tags_of(tag_with(student->model(), test.windows, test.sentences, data.labels,
                                        options.feeding.repeat, pad, TaggerOptions{}.batch_tokens, watch));
    result.test = scored(data.test, result.test_tags);
  }
  return {std::move(result), std::move(student)};
}

std::vector<Span> attention_spans(const Model& model, std::span<const Window> windows, int64_t repeat,
                                  int32_t pad) {
  class Look : public Tap {
   public:
    explicit Look(const Blueprint& blueprint) : blueprint_(blueprint) {}
    bool reads_heads(Site site) const override { return blueprint_.part(site).kind == Kind::attention; }
    void saw_heads(Site site, const Heads& heads) override {
      const Tensor looked = attention_weights(heads.queries, heads.keys, heads.options);
      const int64_t tokens = looked.size(-1);
      const auto options = looked.options();
      const Tensor at = at::arange(tokens, options), apart = at.unsqueeze(0) - at.unsqueeze(1);
      Sum& sum = sums[blueprint_.part(site).block];
      const double queries = static_cast<double>(looked.numel() / tokens);
      sum.distance += (looked * apart.abs()).sum().item<double>();
      sum.right += (looked * (apart > 0).to(options)).sum().item<double>();
      sum.queries += queries;
    }
    struct Sum {
      double distance = 0, right = 0, queries = 0;
    };
    std::map<int, Sum> sums;

   private:
    const Blueprint& blueprint_;
  };
  const InferenceMode evaluating;
  Look tap(model.blueprint());
  for (const Window& window : windows) {
    const Window* one = &window;
    const Padded rows = padded(std::span(&one, 1), repeat, pad);
    Stream stream = model.begin({.ids = rows.inputs.ids.to(model.head().weight.device())});
    for (Site site : model.blueprint().present()) model.step(stream, site, tap);
  }
  std::vector<Span> spans;
  for (const auto& [block, sum] : tap.sums)
    spans.push_back(
        {.block = block, .distance = sum.distance / sum.queries, .right = sum.right / sum.queries});
  return spans;
}

}  // namespace lamina::unmask
