#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/family/clip.h"
#include "lamina/family/family.h"
#include "lamina/family/gpt2.h"
#include "lamina/family/llama.h"
#include "lamina/family/scorer.h"
#include "lamina/family/unet.h"
#include "lamina/family/vae.h"
#include "lamina/plan/plan.h"

namespace lamina {

std::span<const Architecture> architectures() {
  static const Architecture all[] = {
      llama::llama_declaration(), llama::mistral_declaration(),  llama::qwen2_declaration(),
      gpt2::declaration(),        scorer::declaration(),         unet::declaration(),
      clip::text_declaration(),   clip::projected_declaration(), vae::kl_declaration(),
      vae::tiny_declaration(),
  };
  return all;
}

const Architecture& architecture_of(const Json& config, std::string_view what) {
  std::string known, asked;
  if (json_has(config, "architectures") && config.at("architectures").is_array() &&
      !config.at("architectures").empty()) {
    const Json& first = config.at("architectures")[0];
    asked = stock_name(first.is_string() ? first.get<std::string>() : first.dump());
  }
  if (asked.empty()) asked = stock_name(json_string_or(config, "_class_name", "", what));
  const std::string type = stock_name(json_string_or(config, "model_type", "", what));
  for (const Architecture& architecture : architectures()) {
    if (asked.empty() ? type == architecture.model_type
                      : asked == stock_name(architecture.name) || asked == architecture.classifier)
      return architecture;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", architecture.name);
  }
  if (asked.empty() && type.empty())
    fail("{}: none of \"architectures\", \"model_type\" and \"_class_name\" says what the model is", what);
  fail("{}: {} is not known here; {} are", what, in_quotes(asked.empty() ? type : asked), known);
}

int64_t labels_in(const Json& config, std::string_view what) {
  constexpr int64_t kMostLabels = 100'000;
  if (!json_has(config, "architectures") || !config.at("architectures").is_array() ||
      config.at("architectures").empty())
    return 0;
  const Json& name = config.at("architectures")[0];
  if (!name.is_string() || !name.get<std::string>().ends_with("ForTokenClassification")) return 0;
  if (!json_has(config, "id2label") || !config.at("id2label").is_object() || config.at("id2label").empty())
    fail("{}: is a token classifier, but \"id2label\" does not say what its classes are", what);
  const Json& names = config.at("id2label");
  if (static_cast<int64_t>(names.size()) > kMostLabels)
    fail("{}: \"id2label\" has {} classes; {} are possible", what, names.size(), kMostLabels);
  for (size_t i = 0; i < names.size(); ++i) {
    const auto it = names.find(std::to_string(i));
    if (it == names.end() || !it->is_string())
      fail("{}: \"id2label\" has {} entries, but none that names class {}", what, names.size(), i);
  }
  return static_cast<int64_t>(names.size());
}

}  // namespace lamina
