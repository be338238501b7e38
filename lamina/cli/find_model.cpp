#include "lamina/cli/find_model.h"

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/text.h"

namespace lamina::cli {

ExportOptions Found::exporting(const Watch& watch) const {
  return {.watch = watch, .pipeline = pipeline ? &*pipeline : nullptr, .component = component};
}

bool is_denoiser(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return false;
  if (is_pipeline(path)) return true;
  const std::filesystem::path file = path / "config.json";
  if (!std::filesystem::is_regular_file(file, error)) return false;
  return read_file(file, size_t{16} << 20).find("UNet2DConditionModel") != std::string::npos;
}

Found find_model(const std::filesystem::path& path, const std::string& component) {
  if (!is_pipeline(path)) {
    if (!component.empty()) fail("{}: is no pipeline and has no components", path.string());
    return {.opened = open(path)};
  }
  Pipeline pipeline = open_pipeline(path);
  const std::string name = component.empty() ? "unet" : component;
  if (!pipeline.has(name)) {
    std::vector<std::string> names;
    for (const Pipeline::Component& each : pipeline.components) names.push_back(each.name);
    fail("{}: has no component {}; {} are there", path.string(), in_quotes(name), fmt::join(names, ", "));
  }
  Opened opened = open(pipeline.folder(name));
  return {.opened = std::move(opened), .pipeline = std::move(pipeline), .component = name};
}

}  // namespace lamina::cli
