#include "lamina/export/impl/gguf_export.h"

#include <algorithm>
#include <map>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/export/impl/sidecars.h"
#include "lamina/family/llama.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

struct Outgoing {
  std::string name;  // in the GGUF
  const Stored* tensor;
  int64_t paired_heads = 0;  // of the rows in the GGUF
};

// "model.layers.7.mlp.up_proj.weight" against "model.layers.{}.mlp.up_proj.weight": "blk.7.ffn_up.weight", or
// nothing.
std::optional<std::string> backwards(std::string_view name, const GgufName& entry) {
  const size_t hole = entry.published.find("{}");
  if (hole == std::string_view::npos)
    return name == entry.published ? std::optional<std::string>(entry.gguf) : std::nullopt;
  const std::string_view head = entry.published.substr(0, hole), tail = entry.published.substr(hole + 2);
  if (!name.starts_with(head) || !name.ends_with(tail)) return std::nullopt;
  const std::string_view number = name.substr(head.size(), name.size() - head.size() - tail.size());
  if (number.find('.') != std::string_view::npos) return std::nullopt;
  return fmt::format(fmt::runtime(entry.gguf), number);
}

// The feed-forward of zeros for blocks that kept their attention alone.
std::vector<Stored> stand_ins(const Blueprint& blueprint) {
  std::vector<Stored> tensors;
  for (size_t i = 1; i < blueprint.parts.size(); i += 2) {
    const Part &attention = blueprint.parts[i - 1], &mlp = blueprint.parts[i];
    if (mlp.present || !attention.present) continue;
    const std::string prefix = fmt::format("{}.{}.", blueprint.stack, mlp.block);
    const int64_t n = llama::kStandInNeurons, width = blueprint.width;
    const std::pair<std::string_view, Shape> shapes[] = {{"post_attention_layernorm.weight", {width}},
                                                         {"mlp.gate_proj.weight", {n, width}},
                                                         {"mlp.up_proj.weight", {n, width}},
                                                         {"mlp.down_proj.weight", {width, n}}};
    for (const auto& [name, shape] : shapes) {
      tensors.push_back(
          {.name = prefix + std::string(name), .dtype = DType::f16, .shape = shape, .zero = true});
    }
  }
  return tensors;
}

// llama.cpp's number for what most matrices are.
int64_t file_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 0;
    case DType::f16:
      return 1;
    case DType::q4_0:
      return 2;
    case DType::q4_1:
      return 3;
    case DType::q8_0:
      return 7;
    case DType::q5_0:
      return 8;
    case DType::q5_1:
      return 9;
    case DType::bf16:
      return 32;
    default:
      return 1;
  }
}

gguf::File header_of(const Opened& model, const Checkpoint& checkpoint, const GgufDialect& dialect,
                     const Blueprint& blueprint, const std::vector<Outgoing>& order,
                     const std::vector<DType>& dtypes) {
  gguf::File file;
  std::set<std::string> ours;
  const auto put = [&](std::string key, gguf::Value value) {
    ours.insert(key);
    file.metadata.emplace_back(std::move(key), std::move(value));
  };
  put("general.architecture", gguf::make_string(std::string(dialect.architecture)));
  std::map<DType, uint64_t> elements;
  for (size_t i = 0; i < order.size(); ++i) elements[dtypes[i]] += order[i].tensor->elements();
  const DType most = std::ranges::max_element(elements, {}, [](const auto& e) { return e.second; })->first;
  put("general.file_type", gguf::make_u32(static_cast<uint32_t>(file_type(most))));
  if (is_quantized(most)) put("general.quantization_version", gguf::make_u32(2));
  for (auto& [key, value] : dialect.metadata(checkpoint.config, blueprint))
    put(std::move(key), std::move(value));
  if (const auto& source = model.checkpoint.gguf) {
    const std::string architecture = source->string("general.architecture") + ".";
    for (const auto& [key, value] : source->metadata) {
      if (!ours.contains(key) && !key.starts_with(architecture)) file.metadata.emplace_back(key, value);
    }
  } else {
    put("general.name", gguf::make_string(model.checkpoint.path.filename().string()));
    for (auto& [key, value] : tokenizer_metadata(model.checkpoint)) put(std::move(key), std::move(value));
  }
  for (size_t i = 0; i < order.size(); ++i)
    file.tensors.push_back({.name = order[i].name, .dtype = dtypes[i], .shape = order[i].tensor->shape});
  gguf::lay_out(file);
  return file;
}

}  // namespace

