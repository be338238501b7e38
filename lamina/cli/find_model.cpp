#include "lamina/cli/find_model.h"

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::cli {

ExportOptions Found::exporting(const Watch& watch) const {
  return {.watch = watch, .pipeline = pipeline ? &*pipeline : nullptr, .component = component};
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
