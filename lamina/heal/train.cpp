#include "lamina/heal/train.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numbers>

#include "lamina/base/error.h"
#include "lamina/base/fields.h"
#include "lamina/base/hash.h"
#include "lamina/heal/impl/adamw.h"
#include "lamina/heal/impl/autocast.h"
#include "lamina/heal/impl/run_state.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

namespace {

constexpr std::array<std::pair<Schedule, std::string_view>, 3> kSchedules = {
    {{Schedule::constant, "constant"}, {Schedule::linear, "linear"}, {Schedule::cosine, "cosine"}}};

void check(const TrainOptions& options, int ranks) {
  const auto positive = [](int64_t value, std::string_view name) {
    if (value < 1) fail("{} is {}; it takes 1 or more", name, value);
  };
  const auto at_least_zero = [](double value, std::string_view name) {
    if (!(value >= 0) || !std::isfinite(value)) fail("{} is {}; it takes 0 or more", name, value);
  };
  positive(options.steps, "steps");
  positive(options.batch, "batch");
  positive(options.accumulate, "accumulate");
  if (options.accumulate % ranks != 0)
    fail("{} micro-batches in a step cannot be dealt evenly to {} ranks; make --accumulate a multiple of {}",
         options.accumulate, ranks, ranks);
  at_least_zero(options.learning_rate, "lr");
  at_least_zero(options.minimum_rate, "min-lr");
  if (options.minimum_rate > options.learning_rate)
    fail("the floor of the schedule, {}, lies above the learning rate, {}", options.minimum_rate,
         options.learning_rate);
  at_least_zero(static_cast<double>(options.warmup), "warmup");
  at_least_zero(static_cast<double>(options.schedule_steps), "schedule-steps");
  at_least_zero(static_cast<double>(options.evaluate_every), "evaluate-every");
  at_least_zero(options.weight_decay, "weight-decay");
  at_least_zero(options.clip, "clip");
  for (const auto& [value, name] : {std::pair(options.beta1, "beta1"), std::pair(options.beta2, "beta2")}) {
    if (!(value >= 0) || !(value < 1)) fail("{} is {}; it lies from 0 to below 1", name, value);
  }
  if (!(options.epsilon > 0)) fail("epsilon is {}; it takes a number above 0", options.epsilon);
  positive(options.checkpoint_every, "checkpoint-every");
  if (!options.autocast.empty() && options.autocast != "bfloat16")
    fail("autocast is \"{}\"; only \"bfloat16\" is known", options.autocast);
}

int64_t length_of_schedule(const TrainOptions& options) {
  return options.schedule_steps > 0 ? options.schedule_steps : options.steps;
}

std::string digest_of(const Checkpoint& checkpoint) {
  Sha256 hash;
  hash.add(checkpoint.config.dump());
  for (const Stored& stored : checkpoint.tensors) {
    hash.add(fmt::format("{} {} {} {}", stored.name, dtype_name(stored.dtype), stored.shape, stored.zero));
    if (!stored.zero)
      stream(stored, {.as = stored.dtype, .paired_heads = stored.paired_heads},
             [&](Bytes piece) { hash.add(piece); });
  }
  return hash.hex();
}

std::string trained_of(const std::vector<Parameter>& parameters, const Student::Options& options) {
  Sha256 hash;
  for (const Parameter& parameter : parameters)
    hash.add(fmt::format("{} {} {};", parameter.name, parameter.value.sizes().vec(), parameter.decays));
  const std::string what = options.lora ? fmt::format("adapters of rank {}, alpha {}, seed {}",
                                                      options.lora->rank, options.lora->alpha, options.seed)
                                        : "weights";
  const std::string dropout =
      options.lora && options.lora->dropout > 0 ? fmt::format(", dropout {}", options.lora->dropout) : "";
  return fmt::format("{}{} as {}, {}", what, dropout, at::toString(options.dtype), hash.hex().substr(0, 12));
}

// What makes two runs the same run. How often one looks at it, where it ends and on how many ranks it runs
// are free.
std::map<std::string, std::string> fields_of(const Student& student, const std::vector<Parameter>& parameters,
                                             const Objective& objective, const TrainData& data,
                                             const TrainOptions& options, const Hook& hook) {
  std::map<std::string, std::string> fields;
  const Json json = options_to_json(options);
  for (const auto& [name, value] : json.items()) fields[name] = value.dump();
  for (const char* free :
       {"steps", "schedule-steps", "evaluate-every", "checkpoint-every", "gradient-checkpointing"})
    fields.erase(free);
  fields["schedule"] = schedule_name(options.schedule);
  if (options.schedule != Schedule::constant)
    fields["length of the schedule"] = std::to_string(length_of_schedule(options));
  fields["model"] = digest_of(student.opened().checkpoint);
  fields["trained"] = trained_of(parameters, student.options());
  fields["data"] = data.train.digest();
  fields["objective"] = objective.digest();
  fields["hook"] = hook.digest();
  return fields;
}

void check_same(const std::map<std::string, std::string>& before,
                const std::map<std::string, std::string>& now, const std::filesystem::path& folder) {
  std::vector<std::string> differences;
  const auto value = [](const std::map<std::string, std::string>& fields, const std::string& name) {
    const auto it = fields.find(name);
    return it == fields.end() ? std::string("nothing") : it->second.empty() ? "none" : it->second;
  };
  std::map<std::string, std::string> all = before;
  all.insert(now.begin(), now.end());
  for (const auto& [name, ignored] : all) {
    const std::string then = value(before, name), today = value(now, name);
    if (then == today) continue;
    const bool opaque = name == "model" || name == "data";
    differences.push_back(opaque ? fmt::format("another {}", name)
                                 : fmt::format("{} was {} and is {}", name, then, today));
  }
  if (!differences.empty())
    fail("{}: holds a run that differs: {}; go on with what it had, or name another folder", folder.string(),
         fmt::join(differences, ", "));
}

Tensor bytes_of(std::string_view text) {
  Tensor bytes = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  if (!text.empty()) std::memcpy(bytes.data_ptr(), text.data(), text.size());
  return bytes;
}

// A text of rank 0, on every rank.
std::string told(Group& group, std::string text) {
  if (group.size() == 1) return text;
  Tensor length = at::full({1}, static_cast<int64_t>(text.size()), at::kLong);
  group.broadcast(length, 0);
  Tensor bytes = group.rank() == 0 ? bytes_of(text) : at::empty({length.item<int64_t>()}, at::kByte);
  if (bytes.numel() > 0) group.broadcast(bytes, 0);
  return {reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>()), static_cast<size_t>(bytes.numel())};
}

