#include "lamina/family/llama.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"
#include "lamina/plan/plan.h"

namespace lamina::llama {

namespace {

constexpr IntegerRange kSize{1, int64_t{1} << 32};

double positive(const Json& config, std::string_view key, double otherwise, std::string_view what) {
  const double value = json_number_or(config, key, otherwise, what);
  if (!(value > 0) || !std::isfinite(value))
    fail("{}: \"{}\" is {} where a positive number was expected", what, key, value);
  return value;
}

// Old files: rope_theta and rope_scaling at the top. New ones: both inside rope_parameters.
void read_rope(const Json& json, std::string_view what, Config& config) {
  const Json* rope = json_has(json, "rope_parameters") ? &json.at("rope_parameters")
                     : json_has(json, "rope_scaling")  ? &json.at("rope_scaling")
                                                       : nullptr;
  config.rope_theta = positive(json, "rope_theta", 10000, what);
  if (!rope) return;
  if (!rope->is_object())
    fail("{}: the rope settings are {} where an object was expected", what, in_quotes(rope->dump(), 40));
  config.rope_theta = positive(*rope, "rope_theta", config.rope_theta, what);
  const std::string type =
      json_string_or(*rope, "rope_type", json_string_or(*rope, "type", "default", what), what);
  if (type == "default") return;
  RopeScaling scaling;
  scaling.factor = positive(*rope, "factor", 1, what);
  if (type == "llama3") {
    scaling.kind = RopeScaling::Kind::llama3;
    scaling.low_frequency = positive(*rope, "low_freq_factor", 1, what);
    scaling.high_frequency = positive(*rope, "high_freq_factor", 4, what);
    scaling.original_context = json_integer(*rope, "original_max_position_embeddings", what, kSize);
    if (scaling.high_frequency <= scaling.low_frequency)
      fail("{}: high_freq_factor must be above low_freq_factor", what);
  } else if (type != "linear") {
    fail("{}: the rope type {} is not known here; default, linear and llama3 are", what, in_quotes(type));
  }
  config.rope_scaling = scaling;
}

// `layer_types` where the file has it; else Mistral's window for all, Qwen2's only when it is switched on.
void read_windows(const Json& json, std::string_view type, std::string_view what, Config& config) {
  const bool used =
      type == "mistral" || (type == "qwen2" && json_bool_or(json, "use_sliding_window", false, what));
  // null is no window; a file that does not say means the width that transformers then takes.
  const int64_t otherwise = json.contains("sliding_window") ? 0 : 4096;
  const int64_t window =
      used ? json_integer_or(json, "sliding_window", otherwise, what, {0, int64_t{1} << 40}) : 0;
  config.windows.assign(static_cast<size_t>(config.blocks), window);
  if (json_has(json, "layer_types")) {
    const Json& types = json.at("layer_types");
    if (!types.is_array() || static_cast<int64_t>(types.size()) != config.blocks) {
      fail("{}: layer_types does not have one entry for each of the {} blocks", what, config.blocks);
    }
    for (size_t block = 0; block < types.size(); ++block) {
      if (types[block] != "full_attention" && types[block] != "sliding_attention") {
        const std::string type_here =
            types[block].is_string() ? types[block].get<std::string>() : types[block].dump();
        fail("{}: layer_types holds {}, which is not known here", what, in_quotes(type_here, 40));
      }
      if (types[block] == "full_attention") config.windows[block] = 0;
    }
  } else if (type == "qwen2" && window > 0) {
    const int64_t full = json_integer_or(json, "max_window_layers", 28, what, {0, 100000});
    for (int64_t block = 0; block < std::min(full, config.blocks); ++block)
      config.windows[static_cast<size_t>(block)] = 0;
  }
}

Json tiny_config(std::string_view architecture, std::string_view type) {
  return {{"architectures", {architecture}},
          {"model_type", type},
          {"hidden_size", 48},
          {"intermediate_size", 56},
          {"num_hidden_layers", 4},
          {"num_attention_heads", 6},
          {"num_key_value_heads", 3},
          {"head_dim", 8},
          {"vocab_size", 97},
          {"max_position_embeddings", 128},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", false},
          {"torch_dtype", "float64"}};
}

Json tiny_llama() {
  Json config = tiny_config("LlamaForCausalLM", "llama");
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 32}};
  config["attention_bias"] = true;
  config["mlp_bias"] = true;
  return config;
}

Json tiny_mistral() {
  Json config = tiny_config("MistralForCausalLM", "mistral");
  config["sliding_window"] = 5;
  return config;
}

Json tiny_qwen2() {
  Json config = tiny_config("Qwen2ForCausalLM", "qwen2");
  config.erase("head_dim");
  config["hidden_size"] = 48;
  config["tie_word_embeddings"] = true;
  config["use_sliding_window"] = true;
  config["sliding_window"] = 6;
  config["max_window_layers"] = 2;
  return config;
}

