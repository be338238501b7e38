// The declaration half of an architecture: what its checkpoints are made of, how GGUF files spell it, and
// what its config may say. The other half, the function, is in lamina/models/<family>/. This half is free of
// torch, so that `inspect` starts in milliseconds and a cut needs little memory.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lamina/blueprint/blueprint.h"
#include "lamina/checkpoint/checkpoint.h"

namespace lamina {

struct Plan;

// One tensor of a GGUF file and what it is called elsewhere; "{}" stands for the block number.
struct GgufName {
  std::string_view gguf;
  std::string_view published;
  // Config key that holds the number of heads whose rows GGUF stores as interleaved rotary pairs; empty: rows
  // in order.
  std::string_view paired_heads_key = {};
};

// A float32 vector of a GGUF that is no weight ("rope_freqs.weight").
struct GgufExtra {
  std::string name;
  std::vector<float> values;
};

// How GGUF files spell an architecture. The same table is read forwards at the door and backwards by the
// export.
struct GgufDialect {
  std::string_view architecture;  // general.architecture
  std::span<const GgufName> names;
  // `bytes`: the whole file, for what only tensors say.
  Json (*config)(const gguf::File& file, Bytes bytes, std::string_view what);
  // The metadata (without tokenizer) that says what `config` says.
  std::vector<std::pair<std::string, gguf::Value>> (*metadata)(const Json& config,
                                                               const Blueprint& blueprint);
  // Tensors that the spelling has beside the model's own, made from the config.
  std::vector<GgufExtra> (*extras)(const Json& config);
  // Takes out tensors that say what `config` has read already, or only stand in for what cannot be left away.
  void (*tidy)(Checkpoint& checkpoint);
};

// What stock loaders open of a model after a plan, or why there is nothing.
struct Compact {
  std::optional<Checkpoint> checkpoint = {};
  std::string note = {};  // what it opens in, or why there is nothing and what would do
  bool rewired = false;   // computes another function than skipping the plan's parts
};

struct Architecture {
  std::string_view name;        // "LlamaForCausalLM", as config.json's `architectures` has it
  std::string_view model_type;  // "llama"
  Blueprint (*blueprint)(const Json& config, std::string_view what);
  Json (*tiny)();  // a small config that uses every feature of the family: what the laws run on
  std::span<const GgufDialect> dialects;
  // Where files spell the names in more than one way: the declaration in the spelling of this file.
  Blueprint (*blueprint_of)(const Checkpoint& checkpoint) = nullptr;
  // Where blocks that are gone are not simply left out and the rest numbered anew.
  Compact (*compact)(const Checkpoint& checkpoint, const Blueprint& blueprint, const Plan& plan) = nullptr;
  std::string_view classifier = {};  // the same model as a token classifier: "LlamaForTokenClassification"
};

// Classes of a token classifier, as its config's id2label counts them; 0 for another kind of model. Throws
// Error when the labels are not numbered 0, 1, ... or there are none.
int64_t labels_in(const Json& config, std::string_view what);

std::span<const Architecture> architectures();
// Throws Error that names the architectures known here.
const Architecture& architecture_of(const Json& config, std::string_view what);

// A checkpoint with its declaration, checked against each other.
struct Opened {
  Checkpoint checkpoint;
  const Architecture* architecture = nullptr;
  Blueprint blueprint;
};

// Opens a Hugging Face folder or a GGUF file. Throws Error when blueprint and file differ, naming the tensor.
Opened open(const std::filesystem::path& path);
// The same check for a checkpoint that is already in memory (after an edit).
Opened declare(Checkpoint checkpoint);

}  // namespace lamina
