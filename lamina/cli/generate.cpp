// lamina generate: continue a prompt, or answer as a chat.
#include <fmt/format.h>

#include <cmath>
#include <iostream>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/chat.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/session.h"
#include "lamina/data/chat_template.h"
#include "lamina/eval/generate.h"

namespace lamina::cli {

std::vector<int32_t> chat_prompt(const Tokenizer& tokenizer, const std::string& message) {
  const auto chat = tokenizer.chat_template();
  if (!chat) fail("this model has no chat template; leave --chat away");
  const auto text_of = [&](std::optional<int32_t> id) {
    return id ? std::optional<std::string>(*tokenizer.token(*id)) : std::nullopt;
  };
  const std::string text = render_chat(*chat, {{.role = "user", .content = message}},
                                       {.add_generation_prompt = true,
                                        .bos_token = text_of(tokenizer.bos()),
                                        .eos_token = text_of(tokenizer.eos())});
  return tokenizer.encode(text, {.special_tokens = false});
}

std::vector<int32_t> stop_ids(const Opened& opened, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  if (const auto eos = tokenizer.eos()) ids.push_back(*eos);
  const auto add = [&](const Json& value) {
    if (value.is_number_integer()) ids.push_back(value.get<int32_t>());
  };
  if (json_has(opened.checkpoint.config, "eos_token_id")) {
    const Json& eos = opened.checkpoint.config.at("eos_token_id");
    if (eos.is_array())
      std::ranges::for_each(eos, add);
    else
      add(eos);
  }
  return ids;
}

int run_generate(int argc, char** argv) {
  CLI::App app(
      "Continue a prompt.\n\nExample: lamina generate MODEL --chat -p 'What is the capital of France?'",
      "generate");
  std::filesystem::path model;
  std::string prompt, skip;
  GenerateOptions options;
  bool chat = false, json = false, no_cache = false;
  int threads = 1;
  app.add_option("MODEL", model, "folder or GGUF file")->required();
  app.add_option("-p,--prompt", prompt, "the text to continue; - reads standard input")->required();
  app.add_flag("--chat", chat, "put the prompt into the model's chat template");
  app.add_option("--tokens", options.tokens, "at most so many new tokens")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--temperature", options.temperature, "0: the likeliest token every time")
      ->capture_default_str();
  app.add_option("--top-k", options.top_k, "sample among the k likeliest; 0: all")->capture_default_str();
  app.add_option("--top-p", options.top_p, "sample among the likeliest that hold this probability")
      ->capture_default_str();
  app.add_option("--seed", options.seed, "for sampling")->capture_default_str();
  app.add_option("--skip", skip, "parts to leave out, as --drop in apply");
  app.add_option("--threads", threads, "threads")->capture_default_str()->check(CLI::Range(1, 1024));
  app.add_flag("--no-cache", no_cache,
               "run every token from the start (slow; what the cache is held against)");
  app.add_flag("--json", json, "one object on stdout when done: text, ids, speed");
  parse(app, argc, argv);
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature))
    fail("--temperature {}: a number from 0 is expected", options.temperature);
  if (options.top_k < 0) fail("--top-k {}: a whole number from 0 is expected", options.top_k);
  if (!(options.top_p > 0 && options.top_p <= 1))
    fail("--top-p {}: a share above 0 and up to 1 is expected", options.top_p);
  const Session session = open_session(model, {.dtype = "float32", .threads = threads, .keep_narrow = true});
  if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  const std::vector<int32_t> ids =
      chat ? chat_prompt(session.tokenizer, prompt) : session.tokenizer.encode(prompt);
  options.stop = stop_ids(session.opened, session.tokenizer);
  options.cache = !no_cache;
  TokenStream stream(session.tokenizer, {.skip_special = true});
  Terminal terminal({.quiet = true});
  const Watch watch = terminal.watch();
  std::string text;
  options.on_token = [&](int32_t id) {
    const std::string piece = stream.push(id);
    text += piece;
    if (!json) print(piece);
    watch.report({"generate", 0, 0, ""});
    return !watch.stop.stop_requested();
  };
  Skip tap(session.opened.blueprint);
  if (!skip.empty()) tap = Skip(session.opened.blueprint, plan_from_list(skip, session.opened.blueprint));
  const Generated result = generate(*session.model, ids, options, tap);
  const std::string rest = stream.finish();
  if (json) {
    print(Json{{"text", text + rest},
               {"ids", result.ids},
               {"prompt_tokens", ids.size()},
               {"prompt_seconds", result.prompt_seconds},
               {"tokens_per_second", result.tokens_per_second()},
               {"threads", threads},
               {"seed", options.seed}}
              .dump(2) +
          "\n");
  } else {
    print(rest + "\n");
  }
  if (watch.stop.stop_requested()) throw Stopped{};
  return Status::ok;
}

}  // namespace lamina::cli
