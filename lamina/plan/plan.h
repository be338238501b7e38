// Edits as values, a plan as the list of them in the order they were decided, and `apply` as a pure function.
// Cutting removes a part's tensors and declares the absence in the config; silencing keeps every shape and
// zeroes what the part writes with. Both give the function that skipping the part in a pass gives. A clamp
// gives the function that the tap `Clamping` gives; replacements act first, whatever the order in the plan.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/blueprint/blueprint.h"
#include "lamina/checkpoint/checkpoint.h"

namespace lamina {

struct Cut {
  std::string site;             // "model.layers.27.self_attn"
  std::optional<double> score;  // why: the method's score at the step at which it went
};

struct Silence {
  std::string site;
};

// What a clamp makes of a neuron's value v at its place; c is the clamp's value.
//   set: c.  add: v + c.  scale: c v.  max: the larger of v and c (c < 0: the smaller), so at least as strong
//   as c.  if_active: c where v is on c's side of zero (c = 0: where v > 0), else v.
enum class ClampMode { set, add, scale, max, if_active };
std::string_view mode_name(ClampMode mode);  // "set", "add", "scale", "max", "if-active"
std::optional<ClampMode> mode_from_name(std::string_view name);
std::optional<NeuronPlace> place_from_name(std::string_view name);
std::optional<Reader> reader_from_name(std::string_view name);

// One neuron of a feed-forward, held at every position.
struct Clamp {
  std::string site;  // "model.layers.12.mlp"
  int64_t neuron = 0;
  NeuronPlace place = NeuronPlace::post;
  ClampMode mode = ClampMode::set;
  double value = 0;
  bool operator==(const Clamp&) const = default;
};

// Which vector of a neuron: the row of the gate, the row of up, or the column of down.
enum class NeuronVector { gate, up, down };
std::string_view vector_name(NeuronVector vector);  // "gate", "up", "down"
std::optional<NeuronVector> vector_from_name(std::string_view name);

// A neuron reads (gate, up) or writes (down) along another vector.
struct Replace {
  std::string site;
  int64_t neuron = 0;
  NeuronVector vector = NeuronVector::up;
  std::vector<float> values = {};  // [width]
};

// A reader of a norm gets a division by a constant instead: (x - mean) / scale * gain + bias (FakeLN, arXiv
// 2507.02559). Where all readers of a norm are frozen, apply folds it into the maps that read it, in float64,
// and no norm is left there; the folded head of a centred norm has a bias, and is no longer tied to the
// embedding.
struct FreezeNorm {
  std::string site;  // "model.layers.7.mlp"; the last norm's own path, "model.norm"
  Reader reader = Reader::mlp;
  double scale = 1;  // sqrt(mean(x^2) + epsilon) as it was measured
  bool operator==(const FreezeNorm&) const = default;
};

// An attention looks at every token that is no padding, and no longer to its left alone (arXiv 2401.14556).
// No weight changes; the config names the block (`lamina_unmasked`).
struct Unmask {
  std::string site;  // "model.layers.16.self_attn"
  bool operator==(const Unmask&) const = default;
};

// The self-attention of a U-Net's part sees windows and averages of cells (A-SDM-style, after arXiv
// 2312.15516). No weight changes, but that the mix `gate` brings one number a head, zero: the config names
// the part (`lamina_regional`). The tap is asdm::Regionally.
struct Regional {
  std::string site;  // "down_blocks.0.attentions.0"
  Windows windows = {};
  bool operator==(const Regional&) const = default;
};

// A convolution of a U-Net's ResNet inherits the kernels of others, which other edits of the plan may take
// out, and mixes them (CLME-CondConv, A-SDM-style): tensors CONV.experts.N and CONV.router, the latter zero,
// and `lamina_experts` in the config. With the gate tanh_residual the function is what it was before the
// edit, to the bit.
struct Inherit {
  std::string site;                      // "down_blocks.0.resnets.0"
  std::string conv;                      // "conv2"
  std::vector<std::string> donors = {};  // "down_blocks.0.resnets.1.conv2"
  Experts::Gate gate = Experts::Gate::tanh_residual;
  Experts::Reads reads = Experts::Reads::time;
  bool operator==(const Inherit&) const = default;
};

// The kernels of such a convolution mixed once, by fixed gates (their means, as they were measured): a plain
// convolution is left, which stock loaders know.
struct Blend {
  std::string site;
  std::string conv;
  std::vector<double> gates = {};  // as Experts has them
  bool operator==(const Blend&) const = default;
};

using Edit = std::variant<Cut, Silence, Clamp, Replace, FreezeNorm, Unmask, Regional, Inherit, Blend>;

struct Plan {
  std::vector<Edit> edits;
  Json provenance = Json::object();  // method, options, hashes, version: everything but the edits
};

// {"lamina_plan": 1, "edits": [{"edit": "cut", "site": ..., "score": ...}, ...], ...provenance}
Json to_json(const Plan& plan);
// Throws Error on unknown edits, unknown keys of an edit, or an edit without a site.
Plan plan_from_json(const Json& document, std::string_view what);

// "3,7-9" (whole blocks), "attention:12-15,mlp:20", of parts with short names "d0.a1,mid,u3", or all of it;
// ranges are inclusive. Throws Error for reversed, empty, out-of-range and repeated entries.
Plan plan_from_list(std::string_view list, const Blueprint& blueprint);

// Throws Error when an edit names a site that the model does not have or that is gone, a neuron, place or
// vector that the part lacks, or a number that is none; when a part is cut or silenced and edited besides, or
// the same thing is edited twice.
void check_plan(const Plan& plan, const Blueprint& blueprint);

// Gives a config that carries clamps, windows or experts, or speaks of norms or masks that are gone, names
// that stock loaders refuse: they would run another function. Another gets the stock ones.
void name_for_loaders(Json& config, const Blueprint& blueprint);
// Clamps that apply cannot write into the weights: "max" and "if-active" always, "set" and "add" where the
// architecture's feed-forward cannot have biases, and what acts on a value that a clamp of `held` (those that
// the config carries already) has changed before. They go into the config (`lamina_clamps`), model type and
// architecture become names that stock loaders refuse ("lamina_llama"), and lamina's own runtime honours
// them.
std::vector<Clamp> beyond_weights(const Plan& plan, const Blueprint& blueprint,
                                  const std::vector<Clamp>& held = {});
// The clamps that a config carries, in the order in which they act; empty for a stock one. One neuron may
// stand there more than once. Throws Error when the list is malformed or does not fit the model.
std::vector<Clamp> clamps_of(const Json& config, const Blueprint& blueprint, std::string_view what);
// "llama" for "lamina_llama", "LlamaForCausalLM" for "LaminaLlamaForCausalLM"; other names as they are.
std::string stock_name(std::string_view name);

// The sites that the plan's cuts and silences take out of the function, in its order.
std::vector<Site> removed_sites(const Plan& plan, const Blueprint& blueprint);

Checkpoint apply(const Checkpoint& checkpoint, const Blueprint& blueprint, const Plan& plan);
// The same plan with every cut turned into a silence; other edits stay.
Plan silenced(const Plan& plan);

}  // namespace lamina
