#include "lamina/family/clip.h"

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"
#include "lamina/plan/plan.h"

namespace lamina::clip {

namespace {

constexpr IntegerRange kSize{1, int64_t{1} << 32};
constexpr int64_t kMostBlocks = 4096;
constexpr std::string_view kRoot = "text_model.", kProjected = "CLIPTextModelWithProjection";

Activation activation(std::string_view name, std::string_view what) {
  if (name == "quick_gelu") return Activation::quick_gelu;
  if (name == "gelu") return Activation::gelu;
  fail("{}: the activation {} is not known here; quick_gelu and gelu are", what, in_quotes(name));
}

bool is_projected(const Json& json) {
  if (!json_has(json, "architectures") || !json.at("architectures").is_array() ||
      json.at("architectures").empty())
    return false;
  const Json& name = json.at("architectures")[0];
  return name.is_string() && stock_name(name.get<std::string>()) == kProjected;
}

Json tiny(std::string_view architecture, std::string_view act, int64_t end) {
  return {{"architectures", {architecture}},
          {"model_type", "clip_text_model"},
          {"hidden_size", 32},
          {"intermediate_size", 40},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"vocab_size", 97},
          {"max_position_embeddings", 24},
          {"layer_norm_eps", 1e-5},
          {"hidden_act", act},
          {"projection_dim", 20},
          {"bos_token_id", 95},
          {"eos_token_id", end},
          {"torch_dtype", "float64"}};
}

class Declaration {
 public:
  Declaration(const Json& json, std::string_view root, std::string_view what)
      : c_(read_config(json, what)),
        absences_(read_absences(json, static_cast<int>(c_.blocks), what)),
        removed_(read_norms_removed(json, static_cast<int>(c_.blocks), what)),
        unmasked_(read_unmasked(json, static_cast<int>(c_.blocks), what)),
        stem_(root),
        residual_{"", c_.width} {
    if (removed_.last)
      fail("{}: the last norm of a text encoder has no map behind it to be folded into", what);
  }

  Blueprint whole() {
    b_.family = "clip";
    b_.stack = stem_ + "encoder.layers";
    b_.blocks = static_cast<int>(c_.blocks);
    b_.width = c_.width;
    b_.context = c_.positions;
    b_.embedding = stem_ + "embeddings.token_embedding.weight";
    b_.centred_norms = true;
    b_.epsilon_key = "layer_norm_eps";
    b_.unread = {stem_ + "embeddings.position_ids"};
    b_.slots.push_back({.name = b_.embedding, .axes = {{"vocabulary", c_.vocabulary}, residual_}});
    b_.slots.push_back({.name = stem_ + "embeddings.position_embedding.weight",
                        .axes = {{"positions", c_.positions}, residual_}});
    for (int block = 0; block < b_.blocks; ++block) {
      attention(block);
      mlp(block);
    }
    for (const char* name : {"weight", "bias"})
      b_.slots.push_back({.name = fmt::format("{}final_layer_norm.{}", stem_, name), .axes = {residual_}});
    if (c_.projection > 0)
      b_.slots.push_back({.name = "text_projection.weight", .axes = {{"", c_.projection}, residual_}});
    return std::move(b_);
  }

 private:
  std::string prefix(int block) const { return fmt::format("{}.{}.", b_.stack, block); }
  Part& part(int block, Kind kind, std::string_view name) {
    b_.parts.push_back({.path = prefix(block) + std::string(name),
                        .kind = kind,
                        .block = block,
                        .present = !absences_.contains({block, kind}),
                        .causal = kind != Kind::attention || !unmasked_.contains(block)});
    return b_.parts.back();
  }
  // Of the part that was declared last. The bias runs along the outputs.
  void weight(const std::string& path, const std::vector<Axis>& axes, bool silences = false) {
    if (!b_.parts.back().present) return;
    const int site = static_cast<int>(b_.parts.size()) - 1;
    b_.slots.push_back({.name = path + ".weight", .axes = axes, .part = site, .silences = silences});
    b_.slots.push_back({.name = path + ".bias", .axes = {axes.front()}, .part = site, .silences = silences});
  }

