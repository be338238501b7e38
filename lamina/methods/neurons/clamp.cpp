#include "lamina/methods/neurons/clamp.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lamina/base/error.h"
#include "lamina/eval/generate.h"
#include "lamina/model/clamping.h"

namespace lamina::neurons {

namespace {

Tensor batch_of(const std::vector<int32_t>& ids) {
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0);
}

// [tokens, vocabulary]
Tensor log_probabilities(const Model& model, const std::vector<int32_t>& ids, Tap& tap) {
  if (ids.empty()) fail("the prompt has no token");
  const Tensor logits = model.run({.ids = batch_of(ids)}, tap).squeeze(0);
  return at::log_softmax(logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat), 1);
}

std::vector<int32_t> continuation(const Model& model, const ClampInput& input, Tap& tap,
                                  const std::function<bool(int32_t)>& on_token) {
  if (input.tokens == 0) return {};
  return generate(model, input.prompt, {.tokens = input.tokens, .stop = input.stop, .on_token = on_token},
                  tap)
      .ids;
}

Answer answer_of(const Tensor& log_p, const ClampInput& input) {
  const Tensor last = log_p.select(0, log_p.size(0) - 1).to(at::kDouble).contiguous();
  Answer answer;
  const auto [values, tokens] = last.topk(std::min(input.next, last.numel()));
  for (int64_t i = 0; i < values.numel(); ++i)
    answer.next.push_back(
        {static_cast<int32_t>(tokens[i].item<int64_t>()), std::exp(values[i].item<double>())});
  double p = 0;
  for (int32_t token : input.concept_tokens) p += std::exp(last.const_data_ptr<double>()[token]);
  answer.concept_log_p = std::log(p);
  return answer;
}

// Reads one neuron at one place.
class Reader : public Tap {
 public:
  Reader(Site site, int64_t neuron, NeuronPlace place) : site_(site), neuron_(neuron), place_(place) {}
  bool reads_neurons(Site site) const override { return site == site_; }
  Tensor neurons(Site, NeuronPlace place, const Tensor& values) override {
    if (place == place_) seen_.push_back(values.select(-1, neuron_).flatten().to(at::kDouble));
    return values;
  }
  Tensor seen() const { return seen_.empty() ? Tensor() : at::cat(seen_); }

 private:
  Site site_;
  int64_t neuron_;
  NeuronPlace place_;
  std::vector<Tensor> seen_;
};

}  // namespace

void check_tokens(const Model& model, std::span<const int32_t> ids) {
  for (int32_t id : ids) {
    if (id < 0 || id >= model.blueprint().vocabulary)
      fail("token {} of the tokenizer is none of the model's {}; is it the tokenizer of another model?", id,
           model.blueprint().vocabulary);
  }
}

Tensor divergence_by_position(const Tensor& log_p, const Tensor& log_q) {
  return (log_p.exp() * (log_p - log_q)).sum(1, false, at::kDouble).clamp_min(0).contiguous();
}

Unclamped unclamped(const Model& model, const ClampInput& input, const OnToken& on_token) {
  const InferenceMode evaluating;
  check_tokens(model, input.prompt);
  check_tokens(model, input.concept_tokens);
  Tap none;
  Unclamped result{.answer = {}, .log_p = log_probabilities(model, input.prompt, none)};
  result.answer = answer_of(result.log_p, input);
  result.answer.ids = continuation(model, input, none, on_token);
  return result;
}

Answer clamped_answer(const Model& model, const std::vector<Clamp>& clamps, const ClampInput& input,
                      const Unclamped& reference, const OnToken& on_token) {
  const InferenceMode evaluating;
  Clamping tap(model.blueprint(), clamps);
  const Tensor log_p = log_probabilities(model, input.prompt, tap);
  Answer answer = answer_of(log_p, input);
  const Tensor kl = divergence_by_position(reference.log_p, log_p);
  answer.kl = kl.const_data_ptr<double>()[kl.numel() - 1];
  answer.mean_kl = kl.mean().item<double>();
  answer.ids = continuation(model, input, tap, on_token);
  return answer;
}

NeuronStatistics neuron_statistics(const Model& model, Site site, int64_t neuron, NeuronPlace place,
                                   const std::vector<std::vector<int32_t>>& samples) {
  const InferenceMode evaluating;
  // A clamp that changes nothing: the plan's own checks of part, neuron and place.
  check_plan({.edits = {Clamp{.site = model.blueprint().part(site).path,
                              .neuron = neuron,
                              .place = place,
                              .mode = ClampMode::add}}},
             model.blueprint());
  Reader reader(site, neuron, place);
  for (const std::vector<int32_t>& sample : samples) {
    check_tokens(model, sample);
    // Nothing after the part matters.
    Stream stream = model.begin({.ids = batch_of(sample)});
    for (Site before : model.blueprint().present()) {
      if (before > site) break;
      model.step(stream, before, reader);
    }
  }
  const Tensor values = reader.seen();
  if (!values.defined())
    fail("{} was not reached; is it cut from this model?", model.blueprint().part(site).path);
  return {.mean = values.mean().item<double>(),
          .deviation = values.std(false).item<double>(),
          .smallest = values.min().item<double>(),
          .largest = values.max().item<double>(),
          .positions = values.numel()};
}

}  // namespace lamina::neurons