Batch on_device(Batch batch, at::Device device) {
  if (device.is_cpu()) return batch;
  const auto move = [&](Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.to(device);
  };
  Inputs& inputs = batch.inputs;
  for (Tensor* tensor : {&inputs.ids, &inputs.sample, &inputs.time, &inputs.text, &batch.targets})
    move(*tensor);
  if (inputs.padding) move(*inputs.padding);
  for (auto& [name, tensor] : inputs.added) move(tensor);
  return batch;
}

struct Share {
  int rank = 0, size = 1;
};

// The micro-batches of this rank; summed, not yet a mean.
Evaluation summed_measure(const Model& model, const Objective& objective, const Batches& data,
                          const EvaluateOptions& options, Tap& tap, Share share) {
  const InferenceMode off(false);  // what the tap keeps may meet training again
  const c10::NoGradGuard watching;
  const int64_t all = data.samples_per_epoch(),
                count = options.samples > 0 ? std::min(options.samples, all) : all, batch = options.batch;
  Evaluation evaluation;
  for (int64_t first = share.rank * batch; first < count; first += share.size * batch) {
    const Batch piece = on_device(data.at(first, std::min(batch, count - first)), options.device);
    evaluation.loss += objective.measure({.model = model, .batch = piece, .tap = tap});
    evaluation.positions += piece.learnt();
  }
  return evaluation;
}

