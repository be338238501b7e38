#include "lamina/methods/denorm/denorm.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/heal/batches.h"
#include "lamina/heal/group.h"

namespace lamina::denorm {

namespace {

constexpr int64_t kHistory = 200;  // about so many points over a run

Tensor centred(const Norm& norm, const Tensor& x) {
  return norm.centred ? x - x.mean(-1, true) : x;
}

double blend(double mean, double value, double momentum) {
  return mean == 0 ? value : momentum * mean + (1 - momentum) * value;
}

// Sums and counts the scales of one pass.
class Scales : public Tap {
 public:
  explicit Scales(const Blueprint& blueprint) {
    for (const NormPath& path : blueprint.norm_paths()) sums_[path] = {0, 0};
  }
  bool reads_norm(Site) const override { return true; }
  Tensor norm(const NormPath& path, const Norm& norm, const Tensor& x) override {
    const Tensor scale = norm.scale(x);
    auto& [sum, count] = sums_.at(path);
    sum += scale.sum(at::kDouble).item<double>();
    count += scale.numel();
    return norm(x);
  }
  double mean(const NormPath& path) const {
    const auto& [sum, count] = sums_.at(path);
    return sum / static_cast<double>(std::max<int64_t>(count, 1));
  }

 private:
  std::map<NormPath, std::pair<double, int64_t>> sums_;
};

Tensor numbers(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble);
}

std::vector<double> values(const Tensor& tensor) {
  const double* data = tensor.const_data_ptr<double>();
  return {data, data + tensor.numel()};
}

Json path_json(const NormPath& path) {
  return {path.site.index, static_cast<int>(path.reader)};
}

NormPath path_from(const Json& json) {
  return {{json[0].get<int>()}, static_cast<Reader>(json[1].get<int>())};
}

}  // namespace

std::vector<double> measure_scales(const Model& model, const Batches& data, int64_t samples, int64_t batch) {
  const InferenceMode evaluating;
  Scales scales(model.blueprint());
  for (int64_t first = 0; first < samples; first += batch) {
    const Batch piece = data.at(first, std::min(batch, samples - first));
    Stream stream = model.begin(piece.inputs);
    for (Site site : model.blueprint().present()) model.step(stream, site, scales);
    model.read_out(stream, scales);
  }
  std::vector<double> means;
  for (const NormPath& path : model.blueprint().norm_paths()) means.push_back(scales.mean(path));
  return means;
}

Plan frozen_at(const Blueprint& blueprint, const std::vector<double>& scales) {
  Plan plan;
  const std::vector<NormPath> paths = blueprint.norm_paths();
  for (size_t p = 0; p < paths.size(); ++p)
    plan.edits.push_back(FreezeNorm{blueprint.norm_site(paths[p]), paths[p].reader, scales.at(p)});
  return plan;
}

double Taper::gate(int64_t done) const {
  if (done <= from) return 1;
  if (done >= to) return 0;
  const double share = static_cast<double>(done - from) / static_cast<double>(to - from);
  return 0.5 * (1 + std::cos(std::numbers::pi * share));
}

Denorm::Denorm(const Student& student, Options options)
    : options_(std::move(options)),
      blueprint_(student.opened().blueprint),
      paths_(blueprint_.norm_paths()),
      path_(paths_.size()),
      changed_(blueprint_.parts.size() + 1, false) {
  for (size_t p = 0; p < paths_.size(); ++p) {
    index_[paths_[p]] = p;
    if (!options_.scales.empty()) path_[p].live = options_.scales.at(p);
  }
  last_.epsilon = 1e-5;
  last_.centred = blueprint_.centred_norms;
  if (!options_.taper) {
    check_fits(options_.removals, blueprint_, options_.steps);
    return;
  }
  if (paths_.empty()) fail("there is no norm to remove: they are all gone");
  if (options_.taper->to >= options_.steps)
    fail(
        "the norms would taper until step {}, but the run has {}; take more steps (--steps), or taper sooner",
        options_.taper->to, options_.steps);
  std::map<Site, size_t> norms;
  for (const NormPath& path : paths_) {
    const auto [at, added] = norms.emplace(path.site, tapering_.size());
    tapering_of_.push_back(at->second);
    if (!added) continue;
    const std::string name =
        (path.reader == Reader::head ? blueprint_.final_norm : blueprint_.part(path.site).norm->path) +
        ".weight";
    const Parameter* gain = student.find(name);
    if (!gain) fail("{} is not trained, but tapering needs the gains of all norms", name);
    tapering_.push_back({.gain = gain->value});
    gains_.push_back({.name = name + ".tapered",
                      .value = gain->value.detach().clone().requires_grad_(true),
                      .decays = false});
  }
  changed_.assign(changed_.size(), true);
}

