#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/family/family.h"
#include "lamina/family/gpt2.h"
#include "lamina/family/llama.h"
#include "lamina/plan/plan.h"

namespace lamina {

std::span<const Architecture> architectures() {
  static const Architecture all[] = {
      llama::llama_declaration(),
      llama::mistral_declaration(),
      llama::qwen2_declaration(),
      gpt2::declaration(),
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
  const std::string type = stock_name(json_string_or(config, "model_type", "", what));
  for (const Architecture& architecture : architectures()) {
    if (asked == architecture.name || (asked.empty() && type == architecture.model_type)) return architecture;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", architecture.name);
  }
  if (asked.empty() && type.empty())
    fail("{}: neither \"architectures\" nor \"model_type\" says what the model is", what);
  fail("{}: {} is not known here; {} are", what, in_quotes(asked.empty() ? type : asked), known);
}

}  // namespace lamina