DType gguf_dtype(const Stored& tensor, const std::optional<DType>& wanted) {
  if (tensor.shape.size() < 2) return DType::f32;
  const DType dtype = wanted                                                     ? *wanted
                      : is_quantized(tensor.dtype) || tensor.dtype == DType::f32 ? tensor.dtype
                                                                                 : DType::f16;
  return tensor.shape.back() % block_elements(dtype) == 0 ? dtype : DType::f16;
}

void write_gguf(const Opened& model, const Checkpoint& checkpoint, const std::optional<DType>& dtype,
                const fs::path& path, const Watch& watch) {
  const Blueprint blueprint = model.architecture->blueprint(checkpoint.config, checkpoint.what());
  const bool whole = std::ranges::all_of(blueprint.parts, &Part::present);
  const GgufDialect& dialect = model.architecture->dialects[whole ? 0 : 1];
  const std::vector<Stored> zeros = stand_ins(blueprint);

  std::vector<Outgoing> order;
  const auto add = [&](const Stored& tensor) {
    for (const GgufName& entry : dialect.names) {
      if (auto name = backwards(tensor.name, entry)) {
        const int64_t heads =
            entry.paired_heads_key.empty()
                ? 0
                : json_integer(checkpoint.config, entry.paired_heads_key, checkpoint.what());
        order.push_back({*std::move(name), &tensor, heads});
        return;
      }
    }
    fail("{} has no name in a GGUF of architecture {}", tensor.name, dialect.architecture);
  };
  for (const Stored& tensor : checkpoint.tensors) {
    if (!tensor.name.ends_with("rotary_emb.inv_freq") &&
        !(tensor.name == "lm_head.weight" && blueprint.tied()))
      add(tensor);
  }
  const size_t own = order.size();
  for (const Stored& tensor : zeros) add(tensor);
  const std::vector<GgufExtra> extras = dialect.extras(checkpoint.config);
  std::vector<Stored> extra_tensors;
  for (const GgufExtra& extra : extras) {
    extra_tensors.push_back({.name = extra.name,
                             .shape = {static_cast<int64_t>(extra.values.size())},
                             .bytes = std::as_bytes(std::span(extra.values))});
  }
  for (const Stored& tensor : extra_tensors) add(tensor);

  std::vector<DType> dtypes;
  for (const Outgoing& out : order) dtypes.push_back(gguf_dtype(*out.tensor, dtype));
  const gguf::File header = header_of(model, checkpoint, dialect, blueprint, order, dtypes);

  AtomicFile file(path);
  file.write(gguf::write_header(header));
  const uint64_t start = file.written();
  const auto total = static_cast<double>(header.tensors.back().offset + header.tensors.back().bytes);
  const auto pad_to = [&](uint64_t offset) {
    const std::string zero(offset - (file.written() - start), '\0');
    file.write(zero);
  };
  for (size_t i = 0; i < order.size(); ++i) {
    if (watch.stop.stop_requested()) throw Stopped{};
    pad_to(header.tensors[i].offset);
    stream(*order[i].tensor, {.as = dtypes[i], .paired_heads = order[i].paired_heads},
           [&](Bytes piece) { file.write(piece); });
    watch.report({"write", static_cast<double>(header.tensors[i].offset), total, path.filename().string()});
  }
  const uint64_t end = header.tensors.back().offset + header.tensors.back().bytes;
  pad_to((end + header.alignment - 1) / header.alignment * header.alignment);
  file.commit();

  const Opened again = open(path);
  for (size_t i = 0; i < own; ++i) {
    watch.report({"check", static_cast<double>(i), static_cast<double>(own), order[i].name});
    if (watch.stop.stop_requested()) throw Stopped{};
    const Stored* there = again.checkpoint.find(order[i].tensor->name);
    if (!there) fail("{}: {} is missing after writing", path.string(), order[i].name);
    uint64_t at = 0;
    stream(*order[i].tensor, {.as = dtypes[i], .paired_heads = order[i].paired_heads}, [&](Bytes piece) {
      const Bytes bytes = there->bytes.subspan(at, piece.size());
      if (!std::ranges::equal(piece, bytes))
        fail("{}: {} differs from what was meant", path.string(), order[i].name);
      there->file->release(bytes);
      at += piece.size();
    });
  }
}

}  // namespace lamina
