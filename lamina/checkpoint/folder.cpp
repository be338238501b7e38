#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/checkpoint/checkpoint.h"
#include "lamina/format/safetensors.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kIndexEnd = ".safetensors.index.json";

// "model" of transformers' files, "diffusion_pytorch_model" of diffusers'.
std::string stem_of(const Checkpoint& checkpoint) {
  return json_has(checkpoint.config, "_class_name") ? "diffusion_pytorch_model" : "model";
}

// Written anew for every output; everything else small in the folder travels as it is.
bool is_sidecar(const fs::directory_entry& entry) {
  static const std::set<std::string, std::less<>> kOurs = {
      "config.json", "README.md", "plan.json", "report.html", "report.json", "lamina.json", "undo.json"};
  static const std::set<std::string, std::less<>> kKinds = {".json", ".txt",      ".model", ".jinja",
                                                            ".md",   ".tiktoken", ""};
  const std::string name = entry.path().filename();
  std::error_code error;  // a link may lead nowhere, or to itself
  if (!entry.is_regular_file(error) || name.starts_with(".") || kOurs.contains(name) ||
      name.ends_with(".index.json"))
    return false;
  return kKinds.contains(entry.path().extension().string()) && entry.file_size() <= (64u << 20);
}

std::string weight_file_hint(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto kind = entry.path().extension();
    if (kind == ".bin" || kind == ".pt" || kind == ".pth" || kind == ".ckpt") {
      return fmt::format(
          "; {} is a pickle, which can run code when opened and is refused: save it as safetensors first",
          entry.path().filename().string());
    }
    if (kind == ".gguf")
      return fmt::format("; name the file itself to open {}", entry.path().filename().string());
  }
  return "";
}

void add_shard(Checkpoint& checkpoint, const std::string& name) {
  const fs::path path = checkpoint.path / name;
  if (!fs::exists(path))
    fail("{}: is named by {}{} but is not there; was the download complete?", path.string(),
         stem_of(checkpoint), kIndexEnd);
  auto file = MappedFile::open(path);
  const safetensors::Header header = safetensors::parse_header(file->bytes(), path.string());
  const int shard = static_cast<int>(checkpoint.shards.size());
  for (const safetensors::TensorInfo& info : header.tensors) {
    checkpoint.tensors.push_back(
        {.name = info.name,
         .dtype = info.dtype,
         .shape = info.shape,
         .bytes = file->bytes().subspan(header.data_start + info.begin, info.end - info.begin),
         .file = file,
         .shard = shard});
  }
  checkpoint.shards.push_back({name, header.metadata, header.metadata_present, header.order});
  checkpoint.files.push_back(std::move(file));
}

void add_sharded(Checkpoint& checkpoint) {
  const fs::path path = checkpoint.path / (stem_of(checkpoint) + std::string(kIndexEnd));
  const safetensors::Index index = safetensors::parse_index(read_file(path), path.string());
  checkpoint.index = index.document;
  std::unordered_map<std::string_view, std::string_view> home;
  std::vector<std::string> names;
  for (const auto& [tensor, shard] : index.weights) home.emplace(tensor, shard), names.push_back(shard);
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (const std::string& name : names) add_shard(checkpoint, name);

  std::set<std::string_view> seen;
  for (const Stored& tensor : checkpoint.tensors) {
    const std::string& shard = checkpoint.shards[static_cast<size_t>(tensor.shard)].name;
    if (!seen.insert(tensor.name).second)
      fail("{}: {} stands in two shards", checkpoint.path.string(), tensor.name);
    const auto it = home.find(tensor.name);
    if (it == home.end()) fail("{}: {} stands in {} but not in the index", path.string(), tensor.name, shard);
    if (it->second != shard)
      fail("{}: the index puts {} into {}, but it stands in {}", path.string(), tensor.name, it->second,
           shard);
  }
  for (const auto& [tensor, shard] : index.weights) {
    if (!seen.contains(tensor))
      fail("{}: the index names {}, but {} does not hold it", path.string(), tensor, shard);
  }
}

// The index of what is written: the keys of the one that was read, with the new map and size.
Json written_index(const Checkpoint& checkpoint, const std::vector<std::string>& names,
                   const std::optional<DType>& dtype) {
  uint64_t bytes = 0;
  std::map<std::string_view, const Stored*> by_name;
  for (const Stored& tensor : checkpoint.tensors) {
    bytes += byte_count(written_dtype(tensor, dtype), tensor.shape, tensor.name);
    by_name.emplace(tensor.name, &tensor);
  }
  Json index = checkpoint.index.is_object() ? checkpoint.index : Json{{"metadata", Json::object()}};
  index["metadata"]["total_size"] = bytes;
  Json map = Json::object();
  const auto put = [&](const Stored& tensor) { map[tensor.name] = names[static_cast<size_t>(tensor.shard)]; };
  if (json_has(index, "weight_map")) {
    for (const auto& item : index["weight_map"].items()) {
      if (const auto it = by_name.find(item.key()); it != by_name.end()) put(*it->second), by_name.erase(it);
    }
  }
  for (const auto& [name, tensor] : by_name) put(*tensor);  // renumbered blocks
  index["weight_map"] = std::move(map);
  return index;
}

