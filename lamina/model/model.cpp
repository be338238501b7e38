#include "lamina/model/model.h"

#include "lamina/base/error.h"

namespace lamina {

Tensor Model::run(const Inputs& inputs, Tap& tap) const {
  Stream stream = begin(inputs);
  // Absent parts too: what stands between parts (a sampler) is done with the part in front of it.
  for (int i = 0; i < static_cast<int>(blueprint().parts.size()); ++i) step(stream, {i}, tap);
  return finish(stream, tap);
}

Tensor Model::run(const Inputs& inputs) const {
  Tap none;
  return run(inputs, none);
}

Unmasking::Unmasking(const Blueprint& blueprint, const Plan& plan) : unmasked_(blueprint.parts.size()) {
  check_plan(plan, blueprint);
  for (const Edit& edit : plan.edits) {
    if (const auto* unmask = std::get_if<Unmask>(&edit))
      unmasked_[static_cast<size_t>(blueprint.site(unmask->site).index)] = true;
  }
}

bool looks_left(bool causal, const Tap& tap, Site site, const Cache::Entry* cached) {
  const bool left = causal && !tap.unmasks(site);
  if (!left && cached)
    fail(
        "block {} looks right, so that what it kept of earlier tokens is wrong once another comes; run the "
        "whole text without a cache",
        site.index / 2);
  return left;
}

void check_speaks(const Blueprint& blueprint, std::string_view what) {
  if (blueprint.vocabulary == 0)
    fail("{}: is no language model ({}), and says no next tokens", what, blueprint.family);
  if (blueprint.labels > 0)
    fail("{}: is a token classifier with {} classes and says no next tokens; lamina tag runs it", what,
         blueprint.labels);
  for (const Part& part : blueprint.parts) {
    if (part.present && !part.causal)
      fail(
          "{}: block {} looks right (lamina_unmasked), so that it reads the very tokens that it would have "
          "to guess; it cannot generate, nor be measured as a language model",
          what, part.block);
  }
}

const Stored& Weights::at(const std::string& name) const {
  const Stored* stored = checkpoint_.find(name);
  if (!stored) fail("{}: {} is missing", checkpoint_.path.string(), name);
  return *stored;
}

Tensor Weights::matrix(const std::string& name) const {
  if (const auto it = options_.trained.find(name); it != options_.trained.end()) return it->second;
  const Stored& stored = at(name);
  const bool narrow = stored.dtype == DType::bf16 || stored.dtype == DType::f16;
  return load(stored, options_.keep_narrow && narrow ? scalar_type(stored.dtype) : options_.dtype);
}

Tensor Weights::vector(const std::string& name) const {
  if (const auto it = options_.trained.find(name); it != options_.trained.end()) return it->second;
  return load(at(name), options_.dtype);
}

Tensor Weights::vector_or_none(const std::string& name) const {
  return checkpoint_.find(name) ? vector(name) : Tensor();
}

Linear Weights::plain(const std::string& path) const {
  Linear linear{.weight = matrix(path + ".weight"), .bias = vector_or_none(path + ".bias")};
  if (const auto it = options_.low_rank.find(path); it != options_.low_rank.end())
    linear.low_rank = it->second;
  return linear;
}

Linear Weights::linear(const std::string& path) const {
  const Linear linear = plain(path);
  return options_.packed ? linear.packed(*options_.packed) : linear;
}

Linear Weights::linear_in_out(const std::string& path) const {
  Linear result = plain(path);
  // Turned round once: the products of one row want [out, in] in one piece. What is trained stays as it is.
  if (options_.trained.contains(path + ".weight"))
    result.in_out = true;
  else
    result.weight = result.weight.t().contiguous();
  return options_.packed ? result.packed(*options_.packed) : result;
}

}  // namespace lamina
