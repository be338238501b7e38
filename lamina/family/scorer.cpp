#include "lamina/family/scorer.h"

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::scorer {

namespace {

constexpr IntegerRange kSize{1, 4096};
constexpr size_t kMostStages = 8, kMostQuestions = 1000;

Json tiny() {
  return {{"architectures", {"LaminaSceneScorer"}},
          {"model_type", "lamina_scene_scorer"},
          {"image_size", 8},
          {"channels", {4, 6}},
          {"norm_groups", 2},
          {"squeezed", 3},
          {"features", 10},
          {"heads", {{"shape", 3}, {"colour", 4}}},
          {"torch_dtype", "float64"}};
}

std::vector<int64_t> read_channels(const Json& json, std::string_view what) {
  if (!json_has(json, "channels") || !json["channels"].is_array() || json["channels"].empty() ||
      json["channels"].size() > kMostStages)
    fail("{}: \"channels\" is to be a list of 1 to {} numbers, one a stage", what, kMostStages);
  std::vector<int64_t> channels;
  for (const Json& value : json["channels"])
    channels.push_back(json_integer(Json{{"channels", value}}, "channels", what, kSize));
  return channels;
}

std::vector<Question> read_questions(const Json& json, std::string_view what) {
  if (!json_has(json, "heads") || !json["heads"].is_object() || json["heads"].empty() ||
      json["heads"].size() > kMostQuestions)
    fail("{}: \"heads\" is to say for each question how many classes it has", what);
  std::vector<Question> questions;
  for (const auto& [name, classes] : json["heads"].items())
    questions.push_back({name, json_integer(json["heads"], name, what, kSize)});
  return questions;
}

Blueprint blueprint(const Json& json, std::string_view what) {
  const Config c = read_config(json, what);
  Blueprint b;
  b.family = "scorer";
  b.width = c.features;
  b.head = b.own_head = "head.weight";
  const auto weight = [&](const std::string& path, const std::vector<Axis>& axes) {
    b.slots.push_back({.name = path + ".weight", .axes = axes});
    b.slots.push_back({.name = path + ".bias", .axes = {axes.front()}});
  };
  const auto kernel = [](int64_t side) { return Axis{"", side}; };
  const auto stage_axis = [&](size_t stage) {
    return Axis{"", c.channels[stage]};  // the residual of a stage, normed in groups
  };
  weight("conv_in", {stage_axis(0), {"", 3}, kernel(3), kernel(3)});
  for (size_t stage = 0; stage < c.channels.size(); ++stage) {
    const std::string path = fmt::format("stages.{}", stage);
    const Axis channels = stage_axis(stage);
    for (const char* half : {"1", "2"}) {
      weight(path + ".norm" + half, {channels});
      weight(path + ".conv" + half, {channels, channels, kernel(3), kernel(3)});
    }
    if (stage + 1 < c.channels.size())
      weight(path + ".down", {stage_axis(stage + 1), channels, kernel(3), kernel(3)});
  }
  const Axis squeezed{"squeezed", c.squeezed, 1}, features{"features", c.features};
  weight("norm_out", {stage_axis(c.channels.size() - 1)});
  weight("squeeze", {squeezed, stage_axis(c.channels.size() - 1), kernel(1), kernel(1)});
  weight("features", {features, {"squeezed", c.squeezed, c.last_side() * c.last_side()}});
  weight("head", {{"", c.answers()}, features});
  return b;
}

}  // namespace

int64_t Config::answers() const {
  int64_t sum = 0;
  for (const Question& question : questions) sum += question.classes;
  return sum;
}

Config read_config(const Json& json, std::string_view what) {
  Config c;
  c.image_size = json_integer(json, "image_size", what, kSize);
  c.channels = read_channels(json, what);
  c.groups = json_integer_or(json, "norm_groups", c.groups, what, kSize);
  c.squeezed = json_integer_or(json, "squeezed", c.squeezed, what, kSize);
  c.features = json_integer_or(json, "features", c.features, what, kSize);
  c.questions = read_questions(json, what);
  for (const int64_t channels : c.channels) {
    if (channels % c.groups != 0)
      fail("{}: {} channels are not parted evenly by {} groups", what, channels, c.groups);
  }
  if (const int64_t step = int64_t{1} << (c.channels.size() - 1); c.image_size % step != 0)
    fail("{}: pictures of {} pixels are not halved {} times", what, c.image_size, c.channels.size() - 1);
  return c;
}

Json to_json(const Config& config) {
  Json heads = Json::object();
  for (const Question& question : config.questions) heads[question.name] = question.classes;
  return {{"architectures", {"LaminaSceneScorer"}},
          {"model_type", "lamina_scene_scorer"},
          {"image_size", config.image_size},
          {"channels", config.channels},
          {"norm_groups", config.groups},
          {"squeezed", config.squeezed},
          {"features", config.features},
          {"heads", std::move(heads)}};
}

Architecture declaration() {
  return {.name = "LaminaSceneScorer",
          .model_type = "lamina_scene_scorer",
          .blueprint = blueprint,
          .tiny = tiny,
          .dialects = {}};
}

}  // namespace lamina::scorer
