// How GGUF spells the Llama family: `llama`, and `deci` for models whose blocks differ (no attention, no
// feed-forward).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"
#include "lamina/family/llama.h"

namespace lamina::llama {

namespace {

// Llama 3.1's rotary scaling, which GGUF spells as one divisor a frequency.
constexpr std::string_view kRopeDivisors = "rope_freqs.weight";
// The settings behind the divisors, under a key of ours; files of llama.cpp do not say them.
constexpr std::string_view kRopeSettings = "lamina.rope_scaling";

constexpr GgufName kNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
    {kRopeDivisors, kRopeDivisors},
    {"blk.{}.attn_norm.weight", "model.layers.{}.input_layernorm.weight"},
    {"blk.{}.attn_q.weight", "model.layers.{}.self_attn.q_proj.weight", "num_attention_heads"},
    {"blk.{}.attn_k.weight", "model.layers.{}.self_attn.k_proj.weight", "num_key_value_heads"},
    {"blk.{}.attn_v.weight", "model.layers.{}.self_attn.v_proj.weight"},
    {"blk.{}.attn_output.weight", "model.layers.{}.self_attn.o_proj.weight"},
    {"blk.{}.attn_q.bias", "model.layers.{}.self_attn.q_proj.bias", "num_attention_heads"},
    {"blk.{}.attn_k.bias", "model.layers.{}.self_attn.k_proj.bias", "num_key_value_heads"},
    {"blk.{}.attn_v.bias", "model.layers.{}.self_attn.v_proj.bias"},
    {"blk.{}.attn_output.bias", "model.layers.{}.self_attn.o_proj.bias"},
    {"blk.{}.ffn_norm.weight", "model.layers.{}.post_attention_layernorm.weight"},
    {"blk.{}.ffn_gate.weight", "model.layers.{}.mlp.gate_proj.weight"},
    {"blk.{}.ffn_up.weight", "model.layers.{}.mlp.up_proj.weight"},
    {"blk.{}.ffn_down.weight", "model.layers.{}.mlp.down_proj.weight"},
    {"blk.{}.ffn_gate.bias", "model.layers.{}.mlp.gate_proj.bias"},
    {"blk.{}.ffn_up.bias", "model.layers.{}.mlp.up_proj.bias"},
    {"blk.{}.ffn_down.bias", "model.layers.{}.mlp.down_proj.bias"},
};

int64_t bounded(const gguf::File& file, std::string_view key, int64_t max) {
  const int64_t value = file.integer(key);
  if (value < 1 || value > max) fail("{} is {}, outside 1 to {}", key, value, max);
  return value;
}

bool has_tensor(const gguf::File& file, std::string_view name) {
  return std::ranges::find(file.tensors, name, &gguf::TensorInfo::name) != file.tensors.end();
}

// Block 0 may be the one whose half is gone.
bool some_block_has(const gguf::File& file, std::string_view ending) {
  return std::ranges::any_of(file.tensors, [&](const auto& info) { return info.name.ends_with(ending); });
}

// What both spellings share.
Json common_config(const gguf::File& file, const std::string& arch) {
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", arch, name); };
  Json config = {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}};
  config["hidden_size"] = bounded(file, key("embedding_length"), 1 << 24);
  config["num_hidden_layers"] = bounded(file, key("block_count"), kMostBlocks);
  config["max_position_embeddings"] = file.integer_or(key("context_length"), 2048);
  config["rms_norm_eps"] = file.number_or(key("attention.layer_norm_rms_epsilon"), 1e-5);
  config["rope_theta"] = file.number_or(key("rope.freq_base"), 10000.0);
  const std::string scaling = file.string_or(key("rope.scaling.type"), "none");
  if (scaling == "linear") {
    config["rope_scaling"] = {{"rope_type", "linear"},
                              {"factor", file.number_or(key("rope.scaling.factor"), 1.0)}};
  } else if (scaling != "none") {
    fail("the rope scaling {} of a GGUF is not known here; none and linear are", in_quotes(scaling));
  }
  config["hidden_act"] = "silu";
  config["attention_bias"] = some_block_has(file, ".attn_output.bias");
  config["mlp_bias"] = some_block_has(file, ".ffn_down.bias");
  config["tie_word_embeddings"] = !has_tensor(file, "output.weight");
  const auto embedding =
      std::ranges::find(file.tensors, std::string_view("token_embd.weight"), &gguf::TensorInfo::name);
  if (embedding == file.tensors.end() || embedding->shape.size() != 2)
    fail("token_embd.weight is missing or no matrix");
  config["vocab_size"] = embedding->shape[0];
  for (const auto& [name, ours] : {std::pair{"bos_token_id", "bos_token_id"},
                                   {"eos_token_id", "eos_token_id"},
                                   {"padding_token_id", "pad_token_id"}}) {
    const int64_t id = file.integer_or(fmt::format("tokenizer.ggml.{}", name), -1);
    if (id >= 0 && id < embedding->shape[0]) config[ours] = id;
  }
  config["torch_dtype"] = "float32";
  return config;
}