class Run {
 public:
  Run(Student& student, const Objective& objective, const TrainData& data, const TrainOptions& options,
      Hook& hook, Group& group)
      : student_(student),
        objective_(objective),
        data_(data),
        options_(options),
        hook_(hook),
        group_(group),
        optimizer_(together(student, objective, hook), {.beta1 = options.beta1,
                                                        .beta2 = options.beta2,
                                                        .epsilon = options.epsilon,
                                                        .weight_decay = options.weight_decay}) {}

  Trained go(const Watch& watch, const std::function<void(const StepRecord&)>& on_step) {
    begin();
    for (int64_t step = trained_.resumed_from + 1; step <= options_.steps; ++step) {
      std::optional<StepRecord> record = this->step(step, watch);
      if (!record) break;
      trained_.curve.push_back(*record);
      if (on_step) on_step(*record);
      watch.report({"train", static_cast<double>(step), static_cast<double>(options_.steps),
                    fmt::format("loss {:.4f}", record->loss)});
      const bool last = step == options_.steps;
      if (data_.validation && (last || due(step, options_.evaluate_every))) look(step);
      if (last || due(step, options_.checkpoint_every)) save(step);
    }
    for (const Parameter& parameter : optimizer_.parameters()) parameter.value.mutable_grad().reset();
    return std::move(trained_);
  }

 private:
  static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

  static std::vector<Parameter> together(Student& student, const Objective& objective, Hook& hook) {
    std::vector<Parameter> all = student.parameters();
    for (std::vector<Parameter>& others : std::array{objective.parameters(), hook.parameters()}) {
      for (Parameter& parameter : others) {
        if (std::ranges::find(all, parameter.name, &Parameter::name) != all.end())
          fail("{} is trained by the model and by a method", parameter.name);
        all.push_back(std::move(parameter));
      }
    }
    return all;
  }

  void begin() {
    if (!options_.state.empty() || group_.size() > 1) {
      group_.at("start");
      group_.barrier();  // rank 0 may have measured something first
      fields_ = fields_of(student_, optimizer_.parameters(), objective_, data_, options_, hook_);
      agree(group_, fields_);
    }
    if (!options_.state.empty()) restore();
    std::vector<std::pair<std::string, Tensor>> leaves;
    for (const Parameter& parameter : optimizer_.parameters())
      leaves.emplace_back(parameter.name, parameter.value);
    gradients_ = group_.gradients(std::move(leaves));
  }

  // Sums over ranks, in float64.
  std::vector<double> summed(const std::vector<double>& values) {
    if (group_.size() == 1) return values;
    Tensor tensor = at::tensor(values, at::kDouble);
    group_.sum(tensor);
    const auto* numbers = tensor.const_data_ptr<double>();
    return {numbers, numbers + values.size()};
  }