Blueprint blueprint(const Json& json, std::string_view what) {
  const Config config = read_config(json, what);
  const Absences absences = read_absences(json, static_cast<int>(config.blocks), what);
  const NormsRemoved removed = read_norms_removed(json, static_cast<int>(config.blocks), what);
  const Unmasked unmasked = read_unmasked(json, static_cast<int>(config.blocks), what);
  if (removed.last && config.tied && config.labels == 0)
    fail("{}: the last norm was folded into the head, but \"tie_word_embeddings\" is true", what);
  Blueprint b;
  b.family = "llama";
  b.stack = "model.layers";
  b.blocks = static_cast<int>(config.blocks);
  b.width = config.width;
  b.vocabulary = config.vocabulary;
  b.labels = config.labels;
  b.context = config.context;
  b.per_layer_arrays = {"layer_types"};
  b.front_counts = {"max_window_layers"};
  b.embedding = "model.embed_tokens.weight";
  if (b.labels > 0) b.own_head = "score.weight";
  b.head = config.tied && b.labels == 0 ? b.embedding : b.own_head;
  if (!removed.last) b.final_norm = "model.norm";
  // Of the three, transformers gives only Llama the key.
  const std::string mlp_bias_key =
      stock_name(json_string_or(json, "model_type", "llama", what)) == "llama" ? "mlp_bias" : "";

  const Axis residual{"residual", config.width}, vocabulary{"vocabulary", config.vocabulary};
  b.slots.push_back({.name = b.embedding, .axes = {vocabulary, residual}});
  const int64_t kv = config.groups * config.head_dim,
                per_group = config.heads / config.groups * config.head_dim;
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
    const auto weight = [&](int site, std::string_view name, std::vector<Axis> axes, bool bias,
                            bool silences = false) {
      if (!b.parts[static_cast<size_t>(site)].present) return;
      const Axis rows = axes.front();
      b.slots.push_back({.name = prefix + std::string(name) + ".weight",
                         .axes = std::move(axes),
                         .part = site,
                         .silences = silences});
      if (bias)
        b.slots.push_back({.name = prefix + std::string(name) + ".bias",
                           .axes = {rows},
                           .part = site,
                           .silences = silences});
    };
    const Axis queries{fmt::format("{}groups", prefix), config.groups, per_group},
        keys{fmt::format("{}groups", prefix), config.groups, config.head_dim};
    const Axis neurons{fmt::format("{}neurons", prefix), config.neurons};

    const int attention = part(Kind::attention, "self_attn");
    if (!removed.parts.contains({block, Kind::attention})) {
      weight(attention, "input_layernorm", {residual}, false);
      b.parts.back().norm =
          FrontNorm{.path = prefix + "input_layernorm",
                    .readings = {{Reader::qk, prefix + "self_attn.q_proj", 0, queries.size()},
                                 {Reader::qk, prefix + "self_attn.k_proj", 0, keys.size()},
                                 {Reader::v, prefix + "self_attn.v_proj", 0, keys.size()}}};
    }
    weight(attention, "self_attn.q_proj", {queries, residual}, config.qkv_bias);
    weight(attention, "self_attn.k_proj", {keys, residual}, config.qkv_bias);
    weight(attention, "self_attn.v_proj", {keys, residual}, config.qkv_bias);
    weight(attention, "self_attn.o_proj", {residual, queries}, config.o_bias, true);
    b.parts.back().kv_values = b.parts.back().present ? 2 * kv : 0;
    b.parts.back().score_width = config.heads * config.head_dim;

    const int mlp = part(Kind::mlp, "mlp");
    const bool normed = !removed.parts.contains({block, Kind::mlp});
    if (normed) {
      weight(mlp, "post_attention_layernorm", {residual}, false);
      b.parts.back().norm = FrontNorm{.path = prefix + "post_attention_layernorm",
                                      .readings = {{Reader::mlp, prefix + "mlp.gate_proj", 0, neurons.size()},
                                                   {Reader::mlp, prefix + "mlp.up_proj", 0, neurons.size()}}};
    }
    weight(mlp, "mlp.gate_proj", {neurons, residual}, config.mlp_bias);
    weight(mlp, "mlp.up_proj", {neurons, residual}, config.mlp_bias);
    weight(mlp, "mlp.down_proj", {residual, neurons}, config.mlp_bias, true);
    b.parts.back().neurons = Neurons{.count = config.neurons,
                                     .gate = prefix + "mlp.gate_proj",
                                     .up = prefix + "mlp.up_proj",
                                     .down = prefix + "mlp.down_proj",
                                     .norm = normed ? prefix + "post_attention_layernorm" : "",
                                     .bias_key = mlp_bias_key};
  }
  if (!removed.last) b.slots.push_back({.name = "model.norm.weight", .axes = {residual}});
  if (b.labels > 0) {
    const Axis labels{"labels", b.labels};
    b.slots.push_back({.name = b.head, .axes = {labels, residual}});
    b.slots.push_back({.name = "score.bias", .axes = {labels}});
  } else if (config.tied) {
    b.optional_slots.push_back(b.own_head);
  } else {
    b.slots.push_back({.name = b.head, .axes = {vocabulary, residual}});
  }
  return b;
}

}  // namespace