// The settings that give the file's divisors: those under our own key, else Llama 3.1's and 3.2's. Throws
// Error when they give others.
void read_rope_divisors(const gguf::File& file, Bytes bytes, Json& config) {
  const auto info = std::ranges::find(file.tensors, kRopeDivisors, &gguf::TensorInfo::name);
  if (info == file.tensors.end()) return;
  std::vector<float> divisors(info->bytes / sizeof(float));
  if (info->dtype != DType::f32 || info->shape.size() != 1 || divisors.empty())
    fail("{} is no vector of float32", kRopeDivisors);
  std::memcpy(divisors.data(), bytes.data() + file.data_start + info->offset, info->bytes);
  if (json_has(config, "rope_scaling"))
    fail("a linear rope scaling and {} contradict each other", kRopeDivisors);
  const std::string settings = file.string_or(kRopeSettings, "");
  config["rope_scaling"] = settings.empty() ? Json{{"rope_type", "llama3"},
                                                   {"factor", *std::ranges::max_element(divisors)},
                                                   {"low_freq_factor", 1.0},
                                                   {"high_freq_factor", 4.0},
                                                   {"original_max_position_embeddings", 8192}}
                                            : parse_json(settings, kRopeSettings);
  const std::vector<double> expected = rope_divisors(read_config(config, "the GGUF's config"));
  const bool same = std::ranges::equal(
      expected, divisors, [](double a, float b) { return std::abs(a - static_cast<double>(b)) <= 1e-4 * a; });
  if (!same) {
    fail("{} is not Llama 3.1's rotary scaling with its usual settings, and no other is known here",
         kRopeDivisors);
  }
}

Json llama_config(const gguf::File& file, Bytes bytes, std::string_view) {
  if (file.integer_or("llama.expert_count", 0) > 0)
    fail("this GGUF holds a mixture of experts, which is not known here");
  Json config = common_config(file, "llama");
  config["intermediate_size"] = bounded(file, "llama.feed_forward_length", int64_t{1} << 32);
  const int64_t heads = bounded(file, "llama.attention.head_count", 1 << 20);
  config["num_attention_heads"] = heads;
  config["num_key_value_heads"] = file.integer_or("llama.attention.head_count_kv", heads);
  config["head_dim"] =
      file.integer_or("llama.attention.key_length", config["hidden_size"].get<int64_t>() / heads);
  read_rope_divisors(file, bytes, config);
  return config;
}

const std::vector<int64_t>& per_block(const gguf::File& file, std::string_view key, int64_t blocks) {
  const gguf::Value* value = file.find(key);
  const auto* array = value ? std::get_if<gguf::Array>(&value->data) : nullptr;
  const auto* items = array ? std::get_if<std::vector<int64_t>>(&array->items) : nullptr;
  if (!items || static_cast<int64_t>(items->size()) != blocks)
    fail("{} is not a list of one number for each of the {} blocks", key, blocks);
  return *items;
}

