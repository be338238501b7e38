#include "lamina/checkpoint/pipeline.h"

#include <algorithm>
#include <array>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

constexpr const char* kIndex = "model_index.json";
constexpr size_t kMaxFiles = 100'000;
constexpr size_t kPiece = size_t{8} << 20;

void check_name(const std::string& name, std::string_view what) {
  const bool odd = std::ranges::any_of(
      name, [](char c) { return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 32 || c == 127; });
  if (name.empty() || name.size() > 200 || name.starts_with('.') || odd)
    fail("{}: the component {} is not the name of a folder inside the pipeline", what, in_quotes(name));
}

// Whether `path` is `folder` or below it; both canonical.
bool inside(const fs::path& path, const fs::path& folder) {
  const auto [end, rest] = std::ranges::mismatch(folder, path);
  return end == folder.end();
}

// A link may lead to a file of the pipeline, or where the hub's cache keeps what its snapshots link to.
void check_link(const fs::path& link, const fs::path& root) {
  std::error_code error;
  const fs::path there = fs::canonical(link, error);
  if (error)
    fail("{}: is a link that leads nowhere ({}); was the download complete?", link.string(), error.message());
  if (!fs::is_regular_file(there))
    fail("{}: is a link to something that is not a file; put the folder itself in its place", link.string());
  const bool snapshot = root.parent_path().filename() == "snapshots";
  if (!inside(there, root) && !(snapshot && inside(there, root.parent_path().parent_path() / "blobs")))
    fail("{}: is a link that leads out of the pipeline; put the file itself in its place", link.string());
}

std::vector<std::string> files_of(const fs::path& folder) {
  const fs::path root = fs::canonical(folder);
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_symlink()) check_link(entry.path(), root);
    if (!entry.is_regular_file()) continue;
    files.push_back(entry.path().lexically_relative(folder).generic_string());
    if (files.size() > kMaxFiles) fail("{}: holds more than {} files", folder.string(), kMaxFiles);
  }
  std::ranges::sort(files);
  return files;
}

void check_folder(const Pipeline& pipeline, const Pipeline::Component& component) {
  const fs::path folder = pipeline.folder(component.name);
  if (fs::is_symlink(folder) || !fs::is_directory(folder))
    fail("{}: names {}, but there is no such folder beside it; was the download complete?",
         (pipeline.path / kIndex).string(), in_quotes(component.name));
}

bool belongs_to(std::string_view file, std::string_view component) {
  return file.size() > component.size() && file.starts_with(component) && file[component.size()] == '/';
}

struct Copying {
  const Watch& watch;
  double done = 0, total = 0;
};

void copy_file(const fs::path& from, const fs::path& to, Copying& copying) {
  const auto file = MappedFile::open(from);
  AtomicFile out(to);
  for (Bytes rest = file->bytes(); !rest.empty();) {
    if (copying.watch.stop.stop_requested()) throw Stopped{};
    file->check_not_truncated();
    const Bytes piece = rest.first(std::min(rest.size(), kPiece));
    out.write(piece);
    file->release(piece);
    rest = rest.subspan(piece.size());
    copying.done += static_cast<double>(piece.size());
    copying.watch.report({"write", copying.done, copying.total, from.filename().string()});
  }
  out.commit();
}

void check_replaced(const Pipeline& pipeline, const std::map<std::string, const Checkpoint*>& replaced) {
  for (const auto& [name, checkpoint] : replaced)
    if (!pipeline.has(name))
      fail("{}: has no component {} to replace", pipeline.path.string(), in_quotes(name));
}

// Whether a file of the pipeline's own folder says how the model was.
bool speaks_of_it(std::string_view file) {
  constexpr std::array<std::string_view, 5> kOurs = {"README.md", "report.html", "report.json", "repair.json",
                                                     "scores.csv"};
  return std::ranges::find(kOurs, file) != kOurs.end();
}

