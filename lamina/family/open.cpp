// Opening: a folder as it is, a GGUF through its dialect; then the blueprint is held against the file.
#include <algorithm>
#include <map>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/family/family.h"
#include "lamina/plan/plan.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

struct DialectMatch {
  const Architecture* architecture;
  const GgufDialect* dialect;
};

DialectMatch dialect_of(const gguf::File& file) {
  const std::string name = file.string("general.architecture");
  std::set<std::string> known;
  for (const Architecture& architecture : architectures()) {
    for (const GgufDialect& dialect : architecture.dialects) {
      if (dialect.architecture == name) return {&architecture, &dialect};
      known.emplace(dialect.architecture);
    }
  }
  fail("the GGUF architecture {} is not known here; {} are", in_quotes(name), fmt::join(known, ", "));
}

// "blk.7.attn_q.weight" against "blk.{}.attn_q.weight": the published name, or nothing.
std::optional<std::string> translate(std::string_view name, const GgufName& entry) {
  const size_t hole = entry.gguf.find("{}");
  if (hole == std::string_view::npos)
    return name == entry.gguf ? std::optional<std::string>(entry.published) : std::nullopt;
  const std::string_view head = entry.gguf.substr(0, hole), tail = entry.gguf.substr(hole + 2);
  if (!name.starts_with(head) || !name.ends_with(tail) || name.size() <= head.size() + tail.size())
    return std::nullopt;
  const std::string_view number = name.substr(head.size(), name.size() - head.size() - tail.size());
  if (!std::ranges::all_of(number, [](char c) { return c >= '0' && c <= '9'; })) return std::nullopt;
  return fmt::format(fmt::runtime(entry.published), number);
}

Checkpoint open_gguf(const fs::path& path) {
  const std::string what = path.string();
  auto mapped = MappedFile::open(path);
  auto header = std::make_shared<const gguf::File>(gguf::parse(mapped->bytes(), what));
  DialectMatch match{};
  Checkpoint checkpoint;
  checkpoint.path = path;
  try {  // the readers of a header do not know the file's name
    if (const int64_t parts = header->integer_or("split.count", 1); parts > 1) {
      fail("is one part of a GGUF split into {}; join the parts first (llama-gguf-split --merge)", parts);
    }
    match = dialect_of(*header);
    checkpoint.config = match.dialect->config(*header, mapped->bytes(), what);
  } catch (const Error& error) {
    fail("{}: {}", what, error.what());
  }
  checkpoint.gguf = header;
  checkpoint.files.push_back(mapped);
  checkpoint.shards.push_back(
      {.name = "model.safetensors", .metadata = {{"format", "pt"}}, .metadata_present = true});
  for (const gguf::TensorInfo& info : header->tensors) {
    Stored tensor{.name = {},
                  .dtype = info.dtype,
                  .shape = info.shape,
                  .bytes = mapped->bytes().subspan(header->data_start + info.offset, info.bytes),
                  .file = mapped};
    for (const GgufName& entry : match.dialect->names) {
      if (auto name = translate(info.name, entry)) {
        tensor.name = *std::move(name);
        if (!entry.paired_heads_key.empty())
          tensor.paired_heads = json_integer(checkpoint.config, entry.paired_heads_key, what);
        break;
      }
    }
    if (tensor.name.empty())
      fail("{}: the tensor {} has no place in a {} model", what, in_quotes(info.name),
           match.architecture->model_type);
    checkpoint.tensors.push_back(std::move(tensor));
  }
  match.dialect->tidy(checkpoint);
  std::ranges::sort(checkpoint.tensors, {}, &Stored::name);
  return checkpoint;
}

std::string shape_text(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// Transformers of pictures have their projections as matrices or as convolutions of 1 x 1.
bool differs_in_ones(Shape a, Shape b) {
  for (Shape* shape : {&a, &b}) {
    while (!shape->empty() && shape->back() == 1) shape->pop_back();
  }
  return a == b;
}

void reconcile(const Blueprint& blueprint, const Checkpoint& checkpoint) {
  const std::string where = checkpoint.path.string();
  std::map<std::string_view, const Stored*> extra;
  for (const Stored& tensor : checkpoint.tensors) extra.emplace(tensor.name, &tensor);
  for (const Slot& slot : blueprint.slots) {
    const auto it = extra.find(slot.name);
    if (it == extra.end()) {
      fail("{}: {} is missing, and nothing in config.json says that it was cut{}", where, slot.name,
           slot.part >= 0 ? "; was this checkpoint cut without its plan?" : "; is a file missing?");
    }
    Shape expected;
    for (const Axis& axis : slot.axes) expected.push_back(axis.size());
    if (it->second->shape != expected) {
      fail("{}: {} has the shape {} where config.json asks for {}; {}?", where, slot.name,
           shape_text(it->second->shape), shape_text(expected),
           differs_in_ones(it->second->shape, expected) ? "is use_linear_projection said rightly there"
                                                        : "was this checkpoint cut without its plan");
    }
    if (!is_floating(it->second->dtype))
      fail("{}: {} holds {}, which are no weights", where, slot.name, dtype_name(it->second->dtype));
    extra.erase(it);
  }
  for (const std::string& name : blueprint.optional_slots) {
    const auto it = extra.find(name);
    if (it == extra.end()) continue;
    // Readers differ: some take the head that is there, some the embedding.
    if (!std::ranges::equal(it->second->bytes, checkpoint.find(blueprint.embedding)->bytes))
      fail("{}: {} differs from {}, to which config.json ties it; is tie_word_embeddings to be false?", where,
           name, blueprint.embedding);
    extra.erase(it);
  }
  for (const std::string& name : blueprint.unread) extra.erase(name);
  std::erase_if(extra, [](const auto& entry) {
    return entry.first.ends_with("rotary_emb.inv_freq");
  });  // old files store it
  if (!extra.empty()) {
    fail("{}: {} has no place in this model ({} such tensor{}); does config.json belong to these weights?",
         where, extra.begin()->first, extra.size(), extra.size() == 1 ? "" : "s");
  }
}

}  // namespace

Opened declare(Checkpoint checkpoint) {
  Opened opened;
  opened.architecture = &architecture_of(checkpoint.config, checkpoint.what());
  opened.blueprint = opened.architecture->blueprint_of
                         ? opened.architecture->blueprint_of(checkpoint)
                         : opened.architecture->blueprint(checkpoint.config, checkpoint.what());
  reconcile(opened.blueprint, checkpoint);
  clamps_of(checkpoint.config, opened.blueprint, checkpoint.what());  // malformed: said now, not when it runs
  opened.checkpoint = std::move(checkpoint);
  return opened;
}

Opened open(const fs::path& path) {
  if (fs::is_directory(path) || !fs::exists(path)) return declare(open_folder(path));
  const std::string kind = path.extension();
  if (kind == ".safetensors" || kind == ".json")
    fail("{}: name the folder that holds the model, not a file in it", path.string());
  return declare(open_gguf(path));
}

}  // namespace lamina
