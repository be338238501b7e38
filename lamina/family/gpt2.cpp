#include "lamina/family/gpt2.h"

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"

namespace lamina::gpt2 {

namespace {

constexpr IntegerRange kSize{1, int64_t{1} << 32};
constexpr int64_t kMostBlocks = 4096;
constexpr std::string_view kRoot = "transformer.";

Activation activation(std::string_view name, std::string_view what) {
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  if (name == "gelu") return Activation::gelu;
  if (name == "relu") return Activation::relu;
  fail("{}: the activation {} is not known here; gelu_new, gelu and relu are", what, in_quotes(name));
}

Json tiny() {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"n_embd", 48},
          {"n_inner", 56},
          {"n_layer", 4},
          {"n_head", 6},
          {"n_positions", 64},
          {"vocab_size", 97},
          {"layer_norm_epsilon", 1e-5},
          {"activation_function", "gelu_new"},
          {"tie_word_embeddings", true},
          {"torch_dtype", "float64"}};
}

// `root`: "transformer." or nothing.
Blueprint spelled(const Json& json, std::string_view root, std::string_view what) {
  const Config config = read_config(json, what);
  const Absences absences = read_absences(json, static_cast<int>(config.blocks), what);
  const NormsRemoved removed = read_norms_removed(json, static_cast<int>(config.blocks), what);
  const Unmasked unmasked = read_unmasked(json, static_cast<int>(config.blocks), what);
  if (removed.last && config.tied && config.labels == 0)
    fail("{}: the last norm was folded into the head, but \"tie_word_embeddings\" is true", what);
  const std::string stem(root);
  Blueprint b;
  b.family = "gpt2";
  b.stack = stem + "h";
  b.blocks = static_cast<int>(config.blocks);
  b.width = config.width;
  b.vocabulary = config.vocabulary;
  b.labels = config.labels;
  b.context = config.positions;
  b.embedding = stem + "wte.weight";
  if (b.labels > 0) b.own_head = "classifier.weight";
  b.head = config.tied && b.labels == 0 ? b.embedding : b.own_head;
  if (!removed.last) b.final_norm = stem + "ln_f";
  b.centred_norms = true;
  b.epsilon_key = "layer_norm_epsilon";
  b.depth_key = "n_layer";

  const Axis residual{"residual", config.width}, vocabulary{"vocabulary", config.vocabulary};
  b.slots.push_back({.name = b.embedding, .axes = {vocabulary, residual}});
  b.slots.push_back({.name = stem + "wpe.weight", .axes = {{"positions", config.positions}, residual}});
  for (int block = 0; block < b.blocks; ++block) {
    const std::string prefix = fmt::format("{}.{}.", b.stack, block);
    const auto part = [&](Kind kind, std::string_view name) {
      b.parts.push_back({.path = prefix + std::string(name),
                         .kind = kind,
                         .block = block,
                         .present = !absences.contains({block, kind}),
                         .causal = kind != Kind::attention || !unmasked.contains(block)});
      return static_cast<int>(b.parts.size()) - 1;
    };
    // The bias runs along the last axis: the outputs of a map, the width of a norm.
    const auto weight = [&](int site, std::string_view name, const std::vector<Axis>& axes,
                            bool silences = false) {
      if (!b.parts[static_cast<size_t>(site)].present) return;
      const std::string path = prefix + std::string(name);
      b.slots.push_back({.name = path + ".weight", .axes = axes, .part = site, .silences = silences});
      b.slots.push_back({.name = path + ".bias", .axes = {axes.back()}, .part = site, .silences = silences});
    };
    const Axis heads{prefix + "heads", config.heads, config.head_dim()},
        fused{prefix + "heads", config.heads, config.head_dim(), 3},
        neurons{prefix + "neurons", config.neurons};

    const int attention = part(Kind::attention, "attn");
    if (!removed.parts.contains({block, Kind::attention})) {
      weight(attention, "ln_1", {residual});
      const std::string qkv = prefix + "attn.c_attn";
      b.parts.back().norm = FrontNorm{.path = prefix + "ln_1",
                                      .readings = {{Reader::qk, qkv, 0, 2 * config.width},
                                                   {Reader::v, qkv, 2 * config.width, config.width}}};
    }
    weight(attention, "attn.c_attn", {residual, fused});
    weight(attention, "attn.c_proj", {heads, residual}, true);
    b.parts.back().kv_values = b.parts.back().present ? 2 * config.width : 0;
    b.parts.back().score_width = config.width;
    if (b.parts.back().present) {
      for (const char* name : {"attn.bias", "attn.masked_bias"}) b.unread.push_back(prefix + name);
    }

    const int mlp = part(Kind::mlp, "mlp");
    const bool normed = !removed.parts.contains({block, Kind::mlp});
    if (normed) {
      weight(mlp, "ln_2", {residual});
      b.parts.back().norm = FrontNorm{.path = prefix + "ln_2",
                                      .readings = {{Reader::mlp, prefix + "mlp.c_fc", 0, config.neurons}}};
    }
    weight(mlp, "mlp.c_fc", {residual, neurons});
    weight(mlp, "mlp.c_proj", {neurons, residual}, true);
    b.parts.back().neurons = Neurons{.count = config.neurons,
                                     .up = prefix + "mlp.c_fc",
                                     .down = prefix + "mlp.c_proj",
                                     .norm = normed ? prefix + "ln_2" : ""};
  }
  if (!removed.last) {
    b.slots.push_back({.name = b.final_norm + ".weight", .axes = {residual}});
    b.slots.push_back({.name = b.final_norm + ".bias", .axes = {residual}});
  }
  if (b.labels > 0) {
    const Axis labels{"labels", b.labels};
    b.slots.push_back({.name = b.head, .axes = {labels, residual}});
    b.slots.push_back({.name = "classifier.bias", .axes = {labels}});
  } else if (config.tied) {
    b.optional_slots.push_back(b.own_head);
  } else {
    b.slots.push_back({.name = b.head, .axes = {vocabulary, residual}});
    // What is left of the last norm's bias.
    if (removed.last) b.slots.push_back({.name = "lm_head.bias", .axes = {vocabulary}});
  }
  return b;
}

