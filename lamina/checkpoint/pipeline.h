// A diffusers pipeline folder as a value: model_index.json names its components, each a folder of its own.
// What is not replaced is written back byte for byte.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/base/progress.h"
#include "lamina/checkpoint/checkpoint.h"

namespace lamina {

struct Pipeline {
  struct Component {
    std::string name;        // "unet", "text_encoder_2"
    std::string library;     // "diffusers", "transformers"
    std::string class_name;  // "UNet2DConditionModel"
  };
  std::filesystem::path path;
  Json index = Json::object();             // model_index.json
  std::string index_text = {};             // as read
  std::vector<Component> components = {};  // those that are there, in the order of the index
  std::vector<std::string> files = {};     // every regular file, relative paths with '/', sorted

  bool has(std::string_view component) const;
  std::filesystem::path folder(std::string_view component) const { return path / component; }
};

// What an index names, in its order, without a look at folders: {"unet": ["diffusers",
// "UNet2DConditionModel"], "feature_extractor": [null, null], "requires_safety_checker": true}. Throws Error
// for a name that could lead out of the pipeline, or a component that is said in another way.
std::vector<Pipeline::Component> pipeline_components(const Json& index, std::string_view what);

// Whether the folder holds a model_index.json.
bool is_pipeline(const std::filesystem::path& folder);

// Throws Error when the index is malformed, names a folder outside the pipeline or one that is not there, or
// a link leads out.
Pipeline open_pipeline(const std::filesystem::path& folder);

struct PipelineOptions {
  WriteOptions write = {};
  // Of a component that is replaced: files other than config and weights that go into its folder.
  std::map<std::string, std::string> extra_files = {};  // relative to the pipeline: content
};
// Writes into an existing empty folder: `replaced` components as given (by name), under the class names that
// their configs have, and all else as it is. What the pipeline's own folder says of the model as it was (card
// and reports) stays behind when something is replaced.
void write_pipeline(const Pipeline& pipeline, const std::map<std::string, const Checkpoint*>& replaced,
                    const std::filesystem::path& folder, const PipelineOptions& options);

}  // namespace lamina