// The index with what the replaced components are now; nothing: it says so already. A loader that went by
// another class than the config's would run another function.
std::optional<std::string> renamed_index(const Pipeline& pipeline,
                                         const std::map<std::string, const Checkpoint*>& replaced) {
  Json index = pipeline.index;
  for (const auto& [name, checkpoint] : replaced) {
    const std::string own = json_string_or(checkpoint->config, "_class_name", "", checkpoint->what());
    if (!own.empty()) index.at(name).at(1) = own;
  }
  if (index == pipeline.index) return {};
  return index.dump(2) + "\n";
}

void check_extra(const std::string& name) {
  const fs::path path(name);
  const bool leaves = std::ranges::any_of(path, [](const fs::path& part) { return part == ".."; });
  if (name.empty() || path.is_absolute() || leaves)
    fail("{} is not the name of a file inside the pipeline", in_quotes(name));
}

}  // namespace

std::vector<Pipeline::Component> pipeline_components(const Json& index, std::string_view what) {
  if (!index.is_object()) fail("{}: is not a JSON object", what);
  std::vector<Pipeline::Component> components;
  for (const auto& [name, value] : index.get_ref<const Json::object_t&>()) {
    if (name.starts_with('_') || value.is_primitive()) continue;  // a setting of the pipeline
    const bool pair = value.is_array() && value.size() == 2;
    if (pair && value[0].is_null() && value[1].is_null()) continue;  // may be there, and is not
    if (!pair || !value[0].is_string() || !value[1].is_string())
      fail("{}: the component {} is not said as [library, class], nor as [null, null]", what,
           in_quotes(name));
    check_name(name, what);
    components.push_back({name, value[0].get<std::string>(), value[1].get<std::string>()});
  }
  return components;
}

bool Pipeline::has(std::string_view component) const {
  return std::ranges::find(components, component, &Component::name) != components.end();
}

bool is_pipeline(const fs::path& folder) {
  std::error_code error;
  return fs::is_regular_file(folder / kIndex, error);
}

Pipeline open_pipeline(const fs::path& folder) {
  if (!fs::is_directory(folder)) fail("{}: there is no such folder", folder.string());
  if (!is_pipeline(folder))
    fail("{}: has no {}; a diffusers pipeline is a folder that holds one", folder.string(), kIndex);
  Pipeline pipeline{.path = folder};
  const std::string what = (folder / kIndex).string();
  pipeline.files = files_of(folder);  // first: it looks where links lead
  pipeline.index_text = read_file(folder / kIndex, size_t{1} << 20);
  pipeline.index = parse_json(pipeline.index_text, what, {.depth = 8});
  pipeline.components = pipeline_components(pipeline.index, what);
  for (const Pipeline::Component& component : pipeline.components) check_folder(pipeline, component);
  return pipeline;
}

void write_pipeline(const Pipeline& pipeline, const std::map<std::string, const Checkpoint*>& replaced,
                    const fs::path& folder, const PipelineOptions& options) {
  check_replaced(pipeline, replaced);
  std::vector<std::string> kept;
  Copying copying{.watch = options.write.watch};
  for (const std::string& file : pipeline.files) {
    if (std::ranges::any_of(replaced, [&](const auto& item) { return belongs_to(file, item.first); }) ||
        (!replaced.empty() && speaks_of_it(file)))
      continue;
    kept.push_back(file);
    copying.total += static_cast<double>(fs::file_size(pipeline.path / file));
  }
  for (const std::string& file : kept) {
    fs::create_directories((folder / file).parent_path());
    copy_file(pipeline.path / file, folder / file, copying);
  }
  for (const auto& [name, checkpoint] : replaced) {
    fs::create_directories(folder / name);
    write_folder(*checkpoint, folder / name, options.write);
  }
  if (const auto index = renamed_index(pipeline, replaced)) write_file(folder / kIndex, *index);
  for (const auto& [name, content] : options.extra_files) {
    check_extra(name);
    fs::create_directories((folder / name).parent_path());
    write_file(folder / name, content);
  }
}

}  // namespace lamina
