#include "lamina/heal/features.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/heal/denoise.h"
#include "lamina/heal/impl/walk.h"
#include "lamina/model/through.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

namespace {

constexpr std::array<std::pair<FeatureMode, std::string_view>, 8> kModes = {
    {{FeatureMode::none, "none"},
     {FeatureMode::plain, "plain"},
     {FeatureMode::plain_equal, "plain-equal"},
     {FeatureMode::teacher_norm, "teacher-norm"},
     {FeatureMode::batch_norm, "batch-norm"},
     {FeatureMode::ema_loss, "ema-loss"},
     {FeatureMode::layer_norm, "layernorm"},
     {FeatureMode::masked, "masked"}}};

using Place = FeatureTap::Place;

// Keeps the maps at some places of a pass.
class Seen : public Through {
 public:
  Seen(Tap& behind, std::vector<Place> places) : Through(behind), places_(std::move(places)) {
    maps.resize(places_.size());
  }
  void saw_stage(int stage, const Tensor& x) override {
    Through::saw_stage(stage, x);
    for (size_t i = 0; i < places_.size(); ++i) {
      if (places_[i].stage == stage) maps[i] = x;
    }
  }
  void saw(Site site, const Tensor& before, const Tensor& after) override {
    Through::saw(site, before, after);
    for (size_t i = 0; i < places_.size(); ++i) {
      if (places_[i].stage < 0 && places_[i].site == site) maps[i] = after;
    }
  }
  std::vector<Tensor> maps;

 private:
  std::vector<Place> places_;
};

// Shapes behind every stage and part.
class Shapes : public Tap {
 public:
  void saw_stage(int stage, const Tensor& x) override { stages[stage] = x.sizes().vec(); }
  void saw(Site site, const Tensor&, const Tensor& after) override {
    parts[site.index] = after.sizes().vec();
  }
  std::map<int, std::vector<int64_t>> stages, parts;
};

Shapes shapes_of(const Model& model, const Inputs& probe) {
  const InferenceMode off(false);
  const c10::NoGradGuard watching;
  Shapes shapes;
  model.run(probe, shapes);
  return shapes;
}

constexpr std::string_view kUp = "up_blocks.";

int64_t ups(const Blueprint& blueprint) {
  return std::ranges::count_if(blueprint.stages, [](const std::string& s) { return s.starts_with(kUp); });
}

// The student's stage that goes with the teacher's `stage`; -1: none.
int counterpart(const Blueprint& student, const Blueprint& teacher, const std::string& stage) {
  std::string name = stage;
  if (stage.starts_with(kUp)) {
    const int64_t up = std::stoll(stage.substr(kUp.size())) - ups(teacher) + ups(student);
    name = fmt::format("{}{}", kUp, up);
  }
  const auto it = std::ranges::find(student.stages, name);
  return it == student.stages.end() ? -1 : static_cast<int>(it - student.stages.begin());
}

// The stage of the first part that does another thing in the student than in the teacher: it is gone, or
// looks through other windows, or mixes other kernels; 0: there is none.
int first_other(const Blueprint& student, const Blueprint& teacher) {
  for (const Part& part : teacher.parts) {
    if (!part.present) continue;
    const auto here = student.find(part.path);
    if (!here) return part.block;
    const Part& own = student.part(*here);
    if (!own.present || own.windows != part.windows || own.experts != part.experts) return part.block;
  }
  return 0;
}

Site last_part(const Blueprint& blueprint, int stage) {
  Site last;
  for (Site site : blueprint.present()) {
    if (blueprint.part(site).block == stage) last = site;
  }
  return last;
}

std::vector<Place> places(const std::vector<FeatureTap>& taps, Place FeatureTap::* of) {
  std::vector<Place> all;
  for (const FeatureTap& tap : taps) all.push_back(tap.*of);
  return all;
}

// Over the channels at each place, as a transformer norms its tokens.
Tensor normed_channels(const Tensor& map) {
  constexpr double kEpsilon = 1e-5;
  const int64_t channels = map.dim() == 4 ? 1 : -1;
  const Tensor mean = map.mean(channels, true), centred = map - mean;
  return centred / (centred.square().mean(channels, true) + kEpsilon).sqrt();
}

double mean_square(const Tensor& map) {
  return map.square().mean(at::kDouble).item<double>();
}

void check_weights(const TeachingOptions& options) {
  for (const auto& [name, weight] :
       {std::pair("task", options.task), std::pair("output", options.output),
        std::pair("feature", options.feature), std::pair("semantic", options.semantic)}) {
    if (!(weight >= 0) || !std::isfinite(weight))
      fail("the weight of the {} term is {}; it takes 0 or more", name, weight);
  }
  const bool features = options.mode != FeatureMode::none && options.feature > 0;
  if (options.task + options.output + options.semantic == 0 && !features)
    fail("every weight of the loss is 0; nothing would be learnt");
  if (options.semantic > 0 && (!options.semantic_loss || !options.schedule))
    fail("a semantic term takes a loss and a noise schedule");
}

}  // namespace