  // Nothing: a number was not one, and the step was not made.
  std::optional<StepRecord> step(int64_t step, const Watch& watch) {
    const auto start = std::chrono::steady_clock::now();
    const int64_t own = options_.accumulate / group_.size();
    const at::Device device = student_.options().device;
    std::vector<Batch> batches;
    double learnt = 0;
    for (int64_t m = 0; m < own; ++m) {
      const int64_t micro = (step - 1) * options_.accumulate + group_.rank() * own + m;
      batches.push_back(on_device(data_.train.at(micro * options_.batch, options_.batch), device));
      learnt += static_cast<double>(batches.back().learnt());
    }
    group_.at(fmt::format("step {}, start", step));
    const std::vector<double> all = summed({learnt, watch.stop.stop_requested() ? 1.0 : 0.0});
    if (all[1] > 0) {
      if (step > 1) save(step - 1);
      throw Stopped{};
    }
    const double positions = all[0];
    if (positions == 0) fail("step {} has no position that is to be learnt; are all targets masked?", step);

    if (group_.size() > 1) {
      for (const Parameter& parameter : optimizer_.parameters()) {
        if (parameter.value.grad().defined()) parameter.value.grad().zero_();
      }
    }
    hook_.begin_step(step);
    StepRecord record{.step = step, .tokens = static_cast<int64_t>(positions)};
    for (size_t m = 0; m < batches.size(); ++m) {
      hook_.begin_pass(batches[m]);
      const Pass pass{.model = student_.model(),
                      .batch = batches[m],
                      .tap = hook_.tap(),
                      .gradient_checkpointing = options_.gradient_checkpointing,
                      .recomputing = [this](bool again) { hook_.recomputing(again); },
                      .weight = 1 / positions};
      Losses losses;
      std::optional<std::pair<std::string, Tensor>> extra;
      {
        std::optional<Autocast> narrow;
        if (!options_.autocast.empty()) narrow.emplace(device.type(), true);
        losses = objective_(pass);
        extra = hook_.extra_loss();
      }
      Tensor from = losses.sum;
      if (extra) {
        const double share = static_cast<double>(batches[m].learnt()) / positions;
        record.terms[extra->first] += extra->second.item<double>() * share;
        from = from + extra->second * share;
      }
      if (!from.requires_grad()) fail("step {}: nothing that is trained moves the loss", step);
      record.loss += losses.measure / positions;
      record.objective += from.item<double>();
      for (const auto& [name, value] : losses.terms) record.terms[name] += value / positions;
      losses = {};
      if (m + 1 == batches.size()) {
        group_.at(fmt::format("step {}, gradients", step));
        gradients_->arm();
      }
      torch::autograd::backward({from});
    }
    gradients_->wait();

    group_.at(fmt::format("step {}, losses", step));
    std::vector<double> values = {record.loss, record.objective};
    for (const auto& [name, value] : record.terms) values.push_back(value);
    values = summed(values);
    record.loss = values[0];
    record.objective = values[1];
    for (size_t i = 2; auto& [name, value] : record.terms) value = values[i++];

    record.gradient_norm = optimizer_.gradient_norm();
    if (!std::isfinite(record.loss) || !std::isfinite(record.objective)) return broke(step, "the loss");
    if (!std::isfinite(record.gradient_norm)) {
      const std::optional<std::string> name = optimizer_.not_finite();
      return broke(step, name ? fmt::format("the gradient of {}", *name) : "the norm of the gradient");
    }
    record.learning_rate = learning_rate_at(options_, step);
    optimizer_.update(
        {.step = step,
         .learning_rate = record.learning_rate,
         .factor = options_.clip > 0 ? std::min(1.0, options_.clip / (record.gradient_norm + 1e-6)) : 1});
    // Alone, the memory is given back until the next backward; with others, gradients stay in their buckets.
    if (group_.size() == 1) {
      for (const Parameter& parameter : optimizer_.parameters()) parameter.value.mutable_grad().reset();
    }
    hook_.end_step(record, group_);
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return record;
  }

  std::nullopt_t broke(int64_t step, std::string on) {
    trained_.broke_at = step;
    trained_.broke_on = std::move(on);
    return std::nullopt;
  }

  void look(int64_t step) {
    group_.at(fmt::format("step {}, evaluation", step));
    const Evaluation evaluation = summed_measure(
        student_.model(), objective_, *data_.validation,
        {.samples = data_.validation_samples, .batch = options_.batch, .device = student_.options().device},
        hook_.tap(), {group_.rank(), group_.size()});
    const std::vector<double> all = summed({evaluation.loss, static_cast<double>(evaluation.positions)});
    if (all[1] == 0) fail("the validation text has no position that counts");
    trained_.evaluations.push_back(
        {.step = step, .loss = all[0] / all[1], .positions = static_cast<int64_t>(all[1])});
  }

  void save(int64_t step) {
    if (options_.state.empty() || step <= saved_) return;
    saved_ = step;
    group_.at(fmt::format("step {}, checkpoint", step));
    if (group_.rank() == 0) write(step);
    group_.barrier();  // a rank that went on to its end would have the launcher end the one that writes
  }