Config read_config(const Json& json, std::string_view what) {
  const std::string type = stock_name(json_string_or(json, "model_type", "llama", what));
  if (json_has(json, "quantization_config"))
    fail("{}: the weights are quantized (quantization_config); open the original model or a GGUF", what);
  const std::string act = json_string_or(json, "hidden_act", "silu", what);
  if (act != "silu") fail("{}: the activation {} is not known here; silu is", what, in_quotes(act));
  Config c;
  c.width = json_integer(json, "hidden_size", what, kSize);
  c.blocks = json_integer(json, "num_hidden_layers", what, {1, kMostBlocks});
  c.heads = json_integer(json, "num_attention_heads", what, {1, 1 << 20});
  c.groups = json_integer_or(json, "num_key_value_heads",
                             type == "mistral" ? 8
                             : type == "qwen2" ? 32
                                               : c.heads,
                             what, {1, 1 << 20});
  if (c.heads % c.groups != 0)
    fail("{}: {} heads cannot share {} key-value heads evenly", what, c.heads, c.groups);
  if (!json_has(json, "head_dim") && c.width % c.heads != 0)
    fail("{}: {} heads do not divide a width of {}, and head_dim is missing", what, c.heads, c.width);
  c.head_dim = json_integer_or(json, "head_dim", c.width / c.heads, what, {1, 1 << 20});
  if (c.head_dim % 2 != 0) fail("{}: a head of {} numbers cannot be rotated in pairs", what, c.head_dim);
  c.neurons = json_integer(json, "intermediate_size", what, kSize);
  c.vocabulary = json_integer(json, "vocab_size", what, kSize);
  c.context = json_integer_or(json, "max_position_embeddings", 2048, what, kSize);
  c.norm_epsilon = positive(json, "rms_norm_eps", 1e-6, what);
  c.tied = json_bool_or(json, "tie_word_embeddings", false, what);
  c.labels = labels_in(json, what);
  const bool bias = json_bool_or(json, "attention_bias", false, what);
  c.qkv_bias = type == "qwen2" || bias;
  c.o_bias = type == "llama" && bias;
  c.mlp_bias = json_bool_or(json, "mlp_bias", false, what);
  read_rope(json, what, c);
  read_windows(json, type, what, c);
  return c;
}

std::vector<double> rope_divisors(const Config& config) {
  const auto count = static_cast<size_t>(config.head_dim / 2);
  if (!config.rope_scaling) return std::vector<double>(count, 1.0);
  const RopeScaling& s = *config.rope_scaling;
  if (s.kind == RopeScaling::Kind::linear) return std::vector<double>(count, s.factor);
  std::vector<double> divisors;
  for (size_t i = 0; i < count; ++i) {
    const double exponent = 2 * static_cast<double>(i) / static_cast<double>(config.head_dim);
    const double wavelength = 2 * std::numbers::pi * std::pow(config.rope_theta, exponent);
    const double waves = static_cast<double>(s.original_context) / wavelength;
    const double blend =
        std::clamp((waves - s.low_frequency) / (s.high_frequency - s.low_frequency), 0.0, 1.0);
    divisors.push_back(1 / ((1 - blend) / s.factor + blend));
  }
  return divisors;
}

Architecture llama_declaration() {
  return {.name = "LlamaForCausalLM",
          .model_type = "llama",
          .blueprint = blueprint,
          .tiny = tiny_llama,
          .dialects = gguf_dialects(),
          .classifier = "LlamaForTokenClassification"};
}
Architecture mistral_declaration() {
  return {.name = "MistralForCausalLM",
          .model_type = "mistral",
          .blueprint = blueprint,
          .tiny = tiny_mistral,
          .dialects = {},
          .classifier = "MistralForTokenClassification"};
}
Architecture qwen2_declaration() {
  return {.name = "Qwen2ForCausalLM",
          .model_type = "qwen2",
          .blueprint = blueprint,
          .tiny = tiny_qwen2,
          .dialects = {},
          .classifier = "Qwen2ForTokenClassification"};
}

}  // namespace lamina::llama
