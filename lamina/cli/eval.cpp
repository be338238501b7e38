// lamina eval: perplexity on a text, its protocol printed beside it.
#include <fmt/format.h>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/session.h"
#include "lamina/eval/perplexity.h"

namespace lamina::cli {

int run_eval(int argc, char** argv) {
  CLI::App app(
      "Perplexity of a model on a text.\n\nExample: lamina eval MODEL --text wikitext-2/test.txt --length "
      "1024 --stride 512",
      "eval");
  std::filesystem::path model, text;
  std::string dtype = "float32", skip;
  PerplexityOptions options;
  bool json = false, quiet = false;
  app.add_option("MODEL", model, "folder or GGUF file")->required();
  app.add_option("--text", text, "a UTF-8 file (default: the embedded held-out text)");
  app.add_option("--length", options.length, "tokens in a window")->capture_default_str();
  app.add_option("--stride", options.stride, "tokens a window moves on")->capture_default_str();
  app.add_option("--tokens", options.max_tokens, "use only the first so many tokens; 0: all")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--dtype", dtype, "float32 or float64")->capture_default_str();
  app.add_option("--skip", skip, "parts to leave out, as --drop in apply");
  app.add_option("--threads", options.threads, "workers, each on one core")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_flag("--json", json, "one object on stdout");
  app.add_flag("-q,--quiet", quiet, "no progress");
  parse(app, argc, argv);
  Terminal terminal({.quiet = quiet});
  const Session session = open_session(model, {.dtype = dtype});
  if (options.length > session.opened.blueprint.context)
    fail("--length {}: this model was made for {} tokens", options.length, session.opened.blueprint.context);
  const NamedText source = text.empty() ? embedded_heldout() : text_from(text);
  const std::vector<int32_t> ids = session.tokenizer.encode(source.text);
  Skip tap(session.opened.blueprint);
  if (!skip.empty()) tap = Skip(session.opened.blueprint, plan_from_list(skip, session.opened.blueprint));
  const Perplexity result = perplexity(*session.model, ids, options, tap, terminal.watch());
  terminal.clear();
  const bool bos = session.tokenizer.bos() && !ids.empty() && ids.front() == *session.tokenizer.bos();
  Json record = {{"perplexity", result.value},
                 {"nll", result.nll},
                 {"nll_stderr", result.stderr_nll},
                 {"tokens", result.tokens},
                 {"windows", result.windows},
                 {"length", options.length},
                 {"stride", options.stride},
                 {"bos", bos},
                 {"dtype", dtype},
                 {"text", source.name},
                 {"text_sha256", source.sha256}};
  if (json) {
    print(record.dump(2) + "\n");
  } else {
    print(fmt::format(
        "perplexity {:.4f}   ({:.5f} +- {:.5f} nats a token)\n"
        "{} tokens scored in {} windows of {}, stride {}; {} at the head; {}; {} (sha256 {})\n",
        result.value, result.nll, result.stderr_nll, thousands(result.tokens), result.windows, options.length,
        options.stride, bos ? "BOS" : "no BOS", dtype, source.name, source.sha256.substr(0, 16)));
  }
  return Status::ok;
}

}  // namespace lamina::cli