bool Denorm::reads_norm(Site site) const {
  return training_ || (site.index < 0 ? changed_.back() : changed_[static_cast<size_t>(site.index)]);
}

Tensor Denorm::norm(const NormPath& path, const Norm& norm, const Tensor& x) {
  if (training_ && !recomputing_) see(path, norm, x);
  const size_t p = index(path);
  if (const auto& held = path_[p].held; held && !options_.taper) return norm.held(x, *held);
  return options_.taper ? tapered(p, norm, x) : norm(x);
}

void Denorm::see(const NormPath& path, const Norm& norm, const Tensor& x) {
  if (path.reader == Reader::head) last_.epsilon = norm.epsilon;
  const Tensor detached = x.detach();
  if (!seen_x_.defined() || !x.is_same(seen_x_)) {
    seen_x_ = x;
    seen_scale_ = norm.scale(detached);
  }
  const size_t p = index(path);
  Path& seen = path_[p];
  const Tensor sum = seen_scale_.sum(at::kDouble);
  seen.sum = seen.sum.defined() ? seen.sum + sum : sum;
  seen.count += seen_scale_.numel();
  if (!options_.taper || seen.held || path.reader == Reader::v) return;
  Tapering& tapering = tapering_[tapering_of_[p]];
  const Tensor square = (centred(norm, detached) * norm.gain.detach()).square().sum(-1, true);
  const Tensor above = (square / seen_scale_).sum(at::kDouble), below = square.sum(at::kDouble);
  tapering.above = tapering.above.defined() ? tapering.above + above : above;
  tapering.below = tapering.below.defined() ? tapering.below + below : below;
}

// g norm(h) + (1 - g) (c h gain~ + bias). What does not count at g = 1 and at g = 0 still gets a gradient of
// zero, since everything that is trained is to get one.
Tensor Denorm::tapered(size_t p, const Norm& norm, const Tensor& x) const {
  const Tensor& gain = gains_[tapering_of_[p]].value;
  if (gate_ == 1) return training_ ? norm(x) + gain * 0 : norm(x);
  const Norm own{.gain = gain, .bias = norm.bias, .epsilon = norm.epsilon, .centred = norm.centred};
  const Tensor held = own.held(x, *path_[p].held);
  if (gate_ == 0) return training_ ? held + norm.gain * 0 : held;
  return norm(x) * gate_ + held * (1 - gate_);
}

void Denorm::saw_end(const Tensor& residual, const Tensor&) {
  if (training_ && !recomputing_) residual_ = residual;
}

void Denorm::begin_pass(const Batch& batch) {
  ids_ = batch.inputs.ids;
  padding_ = batch.inputs.padding;
  forget();
}

std::optional<std::pair<std::string, Tensor>> Denorm::extra_loss() {
  const Tensor residual = std::exchange(residual_, {});
  forget();
  if (options_.lambda == 0 || !residual.defined()) return std::nullopt;
  const Tensor scale = last_.scale(residual).squeeze(-1);  // [batch, tokens]
  const Tensor counts = (padding_ ? *padding_ : at::ones_like(ids_, at::kBool)).to(scale.device());
  if (options_.taper) {
    if (target_ == 0) return std::nullopt;
    const Tensor weight = counts.to(scale.scalar_type());
    return std::pair("scale", ((scale - target_).square() * weight).sum() / weight.sum() * options_.lambda);
  }
  // The first position and the end of a text have scales many times those of the others.
  Tensor plain = counts.logical_and(ids_.to(scale.device()) != options_.end_of_text);
  plain.select(1, 0).fill_(false);
  const Tensor weight = counts.to(scale.scalar_type()), usual = plain.to(scale.scalar_type());
  const Tensor detached = scale.detach();
  const Tensor mean = at::where(usual.sum() > 0, (detached * usual).sum() / usual.sum().clamp_min(1),
                                (detached * weight).sum() / weight.sum());
  return std::pair("scale", ((scale - mean).square() * weight).sum() / weight.sum() * options_.lambda);
}

double Denorm::recent_mean() const {
  return std::accumulate(recent_.begin(), recent_.end(), 0.0) / static_cast<double>(recent_.size());
}

bool Denorm::must_wait() const {
  const BackOff& back_off = options_.back_off;
  return back_off.on && reference_ && std::ssize(recent_) == back_off.window &&
         recent_mean() > *reference_ + back_off.above;
}

void Denorm::freeze(const Removal& removal, int64_t done) {
  const size_t p = index(removal.path);
  if (!(path_[p].live > 0))
    fail("{}: its scale was not seen before it was to go; let it go after the first step or later",
         blueprint_.label(removal.path));
  path_[p].held = path_[p].live;
  (removal.path.site.index < 0 ? changed_.back() : changed_[static_cast<size_t>(removal.path.site.index)]) =
      true;
  gone_.push_back({done, removal.path});
}

