// The `lamina` binary. It links only the rooms that are free of torch, so that inspect, apply and tokenize
// start at once; verbs that compute are in liblamina.so, which is opened when one of them is asked for.
#include <dlfcn.h>
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "lamina/base/bus_error.h"
#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/apply.h"
#include "lamina/cli/cli.h"

namespace {

using namespace lamina;
using namespace lamina::cli;

constexpr Verb kVerbs[] = {
    {"inspect", "parts, shapes, parameters, FLOPs, KV bytes, what can be cut and exported", run_inspect},
    {"prune", "find the parts that matter least, cut them, write a smaller model", nullptr},
    {"heal", "fine-tune or distil a model: all of it or adapters, resumable", nullptr},
    {"repair", "a cut denoiser, by least squares: the maps behind what is gone, without training", nullptr},
    {"train", "a small model from nothing, as a JSON file says", nullptr},
    {"scenes", "how often a text-to-image pipeline draws what captions of generated scenes say", nullptr},
    {"denorm", "fine-tune until no LayerNorm or RMSNorm is needed, and fold them away", nullptr},
    {"apply", "cut by a plan made earlier or by hand", run_apply},
    {"lora-remap", "a LoRA of a model for the same model after a cut", run_lora_remap},
    {"eval", "perplexity on a text, with its protocol", nullptr},
    {"analyse", "models side by side: attribution, neurons, sinks, calibration, tails", nullptr},
    {"generate", "continue a prompt", nullptr},
    {"draw", "a picture from a prompt, by a pipeline folder", nullptr},
    {"tokenize", "text to token ids, a line each, and back", run_tokenize},
    {"forward", "the bare function on tensors from a file", nullptr},
    {"neurons map", "read every neuron through the LM head, into an atlas", nullptr},
    {"neurons find", "which neurons read or write a word, against chance", run_neurons_find},
    {"neurons show", "what a neuron reads and writes", run_neurons_show},
    {"neurons compare", "the neurons of two models that say the same", run_neurons_compare},
    {"neurons export", "an atlas as CSV or JSON", run_neurons_export},
    {"neurons clamp", "hold neurons at a value: what changes, and into the weights", nullptr},
    {"neurons erase", "turn round the rows that point at a concept (experimental)", nullptr},
    {"neurons undo", "take a clamp or an erasure back, to the byte", nullptr},
    {"neurons serve", "an atlas as a page on this machine; with a model, clamp and watch", nullptr},
    {"tag train", "a token classifier from a language model, some blocks without causal mask", nullptr},
    {"tag eval", "precision, recall and F1 of a tagger on sentences with tags", nullptr},
    {"tag predict", "tag text or words, as they come", nullptr},
    {"tag score", "precision, recall and F1 of entities, from gold and predicted tags", run_tag_score},
    {"verify", "reopen what was written, recompute, compare with the plan's claims", nullptr},
};

std::string help() {
  std::string text =
      "lamina: layer surgery for neural networks\n\nUsage: lamina VERB ...   (lamina VERB --help tells "
      "more)\n\n";
  for (const Verb& verb : kVerbs) text += fmt::format("  {:<15} {}\n", verb.name, verb.summary);
  text +=
      "\nExample: lamina prune SmolLM2-135M-Instruct.Q4_1.gguf -o smaller --remove 8\n\n"
      "Exit status: 0 done, 1 failed, 2 wrong usage, 130 or 143 stopped by a signal.\n"
      "MODEL is a Hugging Face folder (safetensors) or a GGUF file.\n";
  return text;
}

// The library stands beside the binary in a build tree and in ../lib when installed.
int run_engine(const char* verb, int argc, char** argv) {
  namespace fs = std::filesystem;
  const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  std::string tried;
  for (const fs::path& path : {here / "liblamina.so", here / ".." / "lib" / "liblamina.so"}) {
    if (!fs::exists(path)) continue;
    if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      const auto entry =
          reinterpret_cast<int (*)(const char*, int, char**)>(dlsym(library, "lamina_run_verb"));
      if (entry) return entry(verb, argc, argv);
    }
    tried = dlerror();
  }
  fail("liblamina.so could not be opened{}{}; build or install lamina again",
       tried.empty() ? " beside the binary" : ": ", tried);
}

int run(int argc, char** argv) {
  if (argc < 2) {
    std::fputs(help().c_str(), stderr);
    return Status::usage;
  }
  const std::string_view asked = argv[1];
  if (asked == "--help" || asked == "-h" || asked == "help") {
    print(help());
    return Status::ok;
  }
  if (asked == "--version" || asked == "version") {
    print(version_text() + "\n");
    return Status::ok;
  }
  std::vector<std::string> names;
  std::string family;  // the verbs that begin with this word
  for (const Verb& verb : kVerbs) {
    const std::string_view name = verb.name, first = name.substr(0, name.find(' '));
    const int words = first == name ? 1 : 2;
    if (asked == first && (words == 1 || (argc > 2 && name.substr(first.size() + 1) == argv[2]))) {
      // Of apply only what mixed kernels are folded by is computed.
      const bool here = verb.run && !(verb.run == run_apply && asks_to_fold(argc, argv));
      return here ? verb.run(argc - words, argv + words) : run_engine(verb.name, argc - words, argv + words);
    }
    if (asked == first) family += fmt::format("  {:<15} {}\n", name, verb.summary);
    names.emplace_back(words == 2 && asked == first && argc > 2 ? name.substr(first.size() + 1) : first);
  }
  if (!family.empty()) {
    const std::string_view second = argc > 2 ? argv[2] : "--help";
    const std::string text =
        fmt::format("Usage: lamina {} VERB ...   (with --help each tells more)\n\n{}", asked, family);
    if (second == "--help" || second == "-h" || second == "help") {
      print(text);
      return argc > 2 ? Status::ok : Status::usage;
    }
    const auto near = nearest(second, names);
    std::fputs(
        fmt::format("lamina: {} {} is no verb{}; lamina {} --help lists them\n", asked, in_quotes(second),
                    near ? fmt::format("; was {} {} meant?", asked, *near) : "", asked)
            .c_str(),
        stderr);
    return Status::usage;
  }
  const auto meant = nearest(asked, names);
  const std::string guess = meant ? fmt::format("; was {} meant?", *meant) : "";
  std::fputs(
      fmt::format("lamina: {} is no verb{}; lamina --help lists them\n", in_quotes(asked), guess).c_str(),
      stderr);
  return Status::usage;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that would grow past its limit: write() says so, with a sentence
  explain_bus_errors();
  return guarded([&] { return run(argc, argv); });
}