  void write(int64_t step) {
    RunState state{.step = step,
                   .fields = fields_,
                   .curve = trained_.curve,
                   .evaluations = trained_.evaluations,
                   .hook = {},
                   .tensors = {}};
    for (size_t i = 0; i < optimizer_.parameters().size(); ++i) {
      const Parameter& parameter = optimizer_.parameters()[i];
      state.tensors["value/" + parameter.name] = parameter.value;
      state.tensors["first/" + parameter.name] = optimizer_.moments()[i].first;
      state.tensors["second/" + parameter.name] = optimizer_.moments()[i].second;
    }
    Hook::State hook = hook_.state();
    state.hook = std::move(hook.json);
    for (auto& [name, tensor] : hook.tensors) state.tensors["hook/" + name] = std::move(tensor);
    write_checkpoint(options_.state, state);
  }

  // Rank 0 reads; the others take its word, since what they see of a shared disk may be older.
  void restore() {
    RunState state;
    Json word = Json::object();
    if (group_.rank() == 0) {
      try {
        if (std::optional<RunState> found = newest()) {
          state = *std::move(found);
          Json list = Json::array();
          for (const auto& [name, tensor] : state.tensors)
            list.push_back({name, dtype_name(dtype_of(tensor.scalar_type())), tensor.sizes().vec()});
          word = {{"state", to_text(state, "")}, {"tensors", std::move(list)}};
        }
        word["notes"] = trained_.notes;
      } catch (const Error& error) {
        if (group_.size() == 1) throw;
        word = {{"error", error.what()}};
      }
    }
    if (group_.size() > 1) {
      group_.at("resume");
      word = parse_json(told(group_, word.dump()), "what rank 0 says");
      if (word.contains("error")) fail("{}", word["error"].get<std::string>());
      trained_.notes = word["notes"].get<std::vector<std::string>>();
    }
    if (!word.contains("state")) return;
    if (group_.rank() != 0)
      state = state_from_text(word["state"].get<std::string>(), "what rank 0 says").state;
    Hook::State hook{.json = state.hook};
    const auto arrived = [&](const std::string& name, at::ScalarType type, at::IntArrayRef sizes) {
      Tensor tensor = group_.rank() == 0 ? state.tensors.at(name).contiguous() : at::empty(sizes, type);
      if (group_.size() > 1 && tensor.numel() > 0) group_.broadcast(tensor, 0);
      return tensor;
    };
    const c10::NoGradGuard writing;
    std::map<std::string, Tensor> places;
    for (size_t i = 0; i < optimizer_.parameters().size(); ++i) {
      const Parameter& parameter = optimizer_.parameters()[i];
      places["value/" + parameter.name] = parameter.value;
      places["first/" + parameter.name] = optimizer_.moments()[i].first;
      places["second/" + parameter.name] = optimizer_.moments()[i].second;
    }
    for (const Json& entry : word["tensors"]) {
      const auto name = entry[0].get<std::string>();
      const Tensor tensor = arrived(name, scalar_type(*dtype_from_name(entry[1].get<std::string>())),
                                    entry[2].get<std::vector<int64_t>>());
      if (const auto it = places.find(name); it != places.end())
        it->second.copy_(tensor);
      else
        hook.tensors[name.substr(std::string_view("hook/").size())] = tensor.clone();
    }
    hook_.restore(hook);
    trained_.curve = std::move(state.curve);
    trained_.evaluations = std::move(state.evaluations);
    trained_.resumed_from = saved_ = state.step;
  }

  // The newest whole checkpoint of this very run.
  std::optional<RunState> newest() {
    const std::vector<int64_t> steps = checkpoints_in(options_.state);
    if (!options_.resume) {
      if (!steps.empty())
        fail("{}: holds the checkpoints of an earlier run; resume it, or name another folder",
             options_.state.string());
      return std::nullopt;
    }
    std::vector<std::string> damages;
    for (int64_t step : steps) {
      RunState state;
      try {
        state = read_checkpoint(options_.state, step);
        check_same(state.fields, fields_, options_.state);
      } catch (const Error& error) {
        if (!state.fields.empty()) throw;
        damages.push_back(fmt::format("step-{} ({})", step, error.what()));
        continue;
      }
      check_tensors(state);
      if (state.step > options_.steps)
        fail("{}: the run there has done {} steps, more than the {} asked for", options_.state.string(),
             state.step, options_.steps);
      for (const std::string& damage : damages)
        trained_.notes.push_back(fmt::format("a checkpoint is damaged: {}; step-{} was taken", damage, step));
      return state;
    }
    if (!damages.empty())
      fail("{}: no checkpoint is whole: {}; start again in another folder", options_.state.string(),
           fmt::join(damages, ", "));
    return std::nullopt;
  }