std::string_view feature_mode_name(FeatureMode mode) {
  return std::ranges::find(kModes, mode, &std::pair<FeatureMode, std::string_view>::first)->second;
}

FeatureMode feature_mode_from_name(std::string_view name) {
  std::vector<std::string_view> known;
  for (const auto& [mode, its] : kModes) {
    if (its == name) return mode;
    known.push_back(its);
  }
  fail("there is no way to compare features called \"{}\"; what there is: {}", name, fmt::join(known, ", "));
}

std::vector<FeatureTap> feature_taps(const Model& student, const Model& teacher, const Inputs& probe) {
  const Blueprint &ours = student.blueprint(), &theirs = teacher.blueprint();
  const Shapes here = shapes_of(student, probe), there = shapes_of(teacher, probe);
  std::vector<FeatureTap> taps;
  for (int stage = first_other(ours, theirs); stage < static_cast<int>(theirs.stages.size()); ++stage) {
    const std::string& name = theirs.stages[static_cast<size_t>(stage)];
    const int own = counterpart(ours, theirs, name);
    if (own < 0) continue;
    if (here.stages.at(own) == there.stages.at(stage)) {
      taps.push_back({.name = name, .student = {.stage = own}, .teacher = {.stage = stage}});
      continue;
    }
    const Site last = last_part(ours, own), its = last_part(theirs, stage);
    if (last.index < 0 || its.index < 0 || here.parts.at(last.index) != there.parts.at(its.index)) continue;
    taps.push_back({.name = theirs.part(its).path, .student = {.site = last}, .teacher = {.site = its}});
  }
  return taps;
}

double distance(const Model& student, const Model& teacher, const Batches& data,
                const EvaluateOptions& options) {
  const InferenceMode off(false);
  const c10::NoGradGuard watching;
  const int64_t all = data.samples_per_epoch(), batch = options.batch;
  const int64_t count = options.samples > 0 ? std::min(options.samples, all) : all;
  double sum = 0, numbers = 0;
  for (int64_t first = 0; first < count; first += batch) {
    const Inputs inputs = data.at(first, std::min(batch, count - first)).inputs;
    const Tensor difference = student.run(inputs) - teacher.run(inputs);
    sum += difference.square().sum(at::kDouble).item<double>();
    numbers += static_cast<double>(difference.numel());
  }
  return sum / numbers;
}

// ---- the objective

struct Teaching::Term {
  std::string name;
  Tensor value;  // weighted, a mean
};

// What goes from step to step.
struct Teaching::Memory : Hook {
  std::vector<std::string> names;
  std::vector<double> averages;  // ema_loss's, of the terms without their weights; empty before the first
  int64_t step = 1;
  bool keeps = false;         // whether averages are kept
  std::unique_ptr<Seen> tap;  // of the last pass: parts that run again in its backward are told to it
  static std::string raw(const std::string& name) { return "raw " + name; }

  void begin_step(int64_t now) override { step = now; }
  void end_step(StepRecord& record, Group& /*group*/) override {
    if (!keeps) return;
    constexpr double kDecay = 0.99;
    const bool first = averages.empty();
    averages.resize(names.size());
    for (size_t i = 0; i < names.size(); ++i) {
      const auto it = record.terms.find(raw(names[i]));
      if (it == record.terms.end()) continue;
      averages[i] = first ? it->second : kDecay * averages[i] + (1 - kDecay) * it->second;
      record.terms.erase(it);
    }
  }
  State state() const override {
    State state;
    state.json = {{"step", step}, {"averages", averages}};
    return state;
  }
  void restore(const State& state) override {
    const Json& json = state.json;
    if (!json.is_object() || !json.contains("averages") || !json["averages"].is_array())
      fail("the checkpoint holds no averages of the feature terms");
    averages.clear();
    for (const Json& value : json["averages"]) {
      if (!value.is_number()) fail("the checkpoint holds an average that is no number");
      averages.push_back(value.get<double>());
    }
    if (!averages.empty() && averages.size() != names.size())
      fail("the checkpoint holds {} averages where {} maps are compared", averages.size(), names.size());
  }
  std::string digest() const override { return keeps ? "averages of feature terms" : ""; }
};