void Denorm::begin_step(int64_t step) {
  const int64_t done = step - 1;
  training_ = true;
  for (Path& path : path_) {
    path.sum.reset();
    path.count = 0;
  }
  for (Tapering& tapering : tapering_) {
    tapering.above.reset();
    tapering.below.reset();
  }
  if (options_.taper) {
    gate_ = options_.taper->gate(done);
    if (gate_ < 1 && gone_.empty()) {  // the least squares that make c h gain~ what the norm gives
      for (size_t p = 0; p < paths_.size(); ++p) {
        const Tapering& tapering = tapering_[tapering_of_[p]];
        if (!(tapering.above_mean > 0))
          fail("the norms' scales were not seen before they taper; begin after the first step or later");
        path_[p].held = tapering.below_mean / tapering.above_mean;
        gone_.push_back({options_.taper->to, paths_[p]});
      }
      for (size_t i = 0; i < tapering_.size(); ++i)
        gains_[i].value.detach().copy_(tapering_[i].gain.detach());
      if (const auto last = index_.find({}); last != index_.end()) target_ = path_[last->second].live;
    }
    return;
  }
  const Removals& removals = options_.removals;
  const auto due = [&] { return next_ < removals.size() && removals[next_].step + delay_ <= done; };
  if (!due()) return;
  const bool waited = !waits_.empty() && waits_.back().path == removals[next_].path;
  if (must_wait()) {
    const int64_t room = options_.steps - std::max<int64_t>(1, options_.steps / 10) - removals.back().step;
    if (!waited) waits_.push_back({.step = done, .path = removals[next_].path});
    if (delay_ < room) {
      ++delay_;
      ++waits_.back().steps;
      return;
    }
    waits_.back().given_up = true;
  }
  if (!recent_.empty()) reference_ = recent_mean();
  while (due()) freeze(removals[next_++], done);
}

void Denorm::end_step(StepRecord& record, Group& group) {
  training_ = false;
  residual_.reset();
  forget();
  std::vector<Tensor> sums;  // scales and their number by path, moments by norm
  const auto add = [&sums](const Tensor& sum) {
    sums.push_back(sum.defined() ? sum.cpu() : at::zeros({}, at::kDouble));
  };
  for (const Path& path : path_) {
    add(path.sum);
    sums.push_back(at::scalar_tensor(static_cast<double>(path.count), at::kDouble));
  }
  for (const Tapering& tapering : tapering_) {
    add(tapering.above);
    add(tapering.below);
  }
  if (sums.empty()) return;
  Tensor all = at::stack(sums);
  group.sum(all);
  const std::vector<double> sum = values(all);
  for (size_t p = 0; p < path_.size(); ++p) {
    if (sum[2 * p + 1] > 0)
      path_[p].live = blend(path_[p].live, sum[2 * p] / sum[2 * p + 1], options_.momentum);
  }
  for (size_t i = 0; i < tapering_.size(); ++i) {
    const size_t at = 2 * path_.size() + 2 * i;
    if (!(sum[at + 1] > 0)) continue;
    Tapering& tapering = tapering_[i];
    const double count = sum[1];  // means, so that the last micro-batch's size does not matter
    tapering.above_mean = blend(tapering.above_mean, sum[at] / count, options_.momentum);
    tapering.below_mean = blend(tapering.below_mean, sum[at + 1] / count, options_.momentum);
  }
  recent_.push_back(record.loss);
  if (std::ssize(recent_) > options_.back_off.window) recent_.pop_front();
  if (options_.taper) {
    record.terms["gate"] = gate_;
  } else {
    record.terms["norms_gone"] = static_cast<double>(gone_.size());
  }
  double worst = 1;
  for (double ratio : drifts()) {
    if (ratio > 0 && std::abs(std::log(ratio)) > std::abs(std::log(worst))) worst = ratio;
  }
  record.terms["scale_drift"] = worst;
  if (record.step % std::max<int64_t>(1, options_.steps / kHistory) == 0) {
    history_.steps.push_back(record.step);
    std::vector<double>& live = history_.live.emplace_back();
    for (const Path& path : path_) live.push_back(path.live);
  }
}

std::vector<double> Denorm::drifts() const {
  std::vector<double> ratios;
  for (const Path& path : path_) ratios.push_back(path.held ? path.live / *path.held : 0);
  return ratios;
}

bool Denorm::finished() const {
  return options_.taper ? !gone_.empty() && gate_ == 0 : next_ == options_.removals.size();
}

