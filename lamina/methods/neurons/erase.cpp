#include "lamina/methods/neurons/erase.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/methods/neurons/clamp.h"
#include "lamina/methods/neurons/map.h"

namespace lamina::neurons {

namespace {

// Summed probability of the concept's tokens when the head reads these residuals, [count].
Tensor concept_probability(const Model& model, const Tensor& residuals, const Tensor& tokens) {
  Tap none;
  Stream stream;
  stream.x = residuals.unsqueeze(1);
  const Tensor normed = model.read_out(stream, none).squeeze(1);
  return at::softmax(model.head()(normed), 1).index_select(1, tokens).sum(1);
}

// The residual of the last token after the last block, [width].
Tensor last_residual(const Model& model, const std::vector<int32_t>& prompt) {
  Tap none;
  Stream stream = model.begin(
      {.ids = at::tensor(std::vector<int64_t>(prompt.begin(), prompt.end()), at::kLong).unsqueeze(0)});
  for (Site site : model.blueprint().present()) model.step(stream, site, none);
  return stream.x.select(0, 0).select(0, stream.x.size(1) - 1);
}

}  // namespace

Erasure erase(const Model& model, const Checkpoint& checkpoint, const std::vector<int32_t>& prompt,
              const std::vector<int32_t>& concept_tokens, const EraseOptions& options, const Watch& watch) {
  const InferenceMode evaluating;
  if (prompt.empty() || concept_tokens.empty()) fail("erasing needs a prompt and a concept");
  check_tokens(model, prompt);
  check_tokens(model, concept_tokens);
  const Tensor tokens =
      at::tensor(std::vector<int64_t>(concept_tokens.begin(), concept_tokens.end()), at::kLong);
  Erasure result;

  // 1, 2: a direction that makes the head say the concept, refined by keeping the best of random
  // perturbations.
  Tensor direction = last_residual(model, prompt);
  double p = concept_probability(model, direction.unsqueeze(0), tokens).item<double>();
  result.p_start = p;
  for (; result.rounds < options.rounds && p < options.enough; ++result.rounds) {
    if (watch.stop.stop_requested()) throw Stopped{};
    watch.report({"refine", static_cast<double>(result.rounds), static_cast<double>(options.rounds),
                  fmt::format("p {:.3g}", p)});
    const Tensor noise = random_normal({options.tries, direction.size(0)},
                                       static_cast<uint64_t>(options.seed + (result.rounds << 20)))
                             .to(direction.dtype());
    const Tensor tried = direction + noise / noise.norm(2, {1}, true) * direction.norm() * options.noise;
    const Tensor scores = concept_probability(model, tried, tokens);
    const int64_t best = scores.argmax().item<int64_t>();
    if (scores[best].item<double>() > p) {
      p = scores[best].item<double>();
      direction = tried[best].clone();
    }
  }
  result.p_end = p;
  const Tensor unit = (direction / direction.norm()).to(at::kFloat).contiguous();
  result.direction.assign(unit.const_data_ptr<float>(), unit.const_data_ptr<float>() + unit.numel());

  // 3: the rows that point along it.
  const Source source{checkpoint, model.blueprint()};
  for (Site site : model.blueprint().with_neurons()) {
    if (watch.stop.stop_requested()) throw Stopped{};
    for (NeuronVector vector : {NeuronVector::gate, NeuronVector::up}) {
      if (vector == NeuronVector::gate && model.blueprint().part(site).neurons->gate.empty()) continue;
      const Tensor rows = neuron_vectors(source, site, vector);
      const Tensor norms = rows.norm(2, {1});
      const Tensor cosines = at::mv(rows, unit) / norms.clamp_min(1e-30);
      const auto [values, indices] = cosines.topk(std::min(options.edits, cosines.numel()));
      for (int64_t i = 0; i < values.numel(); ++i) {
        const int64_t neuron = indices[i].item<int64_t>();
        result.rows.push_back({.site = site,
                               .block = model.blueprint().part(site).block,
                               .neuron = neuron,
                               .vector = vector,
                               .cosine = values[i].item<double>(),
                               .norm = norms[neuron].item<double>()});
      }
    }
  }
  std::ranges::stable_sort(result.rows, std::greater{}, &ErasedRow::cosine);
  std::erase_if(result.rows, [&](const ErasedRow& row) { return row.cosine < options.least_cosine; });
  if (std::ssize(result.rows) > options.edits) result.rows.resize(static_cast<size_t>(options.edits));
  if (result.rows.empty())
    fail("no row of gate or up has a cosine of {} or more with the concept's direction",
         options.least_cosine);

  // 4: turned round, with the length they had.
  for (const ErasedRow& row : result.rows) {
    Replace replace{
        .site = model.blueprint().part(row.site).path, .neuron = row.neuron, .vector = row.vector};
    for (float value : result.direction) replace.values.push_back(static_cast<float>(-row.norm) * value);
    result.plan.edits.push_back(std::move(replace));
  }
  return result;
}

}  // namespace lamina::neurons