Blueprint blueprint(const Json& json, std::string_view what) {
  return spelled(json, kRoot, what);
}

// A file holds every name with the root or none: one that mixes them is told what it lacks.
Blueprint blueprint_of(const Checkpoint& checkpoint) {
  const bool rooted = std::ranges::any_of(
      checkpoint.tensors, [](const Stored& tensor) { return tensor.name.starts_with(kRoot); });
  return spelled(checkpoint.config, rooted ? kRoot : "", checkpoint.what());
}

}  // namespace

Config read_config(const Json& json, std::string_view what) {
  if (json_has(json, "quantization_config"))
    fail("{}: the weights are quantized (quantization_config); open the original model", what);
  for (const char* key :
       {"scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"}) {
    if (json_bool_or(json, key, false, what)) fail("{}: \"{}\" is true, which is not known here", what, key);
  }
  Config c;
  c.width = json_integer(json, "n_embd", what, kSize);
  c.blocks = json_integer(json, "n_layer", what, {1, kMostBlocks});
  c.heads = json_integer(json, "n_head", what, kSize);
  c.neurons = json_integer_or(json, "n_inner", 4 * c.width, what, kSize);
  c.vocabulary = json_integer(json, "vocab_size", what, kSize);
  // The oldest files have n_ctx beside it, with the same number.
  c.positions =
      json_integer_or(json, "n_positions", json_integer_or(json, "n_ctx", 1024, what, kSize), what, kSize);
  if (c.width % c.heads != 0) fail("{}: {} heads do not divide a width of {}", what, c.heads, c.width);
  c.norm_epsilon = json_number_or(json, "layer_norm_epsilon", 1e-5, what);
  if (!(c.norm_epsilon > 0) || !std::isfinite(c.norm_epsilon))
    fail("{}: \"layer_norm_epsilon\" is {} where a positive number was expected", what, c.norm_epsilon);
  c.activation = activation(json_string_or(json, "activation_function", "gelu_new", what), what);
  c.scaled = json_bool_or(json, "scale_attn_weights", true, what);
  c.tied = json_bool_or(json, "tie_word_embeddings", true, what);
  c.labels = labels_in(json, what);
  return c;
}

Architecture declaration() {
  return {.name = "GPT2LMHeadModel",
          .model_type = "gpt2",
          .blueprint = blueprint,
          .tiny = tiny,
          .dialects = {},
          .blueprint_of = blueprint_of,
          .classifier = "GPT2ForTokenClassification"};
}

}  // namespace lamina::gpt2