void Denorm::settle() {
  if (!finished()) {
    const NormPath path = options_.taper ? paths_.front() : options_.removals[next_].path;
    fail("{} is still a norm: the run ended before its turn", blueprint_.label(path));
  }
  for (size_t i = 0; i < tapering_.size(); ++i) tapering_[i].gain.detach().copy_(gains_[i].value.detach());
}

std::vector<Edit> Denorm::edits() const {
  std::vector<Edit> edits;
  for (size_t p = 0; p < paths_.size(); ++p) {
    if (path_[p].held)
      edits.push_back(FreezeNorm{blueprint_.norm_site(paths_[p]), paths_[p].reader, *path_[p].held});
  }
  return edits;
}

std::string Denorm::digest() const {
  Json json = {{"steps", options_.steps},
               {"momentum", options_.momentum},
               {"lambda", options_.lambda},
               {"end_of_text", options_.end_of_text},
               {"back_off", {options_.back_off.on, options_.back_off.above, options_.back_off.window}}};
  if (options_.taper)
    json["taper"] = {options_.taper->from, options_.taper->to};
  else
    json["removals"] = to_json(options_.removals, blueprint_)["removals"];
  return json.dump();
}

Hook::State Denorm::state() const {
  State state;
  Json waits = Json::array(), gone = Json::array();
  for (const Wait& wait : waits_)
    waits.push_back({wait.step, wait.steps, path_json(wait.path), wait.given_up});
  for (const Removal& removal : gone_) gone.push_back({removal.step, path_json(removal.path)});
  state.json = {{"next", next_},
                {"delay", delay_},
                {"waits", std::move(waits)},
                {"gone", std::move(gone)},
                {"history", history_.steps}};
  std::vector<double> live, held, history, more = {reference_.value_or(NAN), target_, gate_};
  for (const Path& path : path_) {
    live.push_back(path.live);
    held.push_back(path.held.value_or(NAN));
  }
  for (const std::vector<double>& at : history_.live) history.insert(history.end(), at.begin(), at.end());
  for (const Tapering& tapering : tapering_) {
    more.push_back(tapering.above_mean);
    more.push_back(tapering.below_mean);
  }
  const auto keep = [&state](const char* name, const std::vector<double>& numbers_of) {
    if (!numbers_of.empty()) state.tensors[name] = numbers(numbers_of);
  };
  keep("live", live);
  keep("held", held);
  keep("more", more);
  keep("history", history);
  keep("recent", {recent_.begin(), recent_.end()});
  return state;
}

void Denorm::restore(const State& state) {
  const auto kept = [&state](const char* name) {
    const auto at = state.tensors.find(name);
    return at == state.tensors.end() ? std::vector<double>{} : values(at->second);
  };
  const std::vector<double> live = kept("live"), held = kept("held"), more = kept("more"),
                            history = kept("history"), recent = kept("recent");
  if (live.size() != path_.size() || held.size() != path_.size() || more.size() != 3 + 2 * tapering_.size())
    fail("the state of the norms is that of another model; start the run again");
  next_ = state.json.at("next").get<size_t>();
  delay_ = state.json.at("delay").get<int64_t>();
  waits_.clear();
  for (const Json& wait : state.json.at("waits"))
    waits_.push_back(
        {wait[0].get<int64_t>(), wait[1].get<int64_t>(), path_from(wait[2]), wait[3].get<bool>()});
  gone_.clear();
  for (const Json& removal : state.json.at("gone"))
    gone_.push_back({removal[0].get<int64_t>(), path_from(removal[1])});
  changed_.assign(changed_.size(), options_.taper.has_value());
  for (size_t p = 0; p < path_.size(); ++p) {
    path_[p].live = live[p];
    path_[p].held = std::isnan(held[p]) ? std::nullopt : std::optional(held[p]);
    const int site = paths_[p].site.index;
    if (path_[p].held) (site < 0 ? changed_.back() : changed_[static_cast<size_t>(site)]) = true;
  }
  reference_ = std::isnan(more[0]) ? std::nullopt : std::optional(more[0]);
  target_ = more[1];
  gate_ = more[2];
  for (size_t i = 0; i < tapering_.size(); ++i) {
    tapering_[i].above_mean = more[3 + 2 * i];
    tapering_[i].below_mean = more[4 + 2 * i];
  }
  recent_.assign(recent.begin(), recent.end());
  history_ = {};
  for (const Json& step : state.json.at("history")) history_.steps.push_back(step.get<int64_t>());
  for (size_t i = 0; i < history_.steps.size(); ++i)
    history_.live.emplace_back(history.begin() + static_cast<ptrdiff_t>(i * path_.size()),
                               history.begin() + static_cast<ptrdiff_t>((i + 1) * path_.size()));
}

}  // namespace lamina::denorm