  void check_tensors(const RunState& state) const {
    const std::string where = checkpoint_path(options_.state, state.step).string();
    size_t own = 0;
    for (const Parameter& parameter : optimizer_.parameters()) {
      for (const char* kind : {"value/", "first/", "second/"}) {
        const auto it = state.tensors.find(kind + parameter.name);
        if (it == state.tensors.end()) fail("{}: {}{} is missing", where, kind, parameter.name);
        if (it->second.sizes() != parameter.value.sizes() ||
            it->second.scalar_type() != parameter.value.scalar_type())
          fail("{}: {}{} has another type or shape than this run's", where, kind, parameter.name);
        ++own;
      }
    }
    for (const auto& [name, tensor] : state.tensors) own += name.starts_with("hook/") ? 1 : 0;
    if (own != state.tensors.size()) fail("{}: holds tensors that this run has no place for", where);
  }

  Student& student_;
  const Objective& objective_;
  const TrainData& data_;
  const TrainOptions& options_;
  Hook& hook_;
  Group& group_;
  AdamW optimizer_;
  std::unique_ptr<Group::Gradients> gradients_;
  std::map<std::string, std::string> fields_;
  int64_t saved_ = 0;
  Trained trained_;
};

}  // namespace

std::string_view schedule_name(Schedule schedule) {
  return std::ranges::find(kSchedules, schedule, &std::pair<Schedule, std::string_view>::first)->second;
}

Schedule schedule_from_name(std::string_view name) {
  for (const auto& [schedule, its] : kSchedules) {
    if (its == name) return schedule;
  }
  fail("there is no schedule \"{}\"; constant, linear and cosine are known", name);
}

double learning_rate_at(const TrainOptions& options, int64_t step) {
  const int64_t done = step - 1;
  if (done < options.warmup)
    return options.learning_rate * (static_cast<double>(done) / static_cast<double>(options.warmup));
  if (options.schedule == Schedule::constant) return options.learning_rate;
  const int64_t falls = length_of_schedule(options) - options.warmup;
  const double progress = std::min(
      1.0, static_cast<double>(done - options.warmup) / static_cast<double>(std::max<int64_t>(1, falls)));
  const double left =
      options.schedule == Schedule::linear ? 1 - progress : 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return options.minimum_rate + (options.learning_rate - options.minimum_rate) * left;
}

Trained train(Student& student, const Objective& objective, const TrainData& data,
              const TrainOptions& options, Hook& hook, Group& group, const Watch& watch,
              const std::function<void(const StepRecord&)>& on_step) {
  const InferenceMode off(false);
  check(options, group.size());
  if (!options.autocast.empty() && student.options().dtype != at::kFloat)
    fail("autocast narrows float32, and the weights are trained as {}",
         at::toString(student.options().dtype));
  return Run(student, objective, data, options, hook, group).go(watch, on_step);
}

Evaluation evaluate(const Model& model, const Objective& objective, const Batches& data,
                    const EvaluateOptions& options, Tap& tap) {
  Evaluation evaluation = summed_measure(model, objective, data, options, tap, {});
  if (evaluation.positions == 0) fail("the data has no position that counts");
  evaluation.loss /= static_cast<double>(evaluation.positions);
  return evaluation;
}

Evaluation evaluate(const Model& model, const Batches& data, int64_t samples, int64_t batch, Tap& tap) {
  const EvaluateOptions options{.samples = samples, .batch = batch, .device = model.head().weight.device()};
  return evaluate(model, *cross_entropy(), data, options, tap);
}

}  // namespace lamina
