#include "lamina/methods/registry.h"

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/methods/baselines/baselines.h"
#include "lamina/methods/blockpruner/blockpruner.h"
#include "lamina/methods/finercut/finercut.h"
#include "lamina/methods/similarity/similarity.h"
#include "lamina/methods/sleb/sleb.h"

namespace lamina {

std::span<const Method> methods() {
  static constexpr Method all[] = {
      {"finercut", "FinerCut", "greedy, by how far the output moves", "both", "", false, finercut::propose},
      {"shortgpt", "ShortGPT", "one pass, blocks that turn the residual least", "block", "1 - cosine", false,
       similarity::propose},
      {"blockpruner", "BlockPruner", "greedy, by calibration perplexity", "both", "ppl", false,
       blockpruner::propose},
      {"sleb", "SLEB", "greedy over blocks, by calibration perplexity, ends kept", "block", "ppl", true,
       sleb::propose},
      {"llm-drop", "LLM-Drop", "one pass, parts that turn the residual least", "both", "1 - cosine", false,
       similarity::propose},
      {"magnitude", "Smallest weights", "mean absolute weight", "both", "mean |weight|", false,
       baselines::magnitude},
      {"random", "Random", "units at random, by --seed", "both", "a draw", false, baselines::random},
      {"last", "Last units", "from the end", "both", "minus the place", false, baselines::last},
  };
  return all;
}

const Method& method_by_name(std::string_view name) {
  std::vector<std::string> names;
  for (const Method& method : methods()) {
    if (method.name == name) return method;
    names.emplace_back(method.name);
  }
  const auto meant = nearest(name, names);
  fail("{} is no method{}; {} are", in_quotes(name), meant ? fmt::format(" (was {} meant?)", *meant) : "",
       fmt::join(names, ", "));
}

}  // namespace lamina