Teaching::Teaching(std::shared_ptr<const Model> teacher, const Model& student, const Batches& data,
                   TeachingOptions options)
    : teacher_(std::move(teacher)), options_(std::move(options)), memory_(std::make_shared<Memory>()) {
  check_weights(options_);
  if (options_.mode == FeatureMode::none || options_.feature == 0) return;
  if (options_.calibration < 1) fail("features are measured on one sample or more");
  const InferenceMode off(false);
  const c10::NoGradGuard watching;
  taps_ = feature_taps(student, *teacher_, data.at(0, 1).inputs);
  if (taps_.empty())
    fail(
        "student and teacher have no map in common that a cut could have changed; use the features \"none\"");
  constexpr int64_t kBatch = 8;
  mean_squares_.assign(taps_.size(), 0);
  for (int64_t first = 0; first < options_.calibration; first += kBatch) {
    const int64_t count = std::min(kBatch, options_.calibration - first);
    Tap none;
    Seen seen(none, places(taps_, &FeatureTap::teacher));
    teacher_->run(data.at(first, count).inputs, seen);
    for (size_t i = 0; i < taps_.size(); ++i)
      mean_squares_[i] +=
          mean_square(seen.maps[i]) * static_cast<double>(count) / static_cast<double>(options_.calibration);
  }
  for (const FeatureTap& tap : taps_) memory_->names.push_back(tap.name);
  memory_->keeps = options_.mode == FeatureMode::ema_loss;
}

Teaching::~Teaching() = default;

Hook& Teaching::hook() {
  return *memory_;
}

// The mean squared difference, as the mode has it.
Tensor Teaching::compared(const Tensor& student, const Tensor& teacher) const {
  if (options_.mode == FeatureMode::layer_norm)
    return at::mse_loss(normed_channels(student), normed_channels(teacher));
  if (options_.mode == FeatureMode::masked) {
    const Tensor mean = teacher.mean(), reach = 2 * teacher.std();
    const Tensor within = (teacher - mean).abs().le(reach);
    const Tensor squares = at::where(within, (student - teacher).square(), at::zeros({}, student.options()));
    return squares.sum() / within.sum().clamp_min(1);
  }
  return at::mse_loss(student, teacher);
}

double Teaching::weight(size_t tap, const Tensor& teacher, const Tensor& error) const {
  constexpr double kLeast = std::numeric_limits<double>::min();
  const auto k = static_cast<double>(taps_.size());
  double c = 1;
  if (options_.scale == FeatureScale::calibrated) {
    c = 0;
    for (const double square : mean_squares_) c += square / k;
  }
  const auto relative = [&](double square) { return c / (k * std::max(square, kLeast)); };
  switch (options_.mode) {
    case FeatureMode::none:
      return 0;
    case FeatureMode::plain:
      return 1;
    case FeatureMode::plain_equal: {
      double sum = 0;
      for (const double square : mean_squares_) sum += relative(square);
      return sum / k;
    }
    case FeatureMode::teacher_norm:
      return relative(mean_squares_[tap]);
    case FeatureMode::batch_norm:
      return relative(mean_square(teacher));
    case FeatureMode::ema_loss: {
      const double average = memory_->averages.empty() ? error.item<double>() : memory_->averages[tap];
      return average > 0 ? 1 / (k * average) : 0;  // a term that is nothing pulls at nothing
    }
    case FeatureMode::layer_norm:
      return 1 / k;
    case FeatureMode::masked: {
      constexpr double kFirst = 1e-2;
      const double done =
          static_cast<double>(memory_->step - 1) / static_cast<double>(std::max<int64_t>(1, options_.steps));
      return kFirst * std::max(0.0, 1 - done) / k;
    }
  }
  return 0;
}