// Blocks of a deci file may lack attention (0 heads) or the feed-forward (length 0, or narrower than the
// rest: the stand-in of zeros that keeps llama.cpp from dropping the attention before it).
Json deci_config(const gguf::File& file, Bytes bytes, std::string_view) {
  Json config = common_config(file, "deci");
  const auto blocks = config["num_hidden_layers"].get<int64_t>();
  const auto& heads = per_block(file, "deci.attention.head_count", blocks);
  const auto& groups = per_block(file, "deci.attention.head_count_kv", blocks);
  const auto& neurons = per_block(file, "deci.feed_forward_length", blocks);
  config["num_attention_heads"] = *std::ranges::max_element(heads);
  config["num_key_value_heads"] = *std::ranges::max_element(groups);
  config["intermediate_size"] = *std::ranges::max_element(neurons);
  config["head_dim"] = file.integer_or(
      "deci.attention.key_length", config["hidden_size"].get<int64_t>() /
                                       std::max<int64_t>(1, config["num_attention_heads"].get<int64_t>()));
  read_rope_divisors(file, bytes, config);
  Absences absences;
  for (int block = 0; block < static_cast<int>(blocks); ++block) {
    const auto at = static_cast<size_t>(block);
    if (heads[at] == 0) absences.emplace(block, Kind::attention);
    if (neurons[at] == 0 || neurons[at] == kStandInNeurons) absences.emplace(block, Kind::mlp);
    if (heads[at] != 0 && heads[at] != config["num_attention_heads"])
      fail("block {} has {} heads where others have {}; only absent parts are known here", block, heads[at],
           config["num_attention_heads"].dump());
    if (neurons[at] != 0 && neurons[at] != kStandInNeurons && neurons[at] != config["intermediate_size"])
      fail("block {} has {} neurons where others have {}; only absent parts are known here", block,
           neurons[at], config["intermediate_size"].dump());
  }
  write_absences(config, absences);
  return config;
}

void drop_rope_divisors(Checkpoint& checkpoint) {
  std::erase_if(checkpoint.tensors, [](const Stored& tensor) { return tensor.name == kRopeDivisors; });
}

// Throws Error if what should be a stand-in holds anything but zeros: then the file says more than we
// understand.
void drop_stand_ins(Checkpoint& checkpoint) {
  drop_rope_divisors(checkpoint);
  const auto blocks = static_cast<int>(checkpoint.config.at("num_hidden_layers").get<int64_t>());
  for (const auto& [block, kind] : read_absences(checkpoint.config, blocks, checkpoint.path.string())) {
    if (kind != Kind::mlp) continue;
    const std::string prefix = fmt::format("model.layers.{}.", block);
    std::erase_if(checkpoint.tensors, [&](const Stored& tensor) {
      if (!tensor.name.starts_with(prefix + "mlp.") &&
          tensor.name != prefix + "post_attention_layernorm.weight")
        return false;
      if (!std::ranges::all_of(tensor.bytes, [](std::byte b) { return b == std::byte{0}; })) {
        fail("{}: {} is narrower than the other blocks' and not zero; such models are not known here",
             checkpoint.path.string(), tensor.name);
      }
      return true;
    });
  }
}

using Metadata = std::vector<std::pair<std::string, gguf::Value>>;

