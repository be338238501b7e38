#include "lamina/export/impl/transformer_lens.h"

#include <cstring>

#include "lamina/base/error.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/export/export.h"
#include "lamina/family/gpt2.h"

namespace lamina {

namespace {

// The same bytes under another name and shape; the order of the numbers stays.
Stored viewed(const Stored& tensor, std::string name, Shape shape) {
  Stored result = tensor;
  result.name = std::move(name);
  result.shape = std::move(shape);
  result.shard = 0;
  return result;
}

// Columns [first, first + heads * head_dim) of a [width, ...] matrix as [heads, width, head_dim].
Stored by_head(const Stored& matrix, std::string name, int64_t first, int64_t heads, int64_t head_dim) {
  const DType dtype = editable_dtype(matrix.dtype);
  const std::vector<std::byte> from = bytes_as(matrix, dtype);
  const int64_t width = matrix.shape[0], columns = matrix.shape[1];
  const auto size = static_cast<size_t>(block_bytes(dtype));
  const size_t run = static_cast<size_t>(head_dim) * size;
  std::vector<std::byte> to(static_cast<size_t>(heads * width) * run);
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t row = 0; row < width; ++row)
      std::memcpy(&to[static_cast<size_t>(head * width + row) * run],
                  &from[static_cast<size_t>(row * columns + first + head * head_dim) * size], run);
  }
  Stored result{.name = std::move(name), .dtype = dtype, .shape = {heads, width, head_dim}};
  own(result, std::move(to));
  return result;
}

// Numbers [first, first + heads * head_dim) of a vector as [heads, head_dim].
Stored part_of(const Stored& vector, std::string name, int64_t first, int64_t heads, int64_t head_dim) {
  const DType dtype = editable_dtype(vector.dtype);
  const std::vector<std::byte> from = bytes_as(vector, dtype);
  const auto size = static_cast<int64_t>(block_bytes(dtype));
  Stored result{.name = std::move(name), .dtype = dtype, .shape = {heads, head_dim}};
  own(result, {from.begin() + first * size, from.begin() + (first + heads * head_dim) * size});
  return result;
}

Stored transposed(const Stored& matrix, std::string name) {
  const DType dtype = editable_dtype(matrix.dtype);
  const std::vector<std::byte> from = bytes_as(matrix, dtype);
  const auto rows = static_cast<size_t>(matrix.shape[0]), columns = static_cast<size_t>(matrix.shape[1]);
  const auto size = static_cast<size_t>(block_bytes(dtype));
  std::vector<std::byte> to(from.size());
  for (size_t row = 0; row < rows; ++row) {
    for (size_t column = 0; column < columns; ++column)
      std::memcpy(&to[(column * rows + row) * size], &from[(row * columns + column) * size], size);
  }
  Stored result{.name = std::move(name), .dtype = dtype, .shape = {matrix.shape[1], matrix.shape[0]}};
  own(result, std::move(to));
  return result;
}

std::string_view name_of(gpt2::Activation activation) {
  switch (activation) {
    case gpt2::Activation::gelu_tanh:
      return "gelu_new";
    case gpt2::Activation::gelu:
      return "gelu";
    case gpt2::Activation::relu:
      return "relu";
  }
  return "";
}

}  // namespace

std::string_view transformer_lens_lines() {
  return R"(# pip install "transformer_lens<4": the fourth version has no HookedTransformer
import json
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

model = HookedTransformer(HookedTransformerConfig(**json.load(open("config.json"))))
# strict=False: the causal masks are buffers that it makes itself
model.load_state_dict(load_file("model.safetensors"), strict=False)
logits = model(token_ids)  # [batch, tokens, vocabulary])";
}

std::optional<std::string> no_transformer_lens(const Opened& model) {
  if (model.blueprint.family == "gpt2") return std::nullopt;
  return fmt::format("only GPT-2 is written for TransformerLens here, and this is {}; hf-perlayer would do",
                     model.architecture->name);
}

Checkpoint for_transformer_lens(const Checkpoint& checkpoint) {
  const Opened opened = declare(checkpoint);
  const Blueprint& blueprint = opened.blueprint;
  const gpt2::Config config = gpt2::read_config(checkpoint.config, checkpoint.what());
  const int64_t heads = config.heads, head_dim = config.head_dim(), width = config.width;
  const auto at = [&](const std::string& name) -> const Stored& { return *checkpoint.find(name); };

  Checkpoint lens = checkpoint;
  lens.tensors.clear();
  lens.index = Json();
  lens.shards = {{.name = "model.safetensors", .metadata = {{"format", "pt"}}, .metadata_present = true}};
  const auto add = [&](Stored tensor) { lens.tensors.push_back(std::move(tensor)); };
  add(viewed(at(blueprint.embedding), "embed.W_E", {config.vocabulary, width}));
  const std::string stem = blueprint.stack.substr(0, blueprint.stack.size() - 1);  // of "transformer.h"
  add(viewed(at(stem + "wpe.weight"), "pos_embed.W_pos", {config.positions, width}));
  for (int64_t block = 0; block < config.blocks; ++block) {
    const std::string theirs = fmt::format("blocks.{}.", block),
                      ours = fmt::format("{}.{}.", blueprint.stack, block);
    const Stored &qkv = at(ours + "attn.c_attn.weight"), &bias = at(ours + "attn.c_attn.bias");
    for (int64_t which = 0; which < 3; ++which) {
      const char letter = "QKV"[which];
      add(by_head(qkv, fmt::format("{}attn.W_{}", theirs, letter), which * width, heads, head_dim));
      add(part_of(bias, fmt::format("{}attn.b_{}", theirs, letter), which * width, heads, head_dim));
    }
    add(viewed(at(ours + "attn.c_proj.weight"), theirs + "attn.W_O", {heads, head_dim, width}));
    add(viewed(at(ours + "attn.c_proj.bias"), theirs + "attn.b_O", {width}));
    add(viewed(at(ours + "mlp.c_fc.weight"), theirs + "mlp.W_in", {width, config.neurons}));
    add(viewed(at(ours + "mlp.c_fc.bias"), theirs + "mlp.b_in", {config.neurons}));
    add(viewed(at(ours + "mlp.c_proj.weight"), theirs + "mlp.W_out", {config.neurons, width}));
    add(viewed(at(ours + "mlp.c_proj.bias"), theirs + "mlp.b_out", {width}));
  }
  add(transposed(at(blueprint.head), "unembed.W_U"));
  add(viewed(at("lm_head.bias"), "unembed.b_U", {config.vocabulary}));

  lens.config_text.clear();
  lens.config = {{"n_layers", config.blocks},
                 {"d_model", width},
                 {"n_ctx", config.positions},
                 {"d_head", head_dim},
                 {"n_heads", heads},
                 {"d_mlp", config.neurons},
                 {"d_vocab", config.vocabulary},
                 {"act_fn", name_of(config.activation)},
                 {"attention_dir", "causal"},
                 {"use_attn_scale", config.scaled},
                 {"positional_embedding_type", "standard"},
                 {"normalization_type", nullptr},
                 {"original_architecture", "GPT2LMHeadModel"}};
  return lens;
}

}  // namespace lamina