void write_shard(const Checkpoint& checkpoint, int shard, const fs::path& path, const WriteOptions& options,
                 double& done, double total) {
  const Checkpoint::Shard& old = checkpoint.shards[static_cast<size_t>(shard)];
  safetensors::Header header;
  header.metadata = old.metadata;
  header.metadata_present = old.metadata_present;
  header.order = old.order;
  std::vector<const Stored*> order;
  for (const Stored& tensor : checkpoint.tensors) {
    if (tensor.shard != shard) continue;
    order.push_back(&tensor);
    header.tensors.push_back(
        {.name = tensor.name, .dtype = written_dtype(tensor, options.dtype), .shape = tensor.shape});
  }
  safetensors::lay_out(header.tensors);
  AtomicFile file(path);
  file.write(safetensors::write_header(header));
  for (size_t i = 0; i < order.size(); ++i) {
    if (options.watch.stop.stop_requested()) throw Stopped{};
    stream(*order[i], {.as = header.tensors[i].dtype}, [&](Bytes piece) { file.write(piece); });
    done += static_cast<double>(header.tensors[i].end - header.tensors[i].begin);
    options.watch.report({"write", done, total, path.filename().string()});
  }
  file.commit();
}

}  // namespace

Checkpoint open_folder(const fs::path& folder) {
  if (!fs::exists(folder)) fail("{}: there is no such file or folder", folder.string());
  if (!fs::is_directory(folder)) fail("{}: is neither a model folder nor a GGUF file", folder.string());
  Checkpoint checkpoint;
  checkpoint.path = folder;
  if (!fs::exists(folder / "config.json"))
    fail("{}: has no config.json; a model folder holds one{}", folder.string(), weight_file_hint(folder));
  checkpoint.config_text = read_file(folder / "config.json", 16u << 20);
  checkpoint.config = parse_json(checkpoint.config_text, checkpoint.what());
  if (!checkpoint.config.is_object()) fail("{}: is not a JSON object", checkpoint.what());

  std::vector<std::string> weights, indexes;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name == "undo.safetensors") continue;  // beside an edited model: what the edits replaced
    if (name.ends_with(".safetensors")) weights.push_back(name);
    if (name.ends_with(".safetensors.index.json")) indexes.push_back(name);
    if (is_sidecar(entry)) checkpoint.sidecars.push_back({name, entry.path()});
  }
  std::ranges::sort(checkpoint.sidecars, {}, &Sidecar::name);
  if (indexes.size() > 1)
    fail("{}: holds two indexes, {} and {}; remove the one that is not meant", folder.string(), indexes[0],
         indexes[1]);
  const std::string file = stem_of(checkpoint) + ".safetensors", index = file + ".index.json";
  if (!indexes.empty() && indexes[0] != index)
    fail("{}: the index {} is not named {}", folder.string(), indexes[0], index);
  if (!indexes.empty()) {
    add_sharded(checkpoint);
  } else if (std::ranges::count(weights, file) == 1 || weights.size() == 1) {
    add_shard(checkpoint, weights.size() == 1 ? weights[0] : file);
  } else if (weights.empty()) {
    fail("{}: holds no .safetensors file{}", folder.string(), weight_file_hint(folder));
  } else {
    fail("{}: holds {} .safetensors files and no {}; was the download complete?", folder.string(),
         weights.size(), index);
  }
  return checkpoint;
}

void write_folder(const Checkpoint& checkpoint, const fs::path& folder, const WriteOptions& options) {
  const bool untouched = !checkpoint.config_text.empty() &&
                         parse_json(checkpoint.config_text, checkpoint.what()) == checkpoint.config;
  write_file(folder / "config.json", untouched ? checkpoint.config_text : checkpoint.config.dump(2) + "\n");

  std::set<int> used;
  double done = 0, total = 0;
  for (const Stored& tensor : checkpoint.tensors) {
    used.insert(tensor.shard);
    total += static_cast<double>(byte_count(written_dtype(tensor, options.dtype), tensor.shape, tensor.name));
  }
  // A cut can empty a shard: then the rest are numbered anew, so that the names still tell the truth.
  std::vector<std::string> names;
  for (const Checkpoint::Shard& shard : checkpoint.shards) names.push_back(shard.name);
  if (used.size() < names.size()) {
    size_t number = 0;
    for (int shard : used) {
      names[static_cast<size_t>(shard)] =
          used.size() == 1
              ? stem_of(checkpoint) + ".safetensors"
              : fmt::format("{}-{:05}-of-{:05}.safetensors", stem_of(checkpoint), ++number, used.size());
    }
  }
  for (int shard : used)
    write_shard(checkpoint, shard, folder / names[static_cast<size_t>(shard)], options, done, total);
  if (used.size() > 1)
    write_file(folder / (stem_of(checkpoint) + std::string(kIndexEnd)),
               written_index(checkpoint, names, options.dtype).dump(2) + "\n");

  for (const Sidecar& sidecar : checkpoint.sidecars) {
    if (const auto* text = std::get_if<std::string>(&sidecar.body)) {
      write_file(folder / sidecar.name, *text);
    } else {
      write_file(folder / sidecar.name, read_file(std::get<fs::path>(sidecar.body)));
    }
  }
}

}  // namespace lamina