Metadata common_metadata(const Config& c, const std::string& arch) {
  const auto key = [&](std::string_view name) { return fmt::format("{}.{}", arch, name); };
  Metadata metadata = {
      {key("block_count"), gguf::make_u32(static_cast<uint32_t>(c.blocks))},
      {key("context_length"), gguf::make_u32(static_cast<uint32_t>(c.context))},
      {key("embedding_length"), gguf::make_u32(static_cast<uint32_t>(c.width))},
      {key("rope.freq_base"), gguf::make_f32(static_cast<float>(c.rope_theta))},
      {key("rope.dimension_count"), gguf::make_u32(static_cast<uint32_t>(c.head_dim))},
      {key("attention.layer_norm_rms_epsilon"), gguf::make_f32(static_cast<float>(c.norm_epsilon))},
      {key("attention.key_length"), gguf::make_u32(static_cast<uint32_t>(c.head_dim))},
      {key("attention.value_length"), gguf::make_u32(static_cast<uint32_t>(c.head_dim))},
      {key("vocab_size"), gguf::make_u32(static_cast<uint32_t>(c.vocabulary))},
  };
  if (c.rope_scaling && c.rope_scaling->kind == RopeScaling::Kind::linear) {
    metadata.emplace_back(key("rope.scaling.type"), gguf::make_string("linear"));
    metadata.emplace_back(key("rope.scaling.factor"),
                          gguf::make_f32(static_cast<float>(c.rope_scaling->factor)));
  } else if (c.rope_scaling) {
    const Json settings = {{"rope_type", "llama3"},
                           {"factor", c.rope_scaling->factor},
                           {"low_freq_factor", c.rope_scaling->low_frequency},
                           {"high_freq_factor", c.rope_scaling->high_frequency},
                           {"original_max_position_embeddings", c.rope_scaling->original_context}};
    metadata.emplace_back(kRopeSettings, gguf::make_string(settings.dump()));
  }
  return metadata;
}

Metadata llama_metadata(const Json& json, const Blueprint&) {
  const Config c = read_config(json, "config.json");
  Metadata metadata = common_metadata(c, "llama");
  metadata.emplace_back("llama.attention.head_count", gguf::make_u32(static_cast<uint32_t>(c.heads)));
  metadata.emplace_back("llama.attention.head_count_kv", gguf::make_u32(static_cast<uint32_t>(c.groups)));
  metadata.emplace_back("llama.feed_forward_length", gguf::make_u32(static_cast<uint32_t>(c.neurons)));
  return metadata;
}

Metadata deci_metadata(const Json& json, const Blueprint& blueprint) {
  const Config c = read_config(json, "config.json");
  Metadata metadata = common_metadata(c, "deci");
  std::vector<int64_t> heads, groups, neurons;
  for (int block = 0; block < blueprint.blocks; ++block) {
    const Part& attention = blueprint.parts[static_cast<size_t>(2 * block)];
    const Part& mlp = blueprint.parts[static_cast<size_t>(2 * block + 1)];
    heads.push_back(attention.present ? c.heads : 0);
    groups.push_back(attention.present ? c.groups : 0);
    neurons.push_back(mlp.present ? c.neurons : attention.present ? kStandInNeurons : 0);
  }
  metadata.emplace_back("deci.attention.head_count", gguf::make_u32s(heads));
  metadata.emplace_back("deci.attention.head_count_kv", gguf::make_u32s(groups));
  metadata.emplace_back("deci.feed_forward_length", gguf::make_u32s(neurons));
  return metadata;
}

std::vector<GgufExtra> extras(const Json& json) {
  const Config c = read_config(json, "config.json");
  if (!c.rope_scaling || c.rope_scaling->kind != RopeScaling::Kind::llama3) return {};
  const std::vector<double> divisors = rope_divisors(c);
  return {{std::string(kRopeDivisors), std::vector<float>(divisors.begin(), divisors.end())}};
}

}  // namespace

std::span<const GgufDialect> gguf_dialects() {
  static constexpr GgufDialect dialects[] = {
      {"llama", kNames, llama_config, llama_metadata, extras, drop_rope_divisors},
      {"deci", kNames, deci_config, deci_metadata, extras, drop_stand_ins},
  };
  return dialects;
}

}  // namespace lamina::llama