double Teaching::gradient_ratio(const std::vector<Term>& terms, const Tensor& at) const {
  double largest = 0, smallest = std::numeric_limits<double>::infinity();
  int64_t pulling = 0;
  for (const Term& term : terms) {
    if (!term.value.requires_grad()) continue;
    const auto gradient = torch::autograd::grad({term.value}, {at}, {}, /*retain_graph=*/true,
                                                /*create_graph=*/false, /*allow_unused=*/true);
    const double norm = gradient[0].defined() ? gradient[0].norm().item<double>() : 0;
    if (norm == 0) continue;
    ++pulling;
    largest = std::max(largest, norm);
    smallest = std::min(smallest, norm);
  }
  return pulling < 2 ? 0 : largest / smallest;
}

Losses Teaching::operator()(const Pass& pass) const {
  const Inputs& inputs = pass.batch.inputs;
  const bool part_taps =
      std::ranges::any_of(taps_, [](const FeatureTap& tap) { return tap.student.stage < 0; });
  if (pass.gradient_checkpointing && part_taps)
    fail("maps inside stages cannot be compared when parts run again in backward");
  Tap none;
  Seen theirs(none, places(taps_, &FeatureTap::teacher));
  Tensor taught;
  {
    const c10::NoGradGuard watching;
    taught = teacher_->run(inputs, theirs);
  }
  memory_->tap = std::make_unique<Seen>(pass.tap, places(taps_, &FeatureTap::student));
  Seen& ours = *memory_->tap;
  const Pass seen{.model = pass.model,
                  .batch = pass.batch,
                  .tap = ours,
                  .gradient_checkpointing = pass.gradient_checkpointing,
                  .recomputing = pass.recomputing,
                  .weight = pass.weight};
  Stream begun = pass.model.begin(inputs);
  const Tensor entry = begun.x;
  const Tensor said = pass.model.finish(walk(seen, std::move(begun), {}), ours);
  const std::vector<Tensor> maps = std::exchange(ours.maps, std::vector<Tensor>(taps_.size()));

  Losses losses;
  std::vector<Term> terms;
  const Tensor task = at::mse_loss(said, pass.batch.targets.to(said.scalar_type()));
  losses.measure = task.item<double>() * static_cast<double>(pass.batch.learnt());
  if (options_.task > 0) terms.push_back({"task", task * options_.task});
  if (options_.output > 0)
    terms.push_back({"output", at::mse_loss(said, taught.to(said.scalar_type())) * options_.output});
  const auto count = static_cast<double>(pass.batch.learnt());
  for (size_t i = 0; i < taps_.size(); ++i) {
    const Tensor map = theirs.maps[i].to(maps[i].scalar_type()), error = compared(maps[i], map);
    terms.push_back({taps_[i].name, error * (weight(i, map, error) * options_.feature)});
    if (memory_->keeps) losses.terms[Memory::raw(taps_[i].name)] = error.item<double>() * count;
  }
  if (options_.semantic > 0) {
    const NoiseSchedule& schedule = *options_.schedule;
    const Tensor bar = schedule.alpha_bar_at(inputs.time, said).flatten();
    terms.push_back(
        {"semantic", options_.semantic_loss(schedule.clean(inputs.sample, said, inputs.time),
                                            schedule.clean(inputs.sample, taught, inputs.time), bar) *
                         options_.semantic});
  }
  Tensor sum = at::zeros({}, said.options().dtype(at::kDouble));
  for (const Term& term : terms) {
    sum = sum + term.value.to(at::kDouble);
    losses.terms[term.name] = term.value.item<double>() * count;
  }
  const bool look = options_.look_every > 0 && (memory_->step - 1) % options_.look_every == 0;
  if (look && !pass.gradient_checkpointing && c10::GradMode::is_enabled() && entry.requires_grad())
    losses.terms["gradient ratio"] = gradient_ratio(terms, entry) * count;
  losses.sum = sum * (count * pass.weight);
  return losses;
}

double Teaching::measure(const Pass& pass) const {
  return at::mse_loss(given(pass), pass.batch.targets.to(pass.model.dtype()), at::Reduction::Sum)
      .item<double>();
}

std::string Teaching::digest() const {
  std::vector<std::string> names;
  for (const FeatureTap& tap : taps_) names.push_back(tap.name);
  return fmt::format("denoising as {} teaches it, task {}, output {}, features {} {} ({}) at {}, semantic {}",
                     options_.teacher, options_.task, options_.output, feature_mode_name(options_.mode),
                     options_.feature, options_.scale == FeatureScale::one ? "one" : "calibrated",
                     fmt::join(names, ", "), options_.semantic);
}

}  // namespace lamina
