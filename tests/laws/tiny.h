// Tiny random models for the laws: a checkpoint of any architecture, written to disk by our own writer and
// opened again. The same seed gives the same numbers on every machine and every standard library.
#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "lamina/base/error.h"
#include "lamina/base/random.h"
#include "lamina/family/family.h"
#include "lamina/models/registry.h"
#include "lamina/plan/plan.h"
#include "tests/help.h"

namespace lamina::tiny {

using tests::Folder;

// Every registered architecture.
inline std::vector<const Architecture*> every() {
  std::vector<const Architecture*> all;
  for (const Architecture& architecture : architectures()) all.push_back(&architecture);
  return all;
}

// The language models among them.
inline std::vector<const Architecture*> listed() {
  std::vector<const Architecture*> all = every();
  std::erase_if(all, [](const Architecture* architecture) {
    return !architecture->blueprint(architecture->tiny(), "tiny").speaks();
  });
  return all;
}

class Random : public SplitMix {
 public:
  using SplitMix::SplitMix;
  // Mean 0, variance 1.
  double centred() { return (2 * uniform() - 1) * std::sqrt(3.0); }
};

inline std::vector<int32_t> tokens(int64_t count, int64_t vocabulary, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(random.below(vocabulary)));
  return ids;
}

inline Tensor batch(const std::vector<int32_t>& ids) {
  return at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0);
}

// A checkpoint whose tensors live in memory; the storage must outlive it.
struct InMemory {
  Checkpoint checkpoint;
  std::vector<Tensor> storage;

  void set(Stored& stored, const Tensor& tensor) {
    storage.push_back(tensor.contiguous());
    const Tensor& kept = storage.back();
    stored.dtype = dtype_of(kept.scalar_type());
    stored.shape = kept.sizes().vec();
    stored.bytes = {static_cast<const std::byte*>(kept.const_data_ptr()), kept.nbytes()};
    stored.file = nullptr;
    stored.zero = false;
    stored.paired_heads = 0;
  }
};

struct Options {
  uint64_t seed = 1;
  at::ScalarType dtype = at::kDouble;
  int shards = 1;
  Json config = {};  // null: the architecture's own tiny one
};

// Norms near one, all else with a variance of a tenth: every part moves the logits, none drowns the others.
inline InMemory random_checkpoint(const Architecture& architecture, const Options& options = {}) {
  InMemory made;
  Checkpoint& c = made.checkpoint;
  c.path = "tiny";
  c.config = options.config.is_null() ? architecture.tiny() : options.config;
  for (int s = 0; s < options.shards; ++s) {
    c.shards.push_back({.name = options.shards == 1
                                    ? "model.safetensors"
                                    : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, options.shards),
                        .metadata = {{"format", "pt"}},
                        .metadata_present = true});
  }
  Random random(options.seed);
  const Blueprint blueprint = architecture.blueprint(c.config, "tiny");
  for (size_t i = 0; i < blueprint.slots.size(); ++i) {
    const Slot& slot = blueprint.slots[i];
    Shape shape;
    for (const Axis& axis : slot.axes) shape.push_back(axis.size());
    const Tensor values = at::empty(shape, at::kDouble);
    const bool is_norm = slot.axes.size() == 1 && slot.name.ends_with(".weight");
    double* data = values.data_ptr<double>();
    for (int64_t k = 0; k < values.numel(); ++k)
      data[k] = is_norm ? 1 + 0.2 * random.centred() : std::sqrt(0.1) * random.centred();
    Stored& stored = c.tensors.emplace_back();
    stored.name = slot.name;
    stored.shard = static_cast<int>(i * static_cast<size_t>(options.shards) / blueprint.slots.size());
    made.set(stored, values.to(options.dtype));
  }
  return made;
}

inline void write(const InMemory& made, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  write_folder(made.checkpoint, folder, {});
}

// A model on disk, opened and running in float64.
struct Tiny {
  explicit Tiny(const Architecture& architecture, const Options& options = {}) {
    write(random_checkpoint(architecture, options), folder / "model");
    opened = open(folder / "model");
    model = build_model(opened, {.dtype = at::kDouble});
  }
  Folder folder;
  Opened opened;
  std::unique_ptr<Model> model;
};

inline Tensor logits(const Model& model, const std::vector<int32_t>& ids, Tap& tap) {
  const InferenceMode evaluating;
  return model.run({.ids = batch(ids)}, tap);
}
inline Tensor logits(const Model& model, const std::vector<int32_t>& ids) {
  Tap none;
  return logits(model, ids, none);
}
inline Tensor logits(const Opened& opened, const std::vector<int32_t>& ids) {
  return logits(*build_model(opened, {.dtype = at::kDouble}), ids);
}

// Something that a model of any kind can read.
inline Inputs inputs(const Opened& opened, uint64_t seed = 7) {
  const Json& config = opened.checkpoint.config;
  Random random(seed);
  const auto numbers = [&](at::IntArrayRef sizes) {
    const Tensor values = at::empty(sizes, at::kDouble);
    double* data = values.data_ptr<double>();
    for (int64_t i = 0; i < values.numel(); ++i) data[i] = random.centred();
    return values;
  };
  if (opened.blueprint.family == "unet") {
    const int64_t added = json_integer_or(config, "projection_class_embeddings_input_dim", 0, "tiny");
    Inputs made{.sample = numbers({2, config.at("in_channels").get<int64_t>(), 8, 12}),
                .time = at::tensor({3.0, 700.0}, at::kDouble),
                .text = numbers({2, 5, config.at("cross_attention_dim").get<int64_t>()})};
    if (added > 0) {
      const auto each = config.at("addition_time_embed_dim").get<int64_t>();
      made.added = {{"text_embeds", numbers({2, added - 6 * each})},
                    {"time_ids", numbers({2, 6}).abs() * 100}};
    }
    return made;
  }
  if (opened.blueprint.speaks() || json_has(config, "vocab_size"))
    return {.ids = batch(tokens(12, config.at("vocab_size").get<int64_t>(), seed))};
  return {.sample = numbers({2, 3, 16, 24})};  // pictures
}
inline Tensor answer(const Model& model, const Opened& opened, Tap& tap) {
  const InferenceMode evaluating;
  return model.run(inputs(opened), tap);
}
inline Tensor answer(const Opened& opened) {
  Tap none;
  return answer(*build_model(opened, {.dtype = at::kDouble}), opened, none);
}

inline Plan cuts(const std::vector<std::string>& sites) {
  Plan plan;
  for (const std::string& site : sites) plan.edits.push_back(Cut{site, std::nullopt});
  return plan;
}

// "A0 F3": the parts with these labels.
inline Plan cuts_by_label(const Blueprint& blueprint, const std::vector<std::string>& labels) {
  Plan plan;
  for (const std::string& label : labels) {
    for (const Part& part : blueprint.parts) {
      if (part.label() == label) plan.edits.push_back(Cut{part.path, std::nullopt});
    }
  }
  return plan;
}

inline double greatest_difference(const Tensor& a, const Tensor& b) {
  return (a - b).abs().max().item<double>();
}

}  // namespace lamina::tiny