  void attention(int block) {
    const std::string path = prefix(block), norm = path + "layer_norm1", inside = path + "self_attn.";
    Part& attention = part(block, Kind::attention, "self_attn");
    attention.score_width = c_.width;
    const Axis heads{path + "heads", c_.heads, c_.head_dim()};
    if (!removed_.parts.contains({block, Kind::attention})) {
      attention.norm = FrontNorm{.path = norm,
                                 .readings = {{Reader::qk, inside + "q_proj", 0, c_.width},
                                              {Reader::qk, inside + "k_proj", 0, c_.width},
                                              {Reader::v, inside + "v_proj", 0, c_.width}}};
      weight(norm, {residual_});
    }
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) weight(inside + name, {heads, residual_});
    weight(inside + "out_proj", {residual_, heads}, true);
  }

  void mlp(int block) {
    const std::string path = prefix(block), norm = path + "layer_norm2";
    const std::string up = path + "mlp.fc1", down = path + "mlp.fc2";
    const bool normed = !removed_.parts.contains({block, Kind::mlp});
    Part& mlp = part(block, Kind::mlp, "mlp");
    mlp.neurons = Neurons{.count = c_.neurons, .up = up, .down = down, .norm = normed ? norm : ""};
    const Axis neurons{path + "neurons", c_.neurons};
    if (normed) {
      mlp.norm = FrontNorm{.path = norm, .readings = {{Reader::mlp, up, 0, c_.neurons}}};
      weight(norm, {residual_});
    }
    weight(up, {neurons, residual_});
    weight(down, {residual_, neurons}, true);
  }

  Config c_;
  Absences absences_;
  NormsRemoved removed_;
  Unmasked unmasked_;
  std::string stem_;
  Axis residual_;  // without a name: its order is that of what the model gives
  Blueprint b_ = {};
};

Blueprint blueprint(const Json& json, std::string_view what) {
  return Declaration(json, kRoot, what).whole();
}

Blueprint blueprint_of(const Checkpoint& checkpoint) {
  const bool rooted = std::ranges::any_of(
      checkpoint.tensors, [](const Stored& tensor) { return tensor.name.starts_with(kRoot); });
  return Declaration(checkpoint.config, rooted ? kRoot : "", checkpoint.what()).whole();
}

}  // namespace

Config read_config(const Json& json, std::string_view what) {
  if (json_has(json, "quantization_config"))
    fail("{}: the weights are quantized (quantization_config); open the original model", what);
  Config c;
  c.width = json_integer_or(json, "hidden_size", 512, what, kSize);
  c.blocks = json_integer_or(json, "num_hidden_layers", 12, what, {1, kMostBlocks});
  c.heads = json_integer_or(json, "num_attention_heads", 8, what, kSize);
  c.neurons = json_integer_or(json, "intermediate_size", 2048, what, kSize);
  c.vocabulary = json_integer_or(json, "vocab_size", 49408, what, kSize);
  c.positions = json_integer_or(json, "max_position_embeddings", 77, what, kSize);
  if (c.width % c.heads != 0) fail("{}: {} heads do not divide a width of {}", what, c.heads, c.width);
  c.norm_epsilon = json_number_or(json, "layer_norm_eps", 1e-5, what);
  if (!(c.norm_epsilon > 0) || !std::isfinite(c.norm_epsilon))
    fail("{}: \"layer_norm_eps\" is {} where a positive number was expected", what, c.norm_epsilon);
  c.activation = activation(json_string_or(json, "hidden_act", "quick_gelu", what), what);
  if (json.contains("eos_token_id"))
    c.end_of_text = json_integer(json, "eos_token_id", what, {0, int64_t{1} << 31});
  c.end_is_largest = c.end_of_text == 2;
  if (is_projected(json)) c.projection = json_integer_or(json, "projection_dim", 512, what, kSize);
  return c;
}

Architecture text_declaration() {
  return {.name = "CLIPTextModel",
          .model_type = "clip_text_model",
          .blueprint = blueprint,
          .tiny = [] { return tiny("CLIPTextModel", "quick_gelu", 2); },
          .dialects = {},
          .blueprint_of = blueprint_of};
}

Architecture projected_declaration() {
  return {.name = kProjected,
          .model_type = "clip_text_model",
          .blueprint = blueprint,
          .tiny = [] { return tiny(kProjected, "gelu", 96); },
          .dialects = {},
          .blueprint_of = blueprint_of};
}

}  // namespace lamina::clip
